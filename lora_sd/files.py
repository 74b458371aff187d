"""Files that are there whole or not at all: written under another name, and given theirs once they are complete."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def write_text(path: Path, text: str) -> None:
    with written(path) as file:
        file.write(text.encode())


def changed(path: Path) -> int:
    """When a file was changed, in nanoseconds; 0 for one that was just taken away."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@contextlib.contextmanager
def written(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file to write that takes the name `path` at the end; until then what has that name stays.

    `durable`: it lies on the disk before it does, so that a power cut can't leave half of it; a cache, whose files have
    checksums, saves that time. The OSError of a disk that is full or gone names `path`, and leaves nothing behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        _put_in_place(temporary, path)
        if durable:
            _sync_folder(path.parent)
    except OSError as error:
        if error.errno and error.filename in (None, str(temporary)):
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def unfinished(folder: Path) -> Iterator[tuple[Path, int]]:
    """Files in a folder that are still being written, or that a process left when it was killed; with its number."""
    for path in folder.glob(".*.tmp"):
        pid = path.name.split(".")[-3]
        if pid.isdecimal():
            yield path, int(pid)


def _put_in_place(temporary: Path, path: Path) -> None:
    """Give a finished file its name. On Windows a reader can hold the old one for a moment: try again."""
    for attempt in range(20):
        try:
            os.replace(temporary, path)
            return
        except PermissionError:
            if attempt == 19:
                raise
            time.sleep(0.05)


def _sync_folder(folder: Path) -> None:
    """A name is safe from a power cut only when its folder is on the disk, too."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        with contextlib.suppress(OSError):  # not every network share can do that
            os.fsync(descriptor)
        os.close(descriptor)
