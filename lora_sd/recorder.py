"""Writes a run's events and state while it is on: the trainer's `on_event`.

What can't be written, because the disk is full or away, waits in memory and is tried again with the next event: no
training ends for a line of its diary.
"""

import contextlib
import os
import time
from pathlib import Path

import psutil

from . import events, run
from .events import Event

LOGGED = (events.Step, events.Preview, events.Saved, events.Note, events.Failed, events.Finished)
MOST_WAITING = 100_000  # lines


class Recorder:
    def __init__(self, folder: Path, total: int):
        me = psutil.Process()
        self.folder = folder
        before = run.read_state(folder)
        self.state = run.State(
            step=before.step,
            total=total or before.total,
            extend=before.extend,
            pid=me.pid,
            created=me.create_time(),
        )
        self.saved_at = float("-inf")
        self.waiting: list[bytes] = []
        mend(folder / "events.jsonl")
        self.save()

    def __call__(self, event: Event) -> None:
        if isinstance(event, LOGGED):
            self.waiting.append(events.to_line(event).encode() + b"\n")
            self.flush()
        match event:
            case events.Phase():
                counted = f" {event.done} of {event.total}" if event.total else ""
                self.state.status, self.state.phase = event.status, event.text + counted
            case events.Step():
                self.state.step, self.state.total = event.step, event.total
            case events.Failed():
                self.state.status, self.state.error = "failed", event.text
            case events.Finished():
                self.state.status, self.state.step = "stopped" if event.stopped else "finished", event.step
        urgent = not isinstance(event, events.Step | events.Phase)
        if urgent or time.monotonic() - self.saved_at > 0.2:
            self.save()

    def flush(self) -> None:
        """Write the lines that wait, all or none of them."""
        del self.waiting[:-MOST_WAITING]
        path = self.folder / "events.jsonl"
        with contextlib.suppress(OSError), open(path, "ab", buffering=0) as file:
            end = file.tell()
            data = b"".join(self.waiting)
            try:
                whole = file.write(data) == len(data)
            except OSError:
                whole = False
            if whole:
                self.waiting.clear()
            else:
                file.truncate(end)

    def save(self) -> None:
        self.saved_at = time.monotonic()
        try:
            run.write_state(self.folder, self.state)
        except OSError:  # no room for another file: this one has its block already
            with contextlib.suppress(OSError), open(self.folder / "state.json", "r+b") as file:
                file.write(run.state_text(self.state).encode())
                file.truncate()

    def close(self) -> None:
        self.flush()
        self.save()


def mend(path: Path) -> None:
    """End a last line that a crash tore, so that the next event begins on a line of its own."""
    with contextlib.suppress(OSError), open(path, "r+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
