"""How long a run will take: what like runs took on this machine, kept in HOME/pace.json; for the starter a shipped figure.

pace.json: {run id: {"kind": {device, base, side, batch, targets, rung}, "seconds": of a step, "others": all else}}
"""

import itertools
import json
import statistics
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lora_sd import events, run
from lora_sd.files import write_text
from lora_sd.run import Run

MOST_RUNS = 20  # that are looked at, the newest
MOST_KEPT = 100
ENOUGH_STEPS = 5
FIRST_STEPS = 2  # of a process, which are slower
PAUSE = 1800.0  # seconds between two events, above which nobody trained


class Kind(NamedTuple):
    """What the time of a step depends on."""

    device: str  # its name
    base: str  # "starter", or the family
    side: int  # pixels
    batch: int  # pictures of a step
    targets: str  # as lora.targets has it
    rung: str  # of the memory ladder

    @property
    def work(self) -> int:
        """Pixels of a step."""
        return self.batch * self.side**2


class Pace(NamedTuple):
    """What a run took."""

    seconds: float  # a step
    others: float  # seconds of all else: preparing, previews, held-out loss, files


class Estimate(NamedTuple):
    """How long a run will take, in seconds, and what says so."""

    pace: Pace
    total: float
    known_from: Literal[
        "same", "like", "shipped"
    ]  # a run of that kind; one of other sizes; measured elsewhere


# 100 steps of presets/starter_quick.toml on two processor cores, with previews and held-out loss: less than 3 minutes.
SHIPPED = {("starter", 128, 4, "transformer"): Pace(seconds=1.4, others=35.0)}

_lock = threading.Lock()


def estimate(kind: Kind, steps: int, on_processor: bool) -> Estimate | None:
    """How long `steps` will take; None where nothing is known of such a run."""
    found = [
        (of_run, pace)
        for of_run, pace in known()
        if of_run._replace(side=0, batch=0) == kind._replace(side=0, batch=0)
    ]
    same = [pace for of_run, pace in found if of_run == kind]
    if same:
        return _estimate(same[-1], steps, "same")
    if found:
        of_run, pace = min(
            found[::-1], key=lambda pair: max(pair[0].work, kind.work) / min(pair[0].work, kind.work)
        )
        return _estimate(pace._replace(seconds=pace.seconds * kind.work / of_run.work), steps, "like")
    shipped = SHIPPED.get((kind.base, kind.side, kind.batch, kind.targets)) if on_processor else None
    return _estimate(shipped, steps, "shipped") if shipped else None


def _estimate(pace: Pace, steps: int, known_from: Literal["same", "like", "shipped"]) -> Estimate:
    return Estimate(pace, pace.seconds * steps + pace.others, known_from)


def learn(runs: list[Run], kind_of: Callable[[Path], Kind | None]) -> None:
    """Keep what the newest finished runs took; each is read once."""
    with _lock:
        table = _read()
        ended = [each for each in runs if each.state.status == "finished"]
        new = [each.folder for each in ended[:MOST_RUNS] if each.folder.name not in table]
        if not new:
            return
        for folder in reversed(new):
            kind, pace = kind_of(folder), taken(run.read_events(folder)[0])
            table[folder.name] = {"kind": kind._asdict(), **pace._asdict()} if kind and pace else {}
        kept = dict(list(table.items())[-MOST_KEPT:])
        write_text(_file(), json.dumps(kept, ensure_ascii=False, indent=1))


def taken(told: list[events.Event]) -> Pace | None:
    """What a run took by its events; None where it had too few steps to tell."""
    seconds = [event.seconds for event in told if isinstance(event, events.Step) and event.seconds]
    if len(seconds) < ENOUGH_STEPS:
        return None
    gaps = [after.t - before.t for before, after in itertools.pairwise(told)]
    spent = sum(gap for gap in gaps if 0 < gap < PAUSE)
    return Pace(statistics.median(seconds[FIRST_STEPS:]), max(0.0, spent - sum(seconds)))


def known() -> list[tuple[Kind, Pace]]:
    """What is known of runs on this machine, the newest last."""
    return [(Kind(**row["kind"]), Pace(row["seconds"], row["others"])) for row in _read().values() if row]


def _file() -> Path:
    return run.home() / "pace.json"


def _read() -> dict[str, Any]:
    """A file that is damaged knows nothing: it is learned again."""
    try:
        table = json.loads(_file().read_text(encoding="utf-8"))
        for row in table.values():
            if row:
                Kind(**row["kind"]).work, float(row["seconds"]), float(row["others"])
        return table
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
