"""LoRAs folded into a base model's files, or taken out of them: W' = W + Σ wᵢ ΔWᵢ, summed in fp32, one tensor at a time.

Taken out again with the weights negated, W comes back to the rounding of the file's number format, once for each way. Of a
DoRA, W' − W depends on W itself: it is exact here, where W is at hand, but can't be taken out of a model it is in.
"""

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..lora import container, dora
from ..lora.formats import fit_magnitude
from ..lora.inspection import has_magnitudes
from ..lora.pairs import LowRank, Pair, delta_weight
from ..lora.stored import StoredTensors
from ..paths import shown, typed
from . import writing
from .analysis import OnProgress
from .checkpoint import Checkpoint, calculable, check, check_fit, open_checkpoint
from .combine import Source, Sum, joined, opened, weights_by_layer
from .lora_file import LoraFile
from .spectra import largest

WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".msgpack", ".h5", ".onnx")
TOLD = "lora_sd.merged"  # what was put in, in the header of every file of the new model


class Merged(NamedTuple):
    path: Path
    size: int  # bytes of the files with changed layers
    layers: int

    def lines(self) -> list[str]:
        return [f"{self.path}: {self.layers} layers changed, {self.size / 1e6:,.1f} MB written."]

    def facts(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {"path": str(self.path), "size": self.size, "layers": self.layers}


def merge(
    base: str | Path,
    sources: Sequence[Source],
    out: str | Path,
    *,
    family: str | None = None,
    on_progress: OnProgress | None = None,
) -> Merged:
    """Write `base` with the LoRAs in it: a file for a file, a folder for a folder. A weight of −1 takes one out again.

    What is no adapted layer is copied byte for byte, and every tensor keeps its number format.
    """
    checkpoint = open_checkpoint(base)
    files = opened(sources, family or checkpoint.family.name, dora=True)
    _check_doras(files, sources)
    pairs = Sum(files, weights_by_layer(files, sources))
    check(checkpoint, files[0].family, pairs)
    change = _Change(checkpoint, pairs, on_progress)
    told = ", ".join(f"{shown(file.path.name)}:{s.weight:g}" for file, s in zip(files, sources, strict=True))
    if checkpoint.path.is_file():
        path = writing.output(out, [checkpoint.path, *(file.path for file in files)])
        size = writing.place(path, change.pieces(checkpoint.files[checkpoint.path], told))
    else:
        path = _new_folder(out)
        size = _write_folder(path, checkpoint, change, told)
    return Merged(path, size, len(pairs))


class _Change:
    """The tensors of a checkpoint's files, changed where a layer of `pairs` is in them."""

    def __init__(self, checkpoint: Checkpoint, pairs: Sum, on_progress: OnProgress | None):
        self.checkpoint, self.pairs, self.on_progress, self.done = checkpoint, pairs, on_progress, 0
        self.layers: dict[tuple[Path, str], list[str]] = {}
        for name in pairs:
            place = checkpoint.places[name]
            self.layers.setdefault((place.file, place.key), []).append(name)

    def pieces(self, file: StoredTensors, told: str) -> Iterator[container.Bytes]:
        """The bytes of the new file."""
        before = file.metadata.get(TOLD)
        metadata = {**file.metadata, TOLD: f"{before}, {told}" if before else told}
        yield container.head(file.described(), metadata)
        for key in file.entries:
            if layers := self.layers.get((file.path, key)):
                whole = calculable(file.tensor(key), file.path)
                for name in layers:
                    self._add(name, self.checkpoint.places[name].rows(whole))
                yield container.data_of(whole)
            else:
                yield from file.pieces(key)

    def _add(self, name: str, weight: Tensor) -> None:
        parts = self.pairs.parts(name)
        check_fit(self.checkpoint, name, parts[0][0], weight)
        weight.copy_(weight.float() + update(weight, parts, self.checkpoint.path, name))
        if not math.isfinite(largest(weight)):
            raise ValueError(
                f"With these LoRAs the numbers of {name} are too large for the model's number format; use smaller weights."
            )
        self.done += 1
        if self.on_progress:
            self.on_progress(self.done, len(self.pairs))


def update(weight: Tensor, parts: Sequence[tuple[Pair, float]], path: Path, name: str) -> Tensor:
    """Σ wᵢ (Wᵢ' − W), fp32 and shaped like the weight; LoRAs are added up first."""
    plain = [(pair, w) for pair, w in parts if pair.magnitude is None]
    total = delta_weight(joined(plain)).view_as(weight) if plain else torch.zeros(weight.shape)
    for pair, w in parts:
        if pair.magnitude is not None:
            total = total + dora.change(weight, _low_rank(pair, w, weight, path, name))
    return total


def _low_rank(pair: Pair, strength: float, weight: Tensor, path: Path, name: str) -> LowRank:
    shape = pair.down.shape[0], *weight.shape[1:]
    up = pair.up.reshape(*pair.up.shape[:2], *(1,) * (weight.dim() - 2))
    magnitude = fit_magnitude(path, name, pair.magnitude, weight)
    made = LowRank("merged", Pair(pair.down.reshape(shape), up, pair.alpha, magnitude), strength)
    made.base_squares = dora.squares(weight, dora.axis_of(magnitude, weight))
    return made


def _check_doras(files: Sequence[LoraFile], sources: Sequence[Source]) -> None:
    """ValueError for a DoRA that is to be taken away: what it did depends on the model from before it."""
    for file, source in zip(files, sources, strict=True):
        if has_magnitudes(file.header) and (source.weight < 0 or any(f < 0 for f in source.blocks.values())):
            raise ValueError(
                f"{file.name} is a DoRA, which can't be taken out of a model; give it a weight above 0, and keep the base model."
            )


def _new_folder(out: str | Path) -> Path:
    path = typed(str(out), "The new folder")
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"There is something at {shown(path)} already; give a folder that is not there yet.")
    return path


def _write_folder(path: Path, checkpoint: Checkpoint, change: _Change, told: str) -> int:
    """A copy of a diffusers folder with changed weights, complete before it takes its name.

    Other weights of a changed component, in a variant or another format, would be those of the base and are left out.
    """
    changed = {file.parent for file, _ in change.layers}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    size = 0
    try:
        for file in sorted(checkpoint.path.rglob("*")):
            target = temporary / file.relative_to(checkpoint.path)
            if not file.is_file():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if file in checkpoint.files and file.parent in changed:
                size += writing.place(target, change.pieces(checkpoint.files[file], told))
            elif file.parent not in changed or not file.name.endswith(WEIGHTS):
                shutil.copyfile(file, target)
        if path.exists():
            path.rmdir()
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return size
