"""One process at a time on a folder: a lock that the system lets go of when its holder dies, however it dies.

A process number in a file can't do that: numbers are used again, and a clock that is set makes start times differ.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

NAME = ".lock"
PATIENCE = 2.0  # seconds: somebody may just be looking whether it is held


@contextlib.contextmanager
def hold(folder: Path, otherwise: str) -> Iterator[None]:
    """Nobody else has the lock of `folder` while this is open; ValueError with the sentence `otherwise` if somebody does.

    The process that has it may take it again. Where the file system knows no locks there is none.
    """
    lock = FileLock(folder / NAME, is_singleton=True)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout as error:
        raise ValueError(otherwise) from error
    except NotImplementedError:  # some network shares
        (folder / NAME).unlink(missing_ok=True)
        yield
        return
    try:
        yield
    finally:
        lock.release()


def in_use(folder: Path) -> str:
    """The sentence for a run that another process trains."""
    return (
        f"{folder.name} is being trained by another process; stop that one first, or wait until it has ended."
    )


def held(folder: Path) -> bool | None:
    """Whether a process has the lock of `folder` now; None where no process ever had it."""
    if not (folder / NAME).exists():
        return None
    try:
        with FileLock(folder / NAME).acquire(timeout=0.1):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # a folder that can't be written to: nobody trains there
        return False
