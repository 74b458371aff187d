"""A safetensors file's header, checked: 8 bytes of length, then JSON of names, shapes and offsets. No torch.

What passes here is what the safetensors library takes too, so everything below may trust `Contents`.
"""

import contextlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..paths import shown

LONGEST_HEADER = 25_000_000  # bytes; the largest that are known are a few million, all of it captions
MOST_BYTES = 2**48  # of a file
MOST_DIMENSIONS = 16
MOST_VALUES = 100_000  # bytes of a tensor that is read here
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("U8", "I8", "BOOL", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
CODES = {  # of `struct`
    **{"F64": "d", "F32": "f", "F16": "e", "BF16": "f", "BOOL": "?"},
    **{"I64": "q", "I32": "i", "I16": "h", "I8": "b", "U64": "Q", "U32": "I", "U16": "H", "U8": "B"},
}


class Contents(NamedTuple):
    """What a checkpoint tells without its weights being read."""

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]
    values: Callable[[str], list[float]]  # the few numbers of one small tensor


@contextlib.contextmanager
def open_header(path: Path) -> Iterator[Contents]:
    """The header of a safetensors file, checked: what is in `Contents` fits together and lies within the file.

    ValueError if it is no such file, is cut short, or has a header that no honest program wrote.
    """
    name = shown(path.name)
    if not path.is_file():  # a pipe would be waited for without end
        raise ValueError(f"{name} is not a file that can be read; check the path.")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > LONGEST_HEADER:
            raise ValueError(f"{name} is not a safetensors file; download it again.")
        try:
            entries, metadata = parse_header(file.read(length))
        except (ValueError, RecursionError) as error:
            why = error if isinstance(error, Impossible) else "its header can't be read"
            raise ValueError(
                f"{name} is damaged or not a safetensors file ({size:,} bytes): {why}; download it again."
            ) from error
        whole = 8 + length + max((entry.end for entry in entries.values()), default=0)
        if size < whole:
            raise ValueError(
                f"{name} is cut short: it has {size:,} of {whole:,} bytes; copy or download it again."
            )
        if size > whole:
            raise ValueError(
                f"{name} is damaged: {size - whole:,} bytes follow after its last tensor; download it again."
            )

        def values(key: str) -> list[float]:
            entry = entries[key]
            if entry.end - entry.begin > MOST_VALUES:
                raise ValueError(
                    f"{name} is damaged: {shown(key)!r} is larger than it can be; download it again."
                )
            if entry.dtype not in CODES:
                raise ValueError(
                    f"{name} has {shown(key)!r} as {entry.dtype}, which can't be read here; convert the file to fp16."
                )
            file.seek(8 + length + entry.begin)
            return _numbers(file.read(entry.end - entry.begin), entry.dtype)

        yield Contents({key: entry.shape for key, entry in entries.items()}, metadata, values)


class Impossible(ValueError):
    """What is wrong with a header, as a part of a sentence."""


class Entry(NamedTuple):
    """One tensor of a header; `begin` and `end` are bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def parse_header(text: bytes) -> tuple[dict[str, Entry], dict[str, str]]:
    """Entries and metadata. `Impossible`, or another ValueError of JSON, where safetensors would not take it either."""
    if not text.startswith(b"{"):
        raise Impossible("its header is no table")
    header = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Impossible("its metadata is not a table of texts")
    "".join(
        [*header, *metadata, *metadata.values()]
    ).encode()  # half a surrogate pair is a UnicodeEncodeError
    entries = {key: _entry(key, value) for key, value in header.items()}
    end = 0
    for key, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.begin != end:
            raise Impossible(f"its tensor {shown(key)!r} does not begin where the one before it ends")
        end = entry.end
    return entries, metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise Impossible("a name is twice in its header")
    return table


def _no_number(text: str) -> None:
    raise Impossible(f"its header has {text} in it")


def _entry(key: str, value: Any) -> Entry:
    match value:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]} if len(value) == 3:
            pass
        case _:
            raise Impossible(f"its entry {shown(key)!r} does not describe a tensor")
    if dtype not in BITS:
        raise Impossible(f"its tensor {shown(key)!r} is in the unknown number format {shown(dtype, 20)!r}")
    if len(shape) > MOST_DIMENSIONS or not all(map(_is_size, (*shape, begin, end))):
        raise Impossible(f"the numbers of its tensor {shown(key)!r} can't be right")
    if math.prod(max(1, side) for side in shape) > MOST_BYTES or math.prod(shape) * BITS[dtype] != 8 * (
        end - begin
    ):
        raise Impossible(f"the shape of its tensor {shown(key)!r} does not fit its bytes")
    return Entry(dtype, tuple(shape), begin, end)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST_BYTES  # a bool is an int to isinstance


def _numbers(data: bytes, dtype: str) -> list[float]:
    if dtype == "BF16":  # the upper half of a float32
        data = b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2))
    return [number for (number,) in struct.iter_unpack(f"<{CODES[dtype]}", data)]
