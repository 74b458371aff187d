"""Figures of the page: `python benchmarks/ui.py [PART …]` prints JSON; the parts are start, polls, images, runs, try, journey.

How long a start takes beside `import gradio` alone, what a poll costs with many runs on disk and what it sends; and in a
real Chromium the Images page with 200 pictures, 50 past runs, another strength on Try it, and the first run as a whole.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ui_images
import ui_journey
import ui_runs
import ui_try
from served import ROOT, served

NUM_RUNS = 200
NUM_STEPS = 5000
REPEATS = 3


def seconds_to_import_gradio() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import gradio"], check=True)
    return time.perf_counter() - started


def seconds_to_page(home: Path) -> float:
    """From starting the program to its first answer."""
    started = time.perf_counter()
    with served(home):
        return time.perf_counter() - started


def start(home: Path) -> dict[str, float]:
    """The median start, beside `import gradio` alone, in turns."""
    seconds_to_page(home)  # bytecode and lists of fonts are made
    pairs = [(seconds_to_import_gradio(), seconds_to_page(home)) for _ in range(REPEATS)]
    gradio, page = map(statistics.median, zip(*pairs, strict=True))
    return {"import_gradio_s": gradio, "start_to_page_s": page, "ratio": page / gradio}


def polls(home: Path) -> dict[str, float]:
    """Milliseconds of a poll: the first of a tab, one with a new step, one with nothing new."""
    os.environ["LORA_SD_HOME"] = str(home)
    sys.path.insert(0, str(ROOT))
    from app import curves, news, story
    from lora_sd import config, events, run
    from lora_sd.recorder import Recorder

    for number in range(NUM_RUNS):
        named = config.changed(
            config.TrainConfig(), {"output.name": f"run-{number}", "optim.steps": NUM_STEPS * 2}
        )
        recorder = Recorder(run.create(named), NUM_STEPS * 2)
        if number < NUM_RUNS - 1:
            recorder(events.Finished(step=1, path=""))
    recorder(events.Phase(status="training", text="Training"))
    for step in range(1, NUM_STEPS + 1):
        loss = 0.1 + 0.02 * math.sin(step)
        recorder(events.Step(step=step, total=NUM_STEPS * 2, loss=loss, seconds=0.5))
    name = recorder.folder.name
    news.now.seconds = 0  # nobody else has just asked

    def timed() -> float:
        started = time.perf_counter()
        for part in (news.poll(name, "tab", news.tabs["tab"].count) or {"behind": []})["behind"]:
            {"chart": news.chart, "menus": news.late}[part](name, "tab")
        return (time.perf_counter() - started) * 1000

    first = timed()
    moving = []
    for step in range(NUM_STEPS + 1, NUM_STEPS + 21):
        recorder(events.Step(step=step, total=NUM_STEPS * 2, loss=0.1, seconds=0.5))
        news.tabs["tab"].charted = 0
        moving.append(timed())
    still = [timed() for _ in range(20)]
    told = story.read(recorder.folder)
    return {
        "first_poll_ms": first,
        "poll_with_a_new_step_and_chart_ms": statistics.median(moving),
        "poll_with_nothing_new_ms": statistics.median(still),
        "chart_points": sum(len(line.points) for line in curves.loss_lines(told)),
    }


PARTS: dict[str, Callable[[Path], dict[str, float]]] = {
    "start": start,
    "polls": polls,
    "images": ui_images.figures,
    "runs": ui_runs.figures,
    "try": ui_try.figures,
    "journey": ui_journey.figures,
}


def main() -> None:
    for part in sys.argv[1:] or PARTS:
        with tempfile.TemporaryDirectory() as home:
            found = PARTS[part](Path(home))
        print(
            json.dumps({part: {name: round(value, 3) for name, value in found.items()}}, indent=1), flush=True
        )


if __name__ == "__main__":
    main()
