"""Figures of the page: `python benchmarks/ui.py` prints JSON.

How long a start takes beside `import gradio` alone, what a poll costs with many runs on disk, and what it sends.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
NUM_RUNS = 200
NUM_STEPS = 5000
REPEATS = 3


def seconds_to_import_gradio() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import gradio"], check=True)
    return time.perf_counter() - started


def seconds_to_page(home: str) -> float:
    """From starting the program to its first answer."""
    sys.path.insert(0, str(ROOT))
    from app.main import free_port

    port = free_port("127.0.0.1", 0)
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "app.main", "--no-browser", "--port", str(port)],
        cwd=ROOT,
        env={**os.environ, "LORA_SD_HOME": home},
        stdout=subprocess.DEVNULL,
    )
    try:
        while not answers(port):
            time.sleep(0.02)
        return time.perf_counter() - started
    finally:
        process.terminate()
        process.wait()


def answers(port: int) -> bool:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).status == 200
    except OSError:
        return False


def polls(home: str) -> dict[str, float]:
    """Milliseconds of a poll: the first of a tab, one with a new step, one with nothing new."""
    os.environ["LORA_SD_HOME"] = home
    from app import news, story, watch_view
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
    rows = len(watch_view.points(story.read(recorder.folder)))
    return {
        "first_poll_ms": first,
        "poll_with_a_new_step_and_chart_ms": statistics.median(moving),
        "poll_with_nothing_new_ms": statistics.median(still),
        "chart_points": rows,
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        seconds_to_page(home)
        pairs = [(seconds_to_import_gradio(), seconds_to_page(home)) for _ in range(REPEATS)]
        gradio, page = map(statistics.median, zip(*pairs, strict=True))
        figures = {"import_gradio_s": gradio, "start_to_page_s": page, "ratio": page / gradio, **polls(home)}
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
