"""What a run takes on the disk, and deleting it: our own files in its folder, and nothing that a person put there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from . import lock, run

FOLDERS = ("commands", "previews", "checkpoints", "state", "tensorboard")
FILES = ("events.jsonl", "log.txt", "state.json", "versions.json", "config.toml")  # the last makes it a run


def size(folder: Path) -> int:
    """Bytes of the run's own files."""
    return sum(_size(path) for path in _files(folder))


def delete(folder: Path) -> None:
    """Delete a run that is neither training nor waiting; its folder stays where something of a person's lies in it.

    Raises ValueError for one that may not be deleted now.
    """
    status = run.read_state(folder).status
    if status == "queued":
        raise ValueError(f"{folder.name} waits in line; take it out of the line first, then delete it.")
    with lock.hold(folder, lock.in_use(folder)):
        if run.read_state(folder).active:
            raise ValueError(lock.in_use(folder))
        for path in _files(folder):
            path.unlink(missing_ok=True)
    (folder / lock.NAME).unlink(missing_ok=True)
    for part in FOLDERS:
        _drop_empty(folder / part)
    _drop_empty(folder)


def _files(folder: Path) -> Iterator[Path]:
    for part in FOLDERS:
        yield from _below(folder / part)
    yield from (path for name in FILES if os.path.lexists(path := folder / name))


def _below(folder: Path) -> Iterator[Path]:
    """Every file below; a link is a file here, and what it leads to is not ours."""
    if folder.is_symlink():
        yield folder
        return
    for where, folders, names in os.walk(folder):
        links = [name for name in folders if Path(where, name).is_symlink()]
        yield from (Path(where, name) for name in (*names, *links))


def _drop_empty(folder: Path) -> None:
    """The folder and those in it, as far as nothing lies in them."""
    if folder.is_dir() and not folder.is_symlink():
        for where, _, _ in os.walk(folder, topdown=False):
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(where)


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.lstat().st_size
    return 0
