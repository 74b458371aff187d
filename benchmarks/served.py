"""The real page in a process of its own, its browsers, and what both cost; only this computer is ever spoken to."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import psutil

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HERE = "127.0.0.1"
SECONDS_TO_START = 120
MIB = 2**20


class Meter:
    """What a process takes between two readings: its share of one core, and its memory."""

    def __init__(self, pid: int):
        self.process = psutil.Process(pid)
        self.read()

    def read(self) -> tuple[float, float]:
        """(share of one core since the last reading, MiB resident now)."""
        with self.process.oneshot():
            worked = sum(self.process.cpu_times()[:2])
            memory = self.process.memory_info().rss / MIB
        now = time.perf_counter()
        share = (worked - getattr(self, "worked", worked)) / (now - getattr(self, "then", 0))
        self.worked, self.then = worked, now
        return share, memory


class Served(NamedTuple):
    url: str
    process: subprocess.Popen


@contextlib.contextmanager
def served(home: Path) -> Iterator[Served]:
    """The program while it answers, with `home` of its own; its children end with it."""
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        port = probe.getsockname()[1]
    with open(home / "app.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.main", "--no-browser", "--port", str(port)],
            cwd=ROOT,
            env={**os.environ, "LORA_SD_HOME": str(home), "HF_HUB_OFFLINE": "1"},
            stdout=log,
            stderr=log,
        )
    url = f"http://{HERE}:{port}/"
    try:
        wait_for(url, process, home / "app.log")
        yield Served(url, process)
    finally:
        end(process)


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    until = time.time() + SECONDS_TO_START
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        if process.poll() is not None or time.time() > until:
            raise RuntimeError(f"The page did not start: {log.read_text()[-2000:]}")
        time.sleep(0.05)


def end(process: subprocess.Popen) -> None:
    """End a process of ours and its children."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.terminate()
        for member in psutil.wait_procs(family, timeout=20)[1]:
            member.kill()
    process.wait()


@contextlib.contextmanager
def chromium_page(url: str) -> Iterator[Any]:
    """A tab of a real browser on `url`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-background-networking", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        try:
            page = browser.new_page()
            page.set_default_timeout(120_000)
            page.goto(url)
            yield page
        finally:
            browser.close()


class Wiring(NamedTuple):
    """The numbers by which a browser calls what the page can do."""

    functions: dict[str, int]  # load: the opening; tick: a poll; menus, chart: what a poll asks for
    clock: int  # the timer that sets off a poll
    pace: int  # where in the answer to `menus` its interval is


def wiring(url: str) -> Wiring:
    with urllib.request.urlopen(f"{url}config") as answer:
        found = json.load(answer)["dependencies"]
    events = {
        event: (one, block)
        for one in reversed(found)
        for block, event in one["targets"]
        if event in ("load", "tick", "menus", "chart")
    }
    functions = {event: one["id"] for event, (one, _) in events.items()}
    clock = events["tick"][1]
    return Wiring(functions, clock, events["menus"][0]["outputs"].index(clock))


class Answer(NamedTuple):
    began: float  # seconds
    seconds: float
    size: int  # bytes of the answer's content
    good: bool


class Tab:
    """A browser's tab, as far as the server sees it: opens the page, keeps its line open, and polls."""

    def __init__(self, client: httpx.AsyncClient, wires: Wiring, run_id: str):
        self.client, self.wires, self.run_id = client, wires, run_id
        self.session = uuid4().hex[:11]
        self.pause = 1.0  # seconds, until the page says another
        self.count = 0  # of the news it has
        self.answers: list[Answer] = []

    async def open(self) -> float:
        """Seconds until the page is filled in."""
        began = time.perf_counter()
        await self.client.get("/")
        opening = self.wires.functions["load"]
        asked = {"data": [], "event_data": None, "fn_index": opening, "session_hash": self.session}
        await self.client.post("/gradio_api/queue/join", json=asked)
        async with self.client.stream(
            "GET", "/gradio_api/queue/data", params={"session_hash": self.session}
        ) as news:
            async for line in news.aiter_lines():
                if '"process_completed"' in line:
                    break
        return time.perf_counter() - began

    async def poll(self) -> Answer:
        """A poll, and what its answer has the browser ask for; the time is that of the poll, the bytes are of all."""
        began = time.perf_counter()
        told = await self.call("tick", self.count)
        seconds, size = time.perf_counter() - began, len(told.content)
        news = told.json()["data"][0] if told.status_code == 200 else None
        self.count = news["count"] if news else self.count
        for part in (news or {}).get("behind", []):
            more = await self.call(part)
            size += len(more.content)
            if part == "menus":
                self.pause = more.json()["data"][self.wires.pace].get("value", self.pause)
        return Answer(began, seconds, size, told.status_code == 200)

    async def call(self, event: str, *more: int) -> httpx.Response:
        asked = {
            "data": [self.run_id, *more],
            "fn_index": self.wires.functions[event],
            "session_hash": self.session,
        }
        return await self.client.post("/gradio_api/run/predict", json=asked)

    async def stay(self, until: float, delay: float) -> None:
        """Poll until that time; a tick is left out while an answer is still awaited."""
        line = asyncio.create_task(self.hold_the_line())
        await asyncio.sleep(delay)
        try:
            while (began := time.perf_counter()) < until:
                self.answers.append(await self.poll())
                await asyncio.sleep(max(0, self.pause - (time.perf_counter() - began)))
        finally:
            line.cancel()
            await asyncio.gather(line, return_exceptions=True)

    async def hold_the_line(self) -> None:
        async with self.client.stream("GET", f"/gradio_api/heartbeat/{self.session}", timeout=None) as line:
            async for _ in line.aiter_raw():
                pass
