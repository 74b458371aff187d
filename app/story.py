"""What the pages tell of a run, gathered from its events as they come: curve, previews, speed, time left.

A cache of what is on disk, shared by every tab: reading goes on where it stopped, so a poll costs what is new.
"""

import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from lora_sd import config as cfg
from lora_sd import events, run
from lora_sd.run import Run, State

from .words import say

ENOUGH_STEPS = 5  # before a time left is worth showing
SILENT = 120.0  # seconds
RECENT = 30  # steps that the speed is taken from
SLOWER = 3  # times as long as the first steps took: then the card's memory has spilled into the computer's


class Picture(NamedTuple):
    step: int
    index: int
    prompt: str
    path: Path


@dataclass
class Story:
    folder: Path
    state: State = field(default_factory=State)
    steps: list[events.Step] = field(default_factory=list)
    pictures: dict[tuple[int, int], Picture] = field(default_factory=dict)  # (step, index) -> picture
    saved: dict[str, int] = field(default_factory=dict)  # file name -> step
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # a sentence for each picture that can't be used
    failure: events.Failed | None = None
    offset: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def refresh(self) -> "Story":
        """Read what is new on disk."""
        with self.lock:
            self.state = run.read_state(self.folder)
            news, self.offset = run.read_events(self.folder, self.offset)
            for event in news:
                self._tell(event)
        return self

    def _tell(self, event: events.Event) -> None:
        match event:
            case events.Step():
                while (
                    self.steps and self.steps[-1].step >= event.step
                ):  # a resume goes back to its last state
                    self.steps.pop()
                self.steps.append(event)
                self.failure = None
            case events.Preview():
                self.pictures[event.step, event.index] = Picture(
                    event.step, event.index, event.prompt, self.folder / event.path
                )
            case events.Saved():
                self.saved[Path(event.path).name] = event.step
            case events.Note(text=text) if text.startswith(events.WITHOUT):
                if text not in self.left_out:  # a resume tells it again
                    self.left_out.append(text)
            case events.Note():
                self.notes.append(event.text)
            case events.Failed():
                self.failure = event

    @property
    def seconds_left(self) -> float | None:
        if len(self._recent) < ENOUGH_STEPS or not self.state.active:
            return None
        return statistics.median(self._recent) * (self.state.total - self.state.step)

    @property
    def seconds_per_step(self) -> float | None:
        return statistics.median(self._recent) if self._recent else None

    @property
    def _recent(self) -> list[float]:
        """Seconds of the last steps."""
        return [step.seconds for step in self.steps[-RECENT:] if step.seconds]

    @property
    def stopping(self) -> bool:
        """Asked to stop, and about to."""
        return self.state.active and (self.folder / "commands" / "stop").exists()

    @property
    def pausing(self) -> bool:
        """Asked to pause, and about to."""
        return self.state.active and (self.folder / "commands" / "pause").exists()

    @property
    def silence(self) -> float | None:
        """Seconds since a run that is on has said anything, where that is far longer than its steps take."""
        usual = max(SILENT, 10 * (self.seconds_per_step or 0))
        silent = time.time() - self.state.t
        return silent if self.state.active and silent > usual else None

    def spilled(self, card: int) -> bool:
        """Whether a card of `card` bytes is full and steps have become far slower: it uses the computer's memory."""
        first = [step.seconds for step in self.steps[1 : 1 + RECENT] if step.seconds]
        full = card > 0 and (self.memory or 0) >= 0.97 * card
        known = len(first) >= ENOUGH_STEPS and len(self.steps) > 2 * RECENT
        return full and known and self.seconds_per_step > SLOWER * statistics.median(first)

    @property
    def memory(self) -> int | None:
        return next((step.memory for step in reversed(self.steps) if step.memory), None)

    def settings(self) -> cfg.TrainConfig:
        return cfg.load(self.folder / "config.toml")


