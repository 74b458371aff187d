"""A thousand pictures dropped on the page in a real browser: how long until they are there, and what it takes meanwhile.

`again` drops the same ones with one more: none may be there twice.
"""

import asyncio
import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image
from served import MIB, Served, Tab, chromium_page, served, wiring
from train_speed import aligned

QUALITY = 90


def write(folder: Path, count: int, side: int) -> list[Path]:
    """Pictures with enough detail that a file is as large as a photograph's of that size."""
    folder.mkdir()

    def one(number: int) -> Path:
        fine = np.random.default_rng(number).integers(0, 255, (side // 3, side // 3, 3), dtype=np.uint8)
        path = folder / f"picture {number}.jpg"
        Image.fromarray(fine).resize((side, side), Image.Resampling.BICUBIC).save(path, quality=QUALITY)
        return path

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, range(count)))


def measure(count: int, sides: list[int]) -> str:
    rows = [
        [
            "pixels",
            "MiB",
            "seconds",
            "again",
            "reload",
            "app MiB",
            "more at most",
            "page KiB",
            "poll ms p50",
            "max",
        ]
    ]
    for side in sides:
        with tempfile.TemporaryDirectory() as name:
            home = Path(name)
            files = write(home / "given", count + 1, side)
            rows.append(
                [str(side), f"{sum(path.stat().st_size for path in files) / MIB:.0f}", *drop(home, files)]
            )
    return f"{count:,} pictures\n{aligned(rows)}"


def drop(home: Path, files: list[Path]) -> list[str]:
    """The row of one set of pictures."""
    with served(home) as page, chromium_page(page.url) as browser:
        before = psutil.Process(page.process.pid).memory_info().rss
        with polled(page) as polls, peak(page.process.pid) as most:
            first, again = upload(browser, files[:-1]), upload(browser, files)
        copies = len(list((home / "projects").rglob("*.jpg")))
        if copies != len(files):
            raise RuntimeError(f"{copies} copies of {len(files)} pictures")
        began = time.perf_counter()
        browser.reload()
        browser.locator("#pictures .count").get_by_text(f"{len(files)} pictures").wait_for()
        seconds = [first, again, time.perf_counter() - began]
        weight = browser.evaluate("document.querySelector('#pictures').innerHTML.length")
        weight += browser.evaluate(
            "performance.getEntriesByType('resource').filter(r => r.initiatorType == 'img').reduce((n, r) => n + r.transferSize, 0)"
        )
    figures = [before / MIB, (most[0] - before) / MIB, weight / 1024]
    answered = [1000 * statistics.median(polls), 1000 * max(polls)]
    return [f"{figure:.1f}" for figure in seconds] + [f"{figure:.0f}" for figure in figures + answered]


def upload(browser: Any, files: list[Path]) -> float:
    """Seconds from the drop until the page shows how many there are."""
    began = time.perf_counter()
    browser.locator("#files input[type=file]").set_input_files(files)
    browser.locator("#pictures .count").get_by_text(f"{len(files)} pictures").wait_for()
    return time.perf_counter() - began


@contextlib.contextmanager
def peak(pid: int) -> Iterator[list[int]]:
    """A list whose only value is the most memory that the process has had."""
    process, most, over = psutil.Process(pid), [0], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            most[0] = max(most[0], process.memory_info().rss)

    watching = threading.Thread(target=look)
    watching.start()
    try:
        yield most
    finally:
        over.set()
        watching.join()


@contextlib.contextmanager
def polled(page: Served) -> Iterator[list[float]]:
    """Another tab that polls meanwhile: seconds of each of its polls."""
    over, seconds = threading.Event(), []

    async def poll() -> None:
        async with httpx.AsyncClient(base_url=page.url, timeout=120) as client:
            tab = Tab(client, wiring(page.url), "")
            while not over.is_set():
                seconds.append((await tab.poll()).seconds)
                await asyncio.sleep(0.2)

    thread = threading.Thread(target=lambda: asyncio.run(poll()))
    thread.start()
    try:
        yield seconds
    finally:
        over.set()
        thread.join()
