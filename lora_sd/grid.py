"""Pictures side by side: one thing changes along the columns, another along the rows, and all else stays.

axes → cells, each a drawing job as `worker` takes it → pictures → one sheet. What needs another file on the model changes
in the outer loop, so that a grid loads each file once.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from . import limits, run
from .paths import shown

Job = dict[str, Any]
Value = float | int | str
KINDS = ("strength", "checkpoint", "rank", "prompt", "seed", "steps", "guidance")
LOADS = ("checkpoint", "rank")  # what takes another file
OF_LORA = ("strength", "checkpoint", "rank")
WHOLE = ("rank", "seed", "steps")
LIMIT = {"strength": "strength of a LoRA", "seed": "seed", "steps": "steps", "guidance": "guidance"}
MOST = 100  # pictures
NUMBER = r"-?\d+(?:\.\d+)?"
RANGE = re.compile(rf"({NUMBER})\s*(?:-|–|\.\.|to)\s*({NUMBER})(?:\s*(?:by|step)\s*({NUMBER}))?", re.ASCII)


class Axis(NamedTuple):
    """What changes, its values, and how each is called where that is not the value itself."""

    kind: str
    values: tuple[Value, ...]
    names: tuple[str, ...] = ()

    def labels(self) -> list[str]:
        """`["strength 0.5", …]`; a prompt and a file stand for themselves."""
        plain = self.names or tuple(f"{v:g}" if isinstance(v, float) else str(v) for v in self.values)
        return list(plain) if self.kind in ("prompt", "checkpoint") else [f"{self.kind} {v}" for v in plain]


class Cell(NamedTuple):
    """One picture of a grid: where it is, and the job that draws it."""

    column: int
    row: int
    job: Job


ALONE = Axis("", ("",), ("",))  # where only one thing changes


# -- what a person wrote -----------------------------------------------------------------------------------------------


def read(kind: str, text: str) -> Axis:
    """The axis of `"0, 0.5, 1"`, `"0-1 by 0.25"`, or of prompts or files, one a line. ValueError with one sentence.

    >>> read("strength", "0-1 by 0.5, 1.5").values
    (0.0, 0.5, 1.0, 1.5)
    """
    if kind not in KINDS:
        raise ValueError(f"There is no axis {shown(kind)!r}; choose one of {', '.join(KINDS)}.")
    if kind == "prompt":
        return checked(Axis(kind, tuple(line.strip() for line in text.splitlines() if line.strip())))
    words = [word.strip() for word in re.split(r"[,;\n]", text) if word.strip()]
    if kind == "checkpoint":
        return checked(Axis(kind, tuple(words), tuple(Path(word).stem for word in words)))
    return checked(Axis(kind, tuple(value for word in words for value in _numbers(kind, word))))


def checked(axis: Axis) -> Axis:
    """The axis; ValueError where it has no values, too many, one twice, or one that can't be drawn."""
    kind, values = axis.kind, axis.values
    if not values:
        raise ValueError(f"The grid's {kind} has no values; write at least one, such as {EXAMPLES[kind]}.")
    if len(values) > MOST:
        raise ValueError(
            f"The grid's {kind} has {len(values):,} values; a grid has at most {MOST} pictures, so leave some out."
        )
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise ValueError(f"The grid's {kind} has {shown(twice)} twice; leave one out.")
    if kind in LIMIT:
        limits.check((LIMIT[kind], value) for value in values)
    if kind == "rank" and (low := next((value for value in values if value < 1), None)) is not None:
        raise ValueError(f"The grid's rank is {low}; it must be at least 1.")
    return axis


EXAMPLES = {
    "strength": "0, 0.5, 1",
    "checkpoint": "two files of a run",
    "rank": "4, 8, 16",
    "prompt": "a cat",
    "seed": "1, 2, 3",
    "steps": "10, 20, 30",
    "guidance": "2, 4, 6",
}


