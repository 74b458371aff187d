"""Stars that a person gave to files of a folder, such as a run's checkpoints: a list of names in stars.json there."""

import json
from pathlib import Path

from lora_sd.files import changed, write_text

NAME = "stars.json"
_known: dict[Path, tuple[int, frozenset[str]]] = {}  # folder → (when its list was written, the names)


def of(folder: Path) -> frozenset[str]:
    """The names with a star."""
    stamp = changed(folder / NAME)
    if stamp == 0:
        return frozenset()
    if folder not in _known or _known[folder][0] != stamp:
        _known[folder] = (stamp, _read(folder))
    return _known[folder][1]


def put(folder: Path, name: str, starred: bool) -> None:
    """Give a star, or take it."""
    names = set(_read(folder))
    if (name in names) == starred:
        return
    names ^= {name}
    write_text(folder / NAME, json.dumps(sorted(names), ensure_ascii=False))
    _known.pop(folder, None)


def _read(folder: Path) -> frozenset[str]:
    try:
        names = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return frozenset()
    return (
        frozenset(name for name in names if isinstance(name, str)) if isinstance(names, list) else frozenset()
    )
