"""Cache files: tensors written whole or not at all, with a checksum, so that a file cut short reads as no file.

A file is the SHA-256 of what follows, then that as safetensors. Read through a `Shelf`, it is read and checked once.
"""

import hashlib
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path

import psutil
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ..files import written

CHECKSUM = 32  # bytes
MOST = 4 * 2**30  # bytes of memory that one kind of tensors may take


class Shelf:
    """Cache files, kept in memory as far as `keep` bytes go.

    First come, first kept: an epoch looks at all files equally often, so making room for one would only lose another.
    `needs` are the tensors without which a file is a damaged one.
    """

    def __init__(self, keep: int, needs: Iterable[str] = ()):
        self.room = keep  # bytes
        self.needs = frozenset(needs)
        self.kept: dict[Path, dict[str, Tensor]] = {}
        self.sound: dict[Path, tuple[int, int]] = {}  # size and time of change when the checksum was right
        self.lock = threading.Lock()

    def has(self, path: Path) -> bool:
        """Whether there is such a file, by its size: its content is read, and checked, when it is wanted."""
        try:
            return path in self.kept or os.stat(path).st_size > CHECKSUM
        except FileNotFoundError:
            return False

    def read(self, path: Path) -> dict[str, Tensor] | None:
        """The tensors of a file, not to be written to; None where there is none, or a damaged one."""
        if path in self.kept:
            return self.kept[path]
        try:
            stat = path.stat()
        except FileNotFoundError:
            return None
        state = (stat.st_size, stat.st_mtime_ns)
        found = read(path, verify=self.sound.get(path) != state)
        if found is not None and not self.needs <= found.keys():
            return None
        if found is not None:
            self.sound[path] = state
            self._keep(path, found)
        return found

    def write(self, path: Path, tensors: dict[str, Tensor]) -> None:
        write(path, tensors)
        self._keep(path, tensors)

    def _keep(self, path: Path, tensors: dict[str, Tensor]) -> None:
        size = sum(tensor.nbytes for tensor in tensors.values())
        with self.lock:
            if size <= self.room and path not in self.kept:
                self.room -= size
                self.kept[path] = tensors


def memory_to_keep() -> int:
    """Bytes: an eighth of the memory that is free now, at most 4 GiB, shared by this machine's processes of the run."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # as torchrun and accelerate launch set it
    return min(MOST, psutil.virtual_memory().available // 8) // processes


def write(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors so that a reader sees all of them or none."""
    data = safetensors.torch.save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path, durable=False) as file:
        file.write(_checksum(data) + data)


def read(path: Path, *, verify: bool = True) -> dict[str, Tensor] | None:
    """The tensors of a file; None where there is none, or a damaged one."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    checksum, data = data[:CHECKSUM], data[CHECKSUM:]
    whole = not verify or (data and checksum == _checksum(data))
    try:
        return safetensors.torch.load(data) if whole else None
    except SafetensorError:  # a checksum is right for anything
        return None


def digest(*parts: str) -> str:
    """A name for what is made from these parts and nothing else."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
