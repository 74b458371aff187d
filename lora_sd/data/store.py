"""Cache files: tensors written whole or not at all, with a checksum, so that a file cut short reads as no file.

A file is the SHA-256 of what follows, then that as safetensors.
"""

import contextlib
import hashlib
import json
import os
import threading
from pathlib import Path

import safetensors.torch
from torch import Tensor

CHECKSUM = 32  # bytes


def write(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors so that a reader sees all of them or none."""
    data = safetensors.torch.save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})
    _replace(path, _checksum(data) + data)


def read(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a file; None where there is none, or a damaged one."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    checksum, data = data[:CHECKSUM], data[CHECKSUM:]
    return safetensors.torch.load(data) if data and checksum == _checksum(data) else None


def digest(*parts: str) -> str:
    """A name for what is made from these parts and nothing else."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


def _checksum(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class FileDigests:
    """Content hashes of files, remembered by path, size and time of change, so that a restart reads no picture twice."""

    def __init__(self, path: Path):
        self.path = path
        self.known: dict[str, str] = {}
        with contextlib.suppress(
            OSError, ValueError
        ):  # it is only a memory: without it files are hashed again
            self.known = json.loads(path.read_text(encoding="utf-8"))

    def __getitem__(self, path: Path) -> str:
        stat = path.stat()
        key = f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}"
        if key not in self.known:
            with open(path, "rb") as file:
                self.known[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self.known[key]

    def save(self) -> None:
        _replace(self.path, json.dumps(self.known, ensure_ascii=False).encode())
