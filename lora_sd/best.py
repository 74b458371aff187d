"""Which checkpoint of a run to take, and why: by its held-out loss, and by how near its pictures are to the training pictures.

runs/…/best/   best.json (what was found), NAME-0.png … (the pictures); `best_search` fills it
The rule is in `suggest`; docs/best_checkpoint.md shows what it was calibrated with.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from . import events, files, lock, run

FOLDER = "best"
WITHOUT = ""  # the file of the row that is the base model
COPY = 0.6  # of the usual distance between two training pictures: nearer is nearly a copy
FAR = 1.25  # of the usual distance: a look further away is not yet that of the training pictures
MOVED = 0.15  # of the usual distance: a look that changes less in the whole run tells nothing
NEAR = 0.15  # of the way from the base model's distance to the least: what is left of it is chance
MOST_CHECKPOINTS = 12


@dataclass(frozen=True)
class Row:
    """A checkpoint, or the base model: its loss, and the distances of each of its pictures as `nearness` gives them."""

    file: str
    step: int
    held_out: float | None = None
    measured: bool = True  # False: between the losses of the steps before and after
    looks: tuple[float, ...] = ()
    places: tuple[float, ...] = ()
    pictures: tuple[str, ...] = ()  # relative to the run's folder

    @property
    def look(self) -> float | None:
        """How far its pictures are from the look of the training pictures; 1 is as those are from each other."""
        return median(self.looks) if self.looks else None

    @property
    def copies(self) -> int:
        """How many of its pictures are nearly a training picture."""
        return sum(place < COPY for place in self.places)


@dataclass(frozen=True)
class Suggestion:
    file: str
    step: int
    code: str  # of REASONS

    def reason(self) -> str:
        return REASONS[self.code].format(step=f"{self.step:,}")


REASONS = {
    "both": "Step {step}: the lowest held-out loss of the checkpoints whose pictures have the look of the training pictures without copying them.",
    "loss": "Step {step}: the lowest held-out loss; the distance of the pictures does not tell more in this run.",
    "look": "Step {step}: the first whose pictures are about as near the training pictures as they get, without copying them. No held-out loss was measured; it tells more.",
    "far": "Step {step}: the lowest held-out loss, but its pictures are still far from the look of the training pictures; if they are to have it, train longer.",
    "copies": "Step {step}: the one with the fewest copies, for every checkpoint draws pictures that are nearly training pictures; train shorter, or with more pictures.",
    "last": "Step {step}: the last one, for neither a held-out loss nor the distance of the pictures tells more.",
}


@dataclass
class Found:
    """What a search has found so far."""

    status: str = "drawing"  # drawing done cancelled failed
    text: str = ""  # why it failed, or what to know of it
    done: int = 0  # pictures
    total: int = 0
    prompts: list[str] = field(default_factory=list)
    how: str = ""  # all that the pictures follow from beside the files
    rows: list[Row] = field(default_factory=list)
    suggested: Suggestion | None = None


# -- the rule ----------------------------------------------------------------------------------------------------------


def suggest(rows: Sequence[Row]) -> Suggestion | None:
    """Of the checkpoints that copy nothing and have the look, the one with the lowest held-out loss.

    It has the look when it has gone half of the way from the base model's distance to the least of the run, and is at
    most FAR where the run gets there. Without losses it is the first that is about as near as the run gets.
    """
    made = [row for row in rows if row.file != WITHOUT]
    if not made:
        return None
    without = next((row for row in rows if row.file == WITHOUT), Row(WITHOUT, 0))
    original = [row for row in made if row.copies <= without.copies]  # a plain set has lookalikes anyway
    if not original:
        return _chosen(min(made, key=lambda row: (row.copies / len(row.places), row.step)), "copies")
    base = without.look
    least = min((row.look for row in original if row.look is not None), default=None)
    tells = base is not None and least is not None and base - least > MOVED
    far = least is not None and least > FAR
    learned = [row for row in original if row.look <= _has_the_look(base, least)] if tells else original
    measured = [row for row in learned if row.held_out is not None]
    if measured:
        lowest = min(measured, key=lambda row: (row.held_out, row.step))
        return _chosen(lowest, "far" if far else "both" if tells else "loss")
    if tells:
        near = least + NEAR * (base - least)
        return _chosen(next(row for row in learned if row.look <= near), "look")
    return _chosen(learned[-1], "last")


def _has_the_look(base: float, least: float) -> float:
    """The largest distance that still counts as the look of the training pictures."""
    half = (base + least) / 2
    return half if least > FAR else min(half, FAR)


def _chosen(row: Row, code: str) -> Suggestion:
    return Suggestion(row.file, row.step, code)


# -- the run -----------------------------------------------------------------------------------------------------------


class Checkpoint(NamedTuple):
    file: str
    step: int


def checkpoints(folder: Path) -> list[Checkpoint]:
    """Those of a run with their steps, one for each step, at most MOST_CHECKPOINTS spread over the run. ValueError for none."""
    told = run.read_events(folder)[0]
    steps = {Path(event.path).name: event.step for event in told if isinstance(event, events.Saved)}
    steps |= {Path(event.path).name: event.step for event in told if isinstance(event, events.Finished)}
    found: dict[int, str] = {}
    for path in run.checkpoints(folder):
        step = run.step_of(path) or steps.get(path.name)
        if step is not None:
            found.setdefault(step, path.name)
    if not found:
        raise ValueError(f"{folder.name} has no checkpoint yet; wait for its first, or choose another run.")
    each = [Checkpoint(found[step], step) for step in sorted(found)]
    return spread(each, losses(told), MOST_CHECKPOINTS)


def spread(each: list[Checkpoint], measured: Mapping[int, float], most: int) -> list[Checkpoint]:
    """At most so many: evenly over the run, first and last, and the one with the lowest held-out loss."""
    if len(each) <= most:
        return each
    kept = {round(i * (len(each) - 1) / (most - 2)) for i in range(most - 1)}
    kept.add(min(range(len(each)), key=lambda i: (held_out(each[i].step, measured)[0] or float("inf"), i)))
    return [each[i] for i in sorted(kept)]


def losses(told: Sequence[events.Event]) -> dict[int, float]:
    """Step -> held-out loss, where it was measured; of steps that a resume did again, the last."""
    return {
        event.step: event.held_out
        for event in told
        if isinstance(event, events.Step) and event.held_out is not None
    }


def held_out(step: int, measured: Mapping[int, float]) -> tuple[float | None, bool]:
    """The loss at a step, and whether it was measured there; else on the line between the nearest, None outside them."""
    if step in measured:
        return measured[step], True
    before = max((at for at in measured if at < step), default=None)
    after = min((at for at in measured if at > step), default=None)
    if before is None or after is None:
        return None, False
    share = (step - before) / (after - before)
    return measured[before] + share * (measured[after] - measured[before]), False


# -- on the disk -------------------------------------------------------------------------------------------------------


def read(folder: Path) -> Found | None:
    """What was found for a run; a search that ended without a word is one that was cancelled. None where there was none."""
    try:
        values = json.loads((folder / FOLDER / "best.json").read_text(encoding="utf-8"))
        found = _found(values)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    if found.status == "drawing" and not lock.held(folder / FOLDER):
        found.status = "cancelled"
    return found


@lru_cache(maxsize=256)
def _suggested(file: Path, changed: int) -> str:
    found = read(file.parents[1])
    return found.suggested.file if found and found.status == "done" and found.suggested else ""


def suggested(folder: Path) -> str:
    """The name of the file that a finished search suggests; nothing where there is none."""
    file = folder / FOLDER / "best.json"
    return _suggested(file, files.changed(file))


def _found(values: dict[str, Any]) -> Found:
    lists = ("looks", "places", "pictures")
    rows = [Row(**{**row, **{name: tuple(row[name]) for name in lists}}) for row in values.pop("rows")]
    suggested = values.pop("suggested")
    return Found(**values, rows=rows, suggested=Suggestion(**suggested) if suggested else None)


def write(folder: Path, found: Found) -> None:
    (folder / FOLDER).mkdir(exist_ok=True)
    files.write_text(folder / FOLDER / "best.json", json.dumps(asdict(found)))


def cancel(folder: Path) -> None:
    """Ask a search to end; what it has found stays."""
    (folder / FOLDER / "cancel").touch()


def cancelled(folder: Path) -> bool:
    return (folder / FOLDER / "cancel").exists()


def forget_cancel(folder: Path) -> None:
    (folder / FOLDER / "cancel").unlink(missing_ok=True)