def place(state: State) -> str:
    """`"step 5 of 1,000"`; the total of a length in epochs is known once its pictures are counted."""
    if state.total:
        return say("step {step} of {total}", step=f"{state.step:,}", total=f"{state.total:,}")
    return say("step {step}", step=f"{state.step:,}")


@lru_cache(maxsize=16)
def _story(folder: Path) -> Story:
    return Story(folder)


def read(folder: Path) -> Story:
    """The story of a run, up to date."""
    return _story(folder).refresh()


_known: dict[str, tuple[int, Run]] = {}  # folder -> (when its state was written, the run as it was then)


def runs() -> list[Run]:
    """Every run, newest first; only those whose state has changed are read again.

    This is asked many times in a poll, so folders are text here: making a Path of each takes longer than asking the disk.
    """
    folders = _subfolders(run.home() / "runs")
    if any(folder not in _known and os.path.exists(f"{folder}/config.toml") for folder in folders):
        _known.update({str(found.folder): (stamp(found.folder), found) for found in run.list_runs()})
    there = []
    for folder in sorted(folders, key=os.path.basename, reverse=True):
        if folder not in _known:
            continue
        (before, found), now = _known[folder], stamp(folder)
        if found.state.active or now != before:
            found = replace(found, state=run.read_state(found.folder))
            _known[folder] = (now, found)
        there.append(found)
    return there


_listed: dict[str, tuple[int, list[Path]]] = {}  # folder -> (when a file came or went, what there was)
SETTLED_NS = 2 * 10**9  # a folder that was changed this recently may change again under the same time


def checkpoints(folder: Path) -> list[Path]:
    """The run's LoRA files as `run.checkpoints` gives them."""
    return _files(f"{folder}/checkpoints", lambda: run.checkpoints(folder))


def newest_preview(folder: Path) -> Path | None:
    """The picture of the first prompt at the last step that has one."""
    found = _files(f"{folder}/previews", lambda: sorted((folder / "previews").glob("*-0.png")))
    return found[-1] if found else None


def _files(folder: str, look: Callable[[], list[Path]]) -> list[Path]:
    """What `look` finds in the folder, looked up again only when something there came or went."""
    stamp = _changed(folder)
    known, files = _listed.get(folder, (-1, []))
    if stamp != known:
        files = look()
        settled = time.time_ns() - stamp > SETTLED_NS
        _listed[folder] = (stamp if settled else -1, files)
    return files


def forget(folder: Path) -> None:
    """A run that was deleted."""
    _known.pop(str(folder), None)
    _story.cache_clear()


def _subfolders(root: Path) -> list[str]:
    return [entry.path for entry in os.scandir(root) if entry.is_dir()] if root.is_dir() else []


def stamp(folder: Path | str) -> int:
    """When the run's state was written, in nanoseconds."""
    return _changed(f"{folder}/state.json")


def _changed(path: str) -> int:
    """When, in nanoseconds; 0 where there is nothing."""
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


def active() -> Run | None:
    """The run that is training now."""
    return next((found for found in runs() if found.state.active), None)


def smooth(values: Sequence[float], memory: float = 0.9) -> list[float]:
    """Exponential mean, forward then backward, so that the curve does not lag."""
    return _one_way(_one_way(values, memory)[::-1], memory)[::-1]


def _one_way(values: Sequence[float], memory: float) -> list[float]:
    smoothed: list[float] = []
    for value in values:
        smoothed.append(value if not smoothed else memory * smoothed[-1] + (1 - memory) * value)
    return smoothed


def thin(count: int, most: int) -> list[int]:
    """At most `most` indices of `count`, evenly spread, first and last among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def duration(seconds: float) -> str:
    """`"45 s"`, `"18 min"`, `"2 h 05 min"`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return say("{seconds} s", seconds=f"{seconds:.0f}")
    if minutes < 60:
        return say("{minutes} min", minutes=minutes)
    return say("{hours} h {minutes} min", hours=minutes // 60, minutes=f"{minutes % 60:02}")
