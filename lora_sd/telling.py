"""What a command of the workshop tells: lines and a bar for a person, or JSON lines for a program (`--events`).

out   {"kind": "progress", "text": "Resized", "done": 3, "total": 12}      {"kind": "done", "lines": […], …facts}
in    the line "cancel" stops it, and leaves nothing half made

What went wrong is one sentence on standard error in both.
"""

import argparse
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .terminal import Progress

DONE = 0
CANCEL = "cancel"


class Telling:
    def __init__(self, *, events: bool):
        self.events = events
        self.progress = Progress(Path("."))
        self.cancelled = threading.Event()
        if events:
            threading.Thread(target=self._listen, daemon=True).start()

    def bar(self, words: str) -> Callable[[int, int], None]:
        """An `on_progress` that counts layers; KeyboardInterrupt where it was cancelled."""

        def count(done: int, total: int) -> None:
            if self.cancelled.is_set():
                raise KeyboardInterrupt
            if self.events:
                print(
                    json.dumps({"kind": "progress", "text": words, "done": done, "total": total}), flush=True
                )
            else:
                self.progress.bar(f"{words}: {done} of {total} layers", last=done == total)

        return count

    def done(self, lines: list[str], **facts: Any) -> int:
        """The outcome, as lines, and for a program as plain values, too."""
        print(
            json.dumps({"kind": "done", "lines": lines, **facts}) if self.events else "\n".join(lines),
            flush=True,
        )
        return DONE

    def _listen(self) -> None:
        # not through sys.stdin, whose lock a thread may hold while all ends
        while word := os.read(0, 100):
            if CANCEL.encode() in word:
                self.cancelled.set()


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--events", action="store_true", help="progress and outcome as JSON lines, for programs"
    )
