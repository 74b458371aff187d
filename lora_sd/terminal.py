"""A run's events as lines and one bar on standard error."""

import contextlib
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import remedies
from .events import Event, Failed, Finished, Note, Phase, Saved, Step


@dataclass
class Progress:
    folder: Path
    stopped: bool = False
    failed: bool = False
    phase: str = ""
    loss: float | None = None
    times: list[float] = field(default_factory=list)
    open_line: bool = False
    printed: float = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case Phase(text=text, done=done, total=total):
                self.count(text, done, total)
            case Step(step=step, total=total) if event.loss is not None:
                self.step(event)
            case Saved(path=path, step=step, best=float(loss)):
                self.line(
                    f"Saved {self.folder / path} (the best so far: held-out loss {loss:.4f} at step {step})"
                )
            case Saved(path=path, modules=modules):
                trained = ", ".join(f"{part} {count}" for part, count in modules.items())
                self.line(f"Saved {self.folder / path} (layers: {trained})")
            case Note(text=text):
                self.line(text)
            case Failed(text=text):
                self.failed = True
                self.line(text)
                if command := remedies.command(self.folder, event):
                    self.line(f"To go on: {command}")
            case Finished(stopped=stopped, step=step, path=path):
                self.stopped = stopped
                self.line(
                    f"Stopped at step {step}; resume with: python -m lora_sd resume {self.folder}"
                    if stopped
                    else f"Finished: {self.folder / path}"
                )
        if isinstance(event, Step) and event.held_out is not None:
            self.line(f"Held-out loss at step {event.step}: {event.held_out:.4f}")

    def step(self, event: Step) -> None:
        self.loss = event.loss if self.loss is None else 0.9 * self.loss + 0.1 * event.loss
        self.times = [*self.times[-29:], event.seconds]
        each = sum(self.times) / len(self.times)
        filled = 24 * event.step // event.total
        rate = f"{1 / each:.1f} steps/s" if each < 1 else f"{each:.1f} s/step"
        left = _duration((event.total - event.step) * each)
        bar = f"{event.step:>5}/{event.total} {'━' * filled}{'·' * (24 - filled)} loss {self.loss:.4f}  {rate}  {left} left"
        self.bar(bar, last=event.step == event.total)

    def count(self, text: str, done: int, total: int) -> None:
        if total:
            self.bar(f"{text} {done} of {total}", last=done == total)
        elif text not in (self.phase, "Training"):  # the bar says that
            self.line(text)
        self.phase = text

    def bar(self, text: str, *, last: bool) -> None:
        """On a terminal the line is written over; in a log, one line every five seconds."""
        if sys.stderr.isatty():
            with contextlib.suppress(OSError):
                print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            self.open_line = True
        elif last or time.monotonic() - self.printed > 5:
            self.printed = time.monotonic()
            self.line(text)
        if last:
            self.end()

    def line(self, text: str) -> None:
        self.end()
        with contextlib.suppress(OSError):  # a log on a full disk, a terminal that was closed
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.open_line:
            with contextlib.suppress(OSError):
                print(file=sys.stderr)
        self.open_line = False


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
