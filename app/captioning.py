"""Captions by a model, as the page has them written: one order at a time, in a process of its own; it goes on whatever tab is open.

What the model says comes in batch by batch and is kept here. At the end, also of an order that was cancelled or failed, all
of it is written at once, over what the captions are by then.
"""

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_sd import errors, run
from lora_sd.captioning import folder
from lora_sd.captioning.folder import Write
from lora_sd.captioning.wording import Existing
from lora_sd.models import captioners

from . import drawing
from .project import Project
from .words import say


@dataclass(frozen=True)
class Order:
    project: Project
    model: str
    existing: Existing = "skip"
    trigger: str = ""
    device: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)  # of `folder.load`


@dataclass
class Captioning:
    """One order and what came of it."""

    order: Order | None = None
    process: subprocess.Popen[str] | None = None
    running: bool = False
    loaded: bool = False
    cancelled: bool = False
    done: int = 0
    total: int = 0
    new: dict[Path, str] = field(default_factory=dict)  # as the model wrote them, the latest last
    skipped: dict[Path, str] = field(default_factory=dict)
    written: dict[Path, str] = field(default_factory=dict)
    error: str = ""
    turn: threading.Lock = field(default_factory=threading.Lock)

    def start(self, order: Order, write: Write = folder.write_files) -> None:
        """Begin; `write` gets all captions at the end. Raises ValueError for what can't be done."""
        with self.turn:
            if self.running:
                raise ValueError(say("Captions are being written already; wait for them or cancel."))
            captioners.describe(order.model)
            todo = folder.to_do(order.project.images, order.existing)
            if not todo:
                raise ValueError(
                    say("Every picture has a caption; choose to replace them or to add to them.")
                )
            if order.device != "cpu":
                drawing.free()
            self.order, self.error, self.done, self.total = order, "", 0, len(todo)
            self.new, self.skipped, self.written = {}, {}, {}
            self.loaded = self.cancelled = False
            self.process = _process()
            self.running = True
        job = {"pictures": [str(path) for path in todo], "model": order.model, "device": order.device}
        threading.Thread(target=self._work, args=(job | order.options, write), daemon=True).start()

    def cancel(self) -> None:
        """End it; what the model said so far is written."""
        with self.turn:
            if self.running and self.process:
                self.cancelled = True
                self.process.terminate()

    def _work(self, job: dict[str, Any], write: Write) -> None:
        ended = False
        try:
            for message in self._messages(job):
                ended |= message["kind"] in ("done", "failed")
                self._hear(message)
            if not (ended or self.cancelled):
                self.error = (
                    "The program that writes captions ended unexpectedly; captions.log tells more. Try again."
                )
            self._write(write)
        except (OSError, ValueError) as error:
            self.error = errors.sentence(error)
        finally:
            self.running = False

    def _messages(self, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        process = self.process
        assert process and process.stdin and process.stdout
        with contextlib.suppress(BrokenPipeError):  # it has just ended: that nothing comes tells
            with process.stdin:
                process.stdin.write(json.dumps(job) + "\n")
        with process.stdout:
            for line in process.stdout:
                yield json.loads(line)
        process.wait()

    def _hear(self, message: dict[str, Any]) -> None:
        match message["kind"]:
            case "loaded":
                self.loaded = True
            case "made":
                self.new = self.new | _by_path(message["captions"])
                self.skipped = self.skipped | _by_path(message["skipped"])
                self.done = message["done"]
            case "failed":
                self.error = message["text"]

    def _write(self, write: Write) -> None:
        order = self.order
        assert order
        here = {path: text for path, text in self.new.items() if path.exists()}
        changes = folder.changed(order.project.images, here, existing=order.existing, trigger=order.trigger)
        if changes:
            write(changes)
        self.written = changes


def _process() -> subprocess.Popen[str]:
    run.home().mkdir(parents=True, exist_ok=True)
    with open(run.home() / "captions.log", "w", encoding="utf-8") as log:
        return run.beside(["lora_sd.captioning.process"], log, HF_HUB_OFFLINE="1")


def _by_path(texts: dict[str, str]) -> dict[Path, str]:
    return {Path(path): text for path, text in texts.items()}


current = Captioning()
