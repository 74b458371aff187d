"""What was computed from files, remembered by path, size and time of change, so that no file is read twice for it."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from .files import written

T = TypeVar("T")  # something that JSON keeps as it is


class Remembered(Generic[T]):
    """`remembered[path]` is `compute(path)`, looked up in the file `memory`; threads may ask at the same time."""

    def __init__(self, memory: Path, compute: Callable[[Path], T]):
        self.memory, self.compute = memory, compute
        self.known: dict[str, T] = {}
        # it is only a memory: without it files are read again
        with contextlib.suppress(OSError, ValueError, RecursionError):
            known = json.loads(memory.read_text(encoding="utf-8"))
            self.known = known if isinstance(known, dict) else {}
        self.saved = len(self.known)

    def __contains__(self, path: Path) -> bool:
        return self._key(path) in self.known

    def __getitem__(self, path: Path) -> T:
        key = self._key(path)
        if key not in self.known:
            self.known[key] = self.compute(path)
        return self.known[key]

    def _key(self, path: Path) -> str:
        stat = os.stat(path)
        return f"{os.path.abspath(path)}|{stat.st_size}|{stat.st_mtime_ns}"

    def save(self) -> None:
        """Write what is new, if anything is and there is room for it."""
        if len(self.known) > self.saved:
            with contextlib.suppress(OSError):
                self.memory.parent.mkdir(parents=True, exist_ok=True)
                with written(self.memory, durable=False) as file:
                    file.write(json.dumps(self.known, ensure_ascii=False).encode())
                self.saved = len(self.known)
