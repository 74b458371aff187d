"""Textual-inversion files: a word's vectors to and from the `.safetensors` that A1111, Forge, ComfyUI and diffusers load.

One tensor (N, D) for each text encoder: `emb_params`, or `clip_l` and `clip_g` of SDXL. The others take the file's name
for the word; ours are numbered on the way, so the word is also in the header.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from ..files import written
from ..models.family import Family
from ..paths import shown
from . import container
from .formats import WEIGHTS
from .inspection import MOST_VECTORS, read_header, vectors_of, word_of


class EmbeddingFile(NamedTuple):
    word: str
    vectors: dict[str, Tensor]  # by text encoder (N, D), fp32, on the CPU


def load(path: str | Path, family: Family) -> EmbeddingFile:
    """The word of a file and its vectors for the text encoders of a family, or a ValueError that says why not."""
    path = Path(path)
    header = read_header(path)
    found = vectors_of(header)
    if not found:
        raise ValueError(
            f"{shown(path.name)} is not a textual-inversion file of at most {MOST_VECTORS} vectors; choose another."
        )
    keys = {spec.attribute: spec.embedding for spec in family.text_encoders}
    if len(keys) == 1 and len(found) == 1:  # diffusers names the tensor as the word
        keys = dict.fromkeys(keys, next(iter(found)))
    if set(keys.values()) != set(found):
        raise ValueError(
            f"{shown(path.name)} was made for another base model: it has {', '.join(found)}, and a {family.title} model "
            f"needs {', '.join(keys.values())}. Choose the base model it was trained on."
        )
    tensors = safetensors.torch.load_file(path)
    vectors = {part: _matrix(path, key, tensors[key]) for part, key in keys.items()}
    return EmbeddingFile(word_of(path, header), vectors)


def _matrix(path: Path, key: str, tensor: Tensor) -> Tensor:
    if tensor.dtype not in WEIGHTS or not tensor.isfinite().all():
        raise ValueError(
            f"{shown(path.name)} is damaged: {shown(key)} is not of finite numbers; use another copy or checkpoint."
        )
    return tensor.float().reshape(-1, tensor.shape[-1])


def save(path: Path, vectors: Mapping[str, Tensor], family: Family, *, metadata: Mapping[str, str]) -> None:
    """Write the vectors (N, D) by text encoder, in fp32, whole or not at all: what lies there is what was read back."""
    keys = {spec.attribute: spec.embedding for spec in family.text_encoders}
    tensors = {keys[part]: rows.detach().float().cpu().contiguous() for part, rows in vectors.items()}
    if not all(rows.isfinite().all() for rows in tensors.values()):
        raise ValueError(
            f"{path.name} was not saved: its vectors are not finite numbers; go back to an earlier checkpoint and "
            "train at a lower embedding.rate."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as file:
        file.write(container.plain(tensors, metadata))
        file.flush()
        there = safetensors.torch.load_file(file.name)
        if there.keys() != tensors.keys() or not all(torch.equal(there[key], tensors[key]) for key in there):
            raise OSError(f"{path} was not saved: what was read back is not what was written.")
