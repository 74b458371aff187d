"""The bytes of a safetensors file, piece by piece, so that no second copy of the weights is made; the same input gives the same bytes.

Tensors are in the order that the safetensors library gives them: wide number formats first, then by name.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .metadata import model_hashes
from .stored import DTYPES

NAMES = {dtype: name for name, dtype in DTYPES.items()}
Bytes = bytes | memoryview


def pieces(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[Bytes]:
    """The file of a LoRA, with kohya's two hashes in the header."""
    tensors = ordered(tensors)
    yield hashed_head(described(tensors), metadata, map(data_of, tensors.values()))
    yield from map(data_of, tensors.values())


def plain(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A small file of other tensors, without those hashes."""
    tensors = ordered(tensors)
    return b"".join([head(described(tensors), metadata), *map(data_of, tensors.values())])


def ordered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    order = {dtype: place for place, dtype in enumerate(NAMES)}
    return dict(sorted(tensors.items(), key=lambda item: (order[item[1].dtype], item[0])))


def hashed_head(entries: Mapping[str, Any], metadata: Mapping[str, str], body: Iterable[Bytes]) -> bytes:
    """The header with kohya's two hashes, one of `body`, the tensor bytes, and one of both."""
    of_training = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    return head(entries, {**metadata, **model_hashes(head(entries, of_training), body)})


def described(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The entries of a header; tensors on the meta device will do."""
    entries, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        entries[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    return entries


def head(entries: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    # written here because safetensors puts the metadata in another order each time
    header = {"__metadata__": dict(sorted(metadata.items())), **entries}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def data_of(tensor: Tensor) -> Bytes:
    """The numbers as they are in memory, not copied."""
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data