def _numbers(kind: str, word: str) -> list[Value]:
    """The numbers of `"0.5"` or of `"0-1 by 0.25"`."""
    if re.fullmatch(NUMBER, word, re.ASCII):
        return [_as(kind, Decimal(word))]
    match = RANGE.fullmatch(word)
    if not match:
        raise ValueError(
            f"The grid's {kind} is {shown(word, 60)!r}; write numbers, such as {EXAMPLES[kind]}, or a range like 0-1 by 0.25."
        )
    first, last, step = (Decimal(number) if number else None for number in match.groups())
    if step is None and first == int(first) and last == int(last):
        step = Decimal(1)
    if step is None:
        raise ValueError(
            f"The grid's {kind} goes {shown(word, 60)}; say by how much, such as {word} by 0.25."
        )
    if step <= 0 or last < first:
        raise ValueError(f"The grid's {kind} goes {shown(word, 60)}, which leads nowhere; count upwards.")
    count = int((last - first) / step) + 1
    if count > MOST:
        raise ValueError(
            f"The grid's {kind} goes {shown(word, 60)}, which is {count:,} values; a grid has at most {MOST} pictures."
        )
    return [_as(kind, first + step * i) for i in range(count)]


def _as(kind: str, number: Decimal) -> Value:
    if kind not in WHOLE:
        return float(number)
    if number != int(number):
        raise ValueError(f"The grid's {kind} is {number}; it is a whole number, such as {EXAMPLES[kind]}.")
    return int(number)


# -- what is drawn -----------------------------------------------------------------------------------------------------


def plan(job: Job, x: Axis, y: Axis = ALONE) -> list[Cell]:
    """The cells in the order they are best drawn in. ValueError for axes that can't be together, or too many pictures."""
    if x.kind == y.kind:
        raise ValueError(f"Both axes of the grid are {x.kind}; choose two different things.")
    for axis in (x, y):
        if axis.kind in OF_LORA and not job["loras"]:
            raise ValueError(f"The grid's {axis.kind} is that of a LoRA; choose a LoRA first.")
    if (count := len(x.values) * len(y.values)) > MOST:
        raise ValueError(
            f"A grid of {len(x.values)} × {len(y.values)} is {count:,} pictures, and at most {MOST} are drawn at once; "
            "leave out some values."
        )
    cells = [
        Cell(column, row, at(at(job, x.kind, x_value), y.kind, y_value))
        for row, y_value in enumerate(y.values)
        for column, x_value in enumerate(x.values)
    ]
    cells = [cell._replace(job=plain(cell.job, job)) for cell in cells]
    if x.kind in LOADS and y.kind not in LOADS:
        cells.sort(key=lambda cell: cell.column)  # and by row in it, as they were
    return cells


def at(job: Job, kind: str, value: Value) -> Job:
    """The job with another value; those of a LoRA are of the first."""
    if not kind:
        return job
    if kind not in OF_LORA:
        return {**job, kind: value}
    if kind == "rank":
        return {**job, "rank": value}
    (path, given), *others = job["loras"]
    if kind == "checkpoint":
        return {**job, "loras": [[value, given], *others]}
    strength = {**given, "whole": value} if isinstance(given, dict) else value  # one with parts keeps them
    return {**job, "loras": [[path, strength], *others]}


def plain(job: Job, before: Job) -> Job:
    """A job whose LoRA is off draws the same whichever file that is, and needs no other file for it."""
    given = job["loras"][0][1] if job["loras"] else 1
    if (given["whole"] if isinstance(given, dict) else given) != 0:
        return job
    first = [before["loras"][0][0], 0.0]
    return {name: value for name, value in job.items() if name != "rank"} | {
        "loras": [first, *job["loras"][1:]]
    }


def draw(cells: Sequence[Cell], picture: Callable[[Job], Path]) -> Iterator[tuple[Cell, Path]]:
    """Each cell with its picture, in order; equal jobs are drawn once."""
    made: dict[str, Path] = {}
    for cell in cells:
        key = json.dumps(cell.job, sort_keys=True)
        if key not in made:
            made[key] = picture(cell.job)
        yield cell, made[key]


def of_run(folder: Path) -> Axis:
    """All checkpoints of a run, called by their steps."""
    files = run.checkpoints(folder)
    if not files:
        raise ValueError(f"{folder.name} has no checkpoint yet; wait for its first, or choose another run.")
    return checked(Axis("checkpoint", tuple(map(str, files)), tuple(map(name_of, files))))


def name_of(checkpoint: Path) -> str:
    """`"step 50"`, `"best"` or `"final"`."""
    number = run.step_of(checkpoint)
    if number is not None:
        return f"step {number:,}"
    return "best" if run.is_best(checkpoint) else "final"
