"""The tensors of a safetensors file, read one by one and not mapped: what was used is given back, however large the file is."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ..models.safetensors_file import Entry, open_header, parse_header
from ..paths import shown

DTYPES = {  # in the order in which the safetensors library lays tensors down
    **{"I64": torch.int64, "F64": torch.float64, "F32": torch.float32, "I32": torch.int32},
    **{"BF16": torch.bfloat16, "F16": torch.float16, "I16": torch.int16},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2},
    **{"I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool},
}
PIECE = 1 << 24  # bytes copied at a time


class StoredTensors:
    """A checked file; tensors are in the order in which they lie there."""

    def __init__(self, path: Path):
        with open_header(path):  # whole, and all offsets within it
            pass
        self.path, self.file = path, open(path, "rb")
        length = int.from_bytes(self.file.read(8), "little")
        entries, self.metadata = parse_header(self.file.read(length))
        self.start = 8 + length
        self.entries: dict[str, Entry] = dict(sorted(entries.items(), key=lambda item: item[1].begin))

    def __enter__(self) -> "StoredTensors":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def __contains__(self, key: str) -> bool:
        return key in self.entries

    def dtype(self, key: str) -> torch.dtype | None:
        """None where torch has no such format."""
        return DTYPES.get(self.entries[key].dtype)

    def tensor(self, key: str) -> Tensor:
        entry, dtype = self.entries[key], self.dtype(key)
        if dtype is None:
            raise ValueError(
                f"{shown(self.path.name)} can't be read: {shown(key)} is stored as {entry.dtype}; convert the file to fp16."
            )
        data = bytearray(entry.end - entry.begin)
        self.file.seek(self.start + entry.begin)
        if self.file.readinto(data) < len(data):
            raise ValueError(f"{shown(self.path.name)} has become shorter while it was read; try again.")
        return (
            torch.frombuffer(data, dtype=dtype).view(entry.shape)
            if data
            else torch.empty(entry.shape, dtype=dtype)
        )

    def described(self) -> dict[str, dict[str, Any]]:
        """The entries of a header for the same tensors in the same order."""
        return {
            key: {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [entry.begin, entry.end]}
            for key, entry in self.entries.items()
        }

    def pieces(self, key: str) -> Iterator[bytes]:
        """The bytes of a tensor as they are."""
        entry = self.entries[key]
        for begin in range(entry.begin, entry.end, PIECE):
            self.file.seek(self.start + begin)
            yield self.file.read(min(PIECE, entry.end - begin))
