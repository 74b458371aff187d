"""Fifty browsers that watch one training: how fast a poll is answered, and what the training pays for it."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import httpx
from served import ROOT, Answer, Meter, Served, Tab, chromium_page, end, served, wiring
from train_speed import aligned

SETTLED = 8  # steps that are not counted: memory pools fill, the first preview is drawn
LONGEST_START = 240  # seconds


class Window(NamedTuple):
    """What was seen in some seconds."""

    title: str
    seconds: float
    answers: list[Answer]
    step: float  # median seconds of a training step; 0 where nothing trains
    app: tuple[float, float]  # share of a core, MiB
    trainer: tuple[float, float]


def measure(tabs: int, seconds: float, rounds: int) -> str:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        trainer = train(home)
        try:
            folder = settled(home, trainer)
            with served(home) as page:
                return report(tabs, *asyncio.run(watch(page, folder, trainer, tabs, seconds, rounds)))
        finally:
            end(trainer)


def train(home: Path) -> subprocess.Popen:
    """The starter's example run, as long as it takes."""
    flags = {"optim.steps": 20_000, "preview.every": 0, "save.every": 0, "validate.every": 0}
    command = [sys.executable, "-m", "lora_sd", "train", "presets/starter_quick.toml"]
    command += [part for flag, value in flags.items() for part in (f"--{flag}", str(value))]
    with open(home / "train.log", "wb") as log:
        environment = {**os.environ, "LORA_SD_HOME": str(home), "HF_HUB_OFFLINE": "1"}
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def settled(home: Path, trainer: subprocess.Popen) -> Path:
    """The run's folder, once its steps come evenly."""
    until = time.time() + LONGEST_START
    while True:
        folders = list((home / "runs").glob("*/events.jsonl"))
        if folders and len(steps(folders[0].parent, 0)) > SETTLED:
            return folders[0].parent
        if trainer.poll() is not None or time.time() > until:
            raise RuntimeError(f"No training: {(home / 'train.log').read_text()[-2000:]}")
        time.sleep(0.5)


def steps(folder: Path, since: float) -> list[float]:
    """Seconds of each step that was done after that time of day."""
    lines = (folder / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines if line.endswith("}")]
    return [event["seconds"] for event in events if event.get("seconds") and event["t"] > since]


async def watch(
    page: Served, folder: Path, trainer: subprocess.Popen, tabs: int, seconds: float, rounds: int
) -> tuple[list[Window], list[float], dict[str, float]]:
    """Windows without and with browsers in turns, one after the training; seconds of each opening; a real browser's."""
    app, training = Meter(page.process.pid), Meter(trainer.pid)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=page.url, timeout=60, limits=limits) as client:
        wires = wiring(page.url)
        seen = [Tab(client, wires, folder.name) for _ in range(tabs)]
        openings = list(await asyncio.gather(*(tab.open() for tab in seen)))

        async def window(title: str, tabs: list[Tab]) -> Window:
            app.read(), training.read() if trainer.poll() is None else None
            began, clock = time.time(), time.perf_counter()
            for tab in tabs:
                tab.answers = []
            stays = [tab.stay(clock + seconds, number / len(tabs)) for number, tab in enumerate(tabs)]
            await asyncio.gather(asyncio.sleep(seconds), *stays)
            took = time.perf_counter() - clock
            answers = [answer for tab in tabs for answer in tab.answers]
            durations = steps(folder, began)
            trains = trainer.poll() is None
            return Window(
                title,
                took,
                answers,
                statistics.median(durations) if durations and trains else 0,
                app.read(),
                training.read() if trains else (0, 0),
            )

        windows = []
        for _ in range(rounds):
            windows += [await window("nobody", []), await window(f"{tabs} browsers", seen)]
        real = await in_chromium(page, folder, seen, seconds)
        (folder / "commands" / "stop").touch()
        await asyncio.to_thread(trainer.wait, 60)
        await asyncio.gather(*(tab.poll() for tab in seen))  # that it has ended
        windows.append(await window("after it ended", seen))
    return windows, openings, real


async def in_chromium(page: Served, folder: Path, tabs: list[Tab], seconds: float) -> dict[str, float]:
    """What a person at a real browser waits for while the others poll."""
    until = time.perf_counter() + 3 * seconds
    others = asyncio.gather(*(tab.stay(until, number / len(tabs)) for number, tab in enumerate(tabs)))
    found = await asyncio.to_thread(visit, f"{page.url}?tab=watch&run={folder.name}")
    others.cancel()
    await asyncio.gather(others, return_exceptions=True)
    return found


def visit(url: str) -> dict[str, float]:
    """Seconds until the run is shown, and between a click and what it changes; times of its own polls."""
    began = time.perf_counter()
    with chromium_page(url) as page:
        page.locator("#header").get_by_text("step").first.wait_for()
        shown = time.perf_counter() - began
        polls: list[float] = []
        page.on(
            "requestfinished",
            lambda request: (
                polls.append(request.timing["responseEnd"] / 1000) if "/run/predict" in request.url else None
            ),
        )
        clicks = []
        for tab, inside in (("Make", "#trigger"), ("Watch", "#header"), ("Make", "#trigger")):
            clicked = time.perf_counter()
            page.get_by_role("tab", name=tab).click()
            page.locator(inside).first.wait_for()
            clicks.append(time.perf_counter() - clicked)
        page.wait_for_timeout(6000)
    return {"shown": shown, "click": max(clicks), "poll": statistics.median(polls)}


def report(tabs: int, windows: list[Window], openings: list[float], real: dict[str, float]) -> str:
    header = "poll ms p50|p95|max|polls/s|bytes p50|max|app CPU|app MiB|step ms|trainer CPU"
    rows = [["", *header.split("|")]]
    for one in windows:
        times = sorted(answer.seconds * 1000 for answer in one.answers)
        sizes = sorted(answer.size for answer in one.answers)
        polled = (
            [
                *(f"{times[int(share * (len(times) - 1))]:.0f}" for share in (0.5, 0.95, 1)),
                f"{len(times) / one.seconds:.1f}",
                *(f"{sizes[int(share * (len(sizes) - 1))]:,}" for share in (0.5, 1)),
            ]
            if times
            else ["–"] * 6
        )
        rows.append(
            [
                one.title,
                *polled,
                f"{one.app[0]:.0%}",
                f"{one.app[1]:.0f}",
                f"{one.step * 1000:.0f}" if one.step else "–",
                f"{one.trainer[0]:.0%}" if one.step else "–",
            ]
        )
    failed = sum(not answer.good for one in windows for answer in one.answers)
    return "\n".join(
        [
            aligned(rows),
            f"{failed} polls failed; a step takes {slower(windows):.2f} of its time when {tabs} browsers watch",
            f"all opened the page at once: {statistics.median(openings):.2f} s, the last {max(openings):.2f} s",
            f"Chromium beside them: {real['shown']:.1f} s from its start to the run; a click "
            f"{real['click'] * 1000:.0f} ms; its poll {real['poll'] * 1000:.0f} ms",
        ]
    )


def slower(windows: list[Window]) -> float:
    """Step time with browsers : without, the median over neighbouring windows."""
    pairs = zip(windows[:-1:2], windows[1:-1:2], strict=True)
    return statistics.median(watched.step / alone.step for alone, watched in pairs)
