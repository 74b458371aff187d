"""How long the list of 50 past runs takes in a real Chromium: `python benchmarks/ui_runs.py` prints JSON.

`listed` is from a click on Watch to 50 rows in the page, the pictures of each made small once before; `opened` from
asking for the address of Watch, which is mostly Gradio's own start.
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
NUM_RUNS = 50
REPEATS = 5
LISTED = f"document.querySelectorAll('#past .runs > li').length === {NUM_RUNS}"


def make_runs(home: str) -> None:
    """Runs that are over, each with pictures and a LoRA file."""
    os.environ["LORA_SD_HOME"] = home
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


def seconds_to_list() -> dict[str, float]:
    """Medians, in milliseconds."""
    with tempfile.TemporaryDirectory() as home:
        make_runs(home)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        program = subprocess.Popen(
            [sys.executable, "-m", "app.main", "--no-browser", "--port", str(port)],
            cwd=ROOT,
            env={**os.environ, "LORA_SD_HOME": home},
            stdout=subprocess.DEVNULL,
        )
        try:
            url = f"http://127.0.0.1:{port}/"
            wait_for(url)
            return timed(url)
        finally:
            program.terminate()
            program.wait()


def wait_for(url: str) -> None:
    while True:
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            time.sleep(0.1)


def timed(url: str) -> dict[str, float]:
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        page = browser.new_page()
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
        browser.close()
    return {
        "open_watch_with_50_runs_ms": statistics.median(opened[1:]),
        "list_50_runs_ms": statistics.median(listed[1:]),
    }


CLICK_TO_LIST = f"""() => new Promise((done) => {{
    const started = performance.now();
    const look = () => ({LISTED}) ? requestAnimationFrame(() => done(performance.now() - started)) : setTimeout(look, 5);
    [...document.querySelectorAll('button[role=tab]')].find((tab) => tab.textContent.trim() === 'Watch').click();
    look();
}})"""


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    print(json.dumps({name: round(value) for name, value in seconds_to_list().items()}, indent=1))
