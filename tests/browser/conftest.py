"""The real program in a process of its own, and a Chromium that looks at it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS_TO_START = 120


class App:
    """The program as a person starts it; `restart` is what a crash or a reboot of the page looks like."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home, self.options = home, options
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.start()

    def start(self) -> None:
        self.log = open(self.home / "app.log", "ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.main", "--no-browser", "--port", str(self.port), *self.options],
            cwd=ROOT,
            env={**os.environ, "LORA_SD_HOME": str(self.home), "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"},
            stdout=self.log,
            stderr=self.log,
        )
        until = time.time() + SECONDS_TO_START
        while not self.answers():
            assert self.process.poll() is None and time.time() < until, (self.home / "app.log").read_text()
            time.sleep(0.2)

    def answers(self) -> bool:
        try:
            return urllib.request.urlopen(self.url, timeout=2).status == 200
        except OSError:
            return False

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self.log.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    def end_all(self) -> None:
        """The program, its worker and its trainers, which outlive it."""
        mine = [p for p in psutil.process_iter() if self._is_mine(p)]
        for process in mine:
            process.kill()
        psutil.wait_procs(mine)
        self.log.close()

    def _is_mine(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("LORA_SD_HOME") == str(self.home) and process.pid != os.getpid()
        except psutil.Error:
            return False


@pytest.fixture
def app(home: Path) -> Iterator[App]:
    app = App(home)
    yield app
    app.end_all()


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)
    options = ["--no-sandbox", "--disable-background-networking", "--disable-gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, app: App) -> Iterator:
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield page
    context.close()
