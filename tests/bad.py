"""The corpus of bad inputs: each is a function that makes one in a folder and does with it what a person would.

What it raises, or returns as the reason why it left something out, is the sentence that the person gets. The rows are in
bad_models.py, bad_pictures.py, bad_settings.py, bad_drawing.py and bad_workshop.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    group: str
    name: str
    act: Callable[[Path], str | None]
    names: str  # the file or setting that its sentence has to name
    says: str  # a few words of it


ROWS: list[Row] = []


def bad(names: str, says: str) -> Callable[[Callable], Callable]:
    """Registers a function as a row; its name is what is wrong with the input."""

    def register(act: Callable[[Path], str | None]) -> Callable:
        group = act.__module__.removeprefix("bad_")
        ROWS.append(Row(group, act.__name__.strip("_").replace("_", " "), act, names, says))
        return act

    return register


def sentence(row: Row, folder: Path) -> str:
    """What the person is told; paths of the folder are shortened."""
    try:
        told = row.act(folder)
    except ValueError as error:
        told = str(error)
    assert told, f"{row.name} was taken for good"
    return told.replace(str(folder), "…")


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path
