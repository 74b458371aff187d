"""How long the list of 50 past runs takes in a real Chromium: `python benchmarks/ui_runs.py` prints JSON.

`listed` is from a click on Watch to 50 rows in the page, the pictures of each made small once before; `opened` from
asking for the address of Watch, which is mostly Gradio's own start.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from served import ROOT, chromium_page, served

NUM_RUNS = 50
REPEATS = 5
LISTED = f"document.querySelectorAll('#past .runs > li').length === {NUM_RUNS}"
CLICK_TO_LIST = f"""() => new Promise((done) => {{
    const started = performance.now();
    const look = () => ({LISTED}) ? requestAnimationFrame(() => done(performance.now() - started)) : setTimeout(look, 5);
    [...document.querySelectorAll('button[role=tab]')].find((tab) => tab.textContent.trim() === 'Watch').click();
    look();
}})"""


def make_runs(home: Path) -> None:
    """Runs that are over, each with pictures and a LoRA file."""
    os.environ["LORA_SD_HOME"] = str(home)
    sys.path.insert(0, str(ROOT))
    from PIL import Image

    from lora_sd import config, events, run
    from lora_sd.recorder import Recorder

    for number in range(NUM_RUNS):
        named = config.changed(config.TrainConfig(), {"output.name": f"run-{number}", "optim.steps": 10})
        recorder = Recorder(run.create(named), 10)
        for step in range(11):
            recorder(events.Step(step=step, total=10, loss=0.1 if step else None, seconds=0.5))
        for step in (0, 5, 10):
            path = f"previews/{step:06d}-0.png"
            Image.effect_noise((512, 512), 60).convert("RGB").save(recorder.folder / path)
            recorder(events.Preview(step=step, prompt="a cat", index=0, path=path))
        (recorder.folder / "checkpoints" / f"run-{number}.safetensors").write_bytes(bytes(100_000))
        recorder(events.Finished(step=10, path=f"checkpoints/run-{number}.safetensors"))
        recorder.close()


def figures(home: Path) -> dict[str, float]:
    """Medians, in milliseconds."""
    make_runs(home)
    with served(home) as there, chromium_page(there.url) as page:
        return timed(page, there.url)


def timed(page: Any, url: str) -> dict[str, float]:
    opened, listed = [], []
    for number in range(REPEATS + 1):
        started = time.perf_counter()
        page.goto(f"{url}?tab=watch")
        page.wait_for_function(LISTED)
        opened.append((time.perf_counter() - started) * 1000)
        if number == 0:
            time.sleep(8)  # until every picture was made small
        page.goto(url)
        page.wait_for_function("window.pageIsOpen && window.newsCount > 0")
        time.sleep(1.5)
        listed.append(page.evaluate(CLICK_TO_LIST))
    return {
        "open_watch_with_50_runs_ms": statistics.median(opened[1:]),
        "list_50_runs_ms": statistics.median(listed[1:]),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        print(json.dumps({name: round(value) for name, value in figures(Path(home)).items()}, indent=1))


if __name__ == "__main__":
    main()
