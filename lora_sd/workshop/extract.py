"""A LoRA from a fine-tuned model and its base: the nearest update of a rank to W' − W, layer by layer, by randomised SVD.

Both models are read one tensor at a time. What changed elsewhere (norms, biases, other layers) no LoRA can hold: it is counted.
"""

import math
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..lora.metadata import Training, build
from ..lora.names import Layout
from ..lora.pairs import Pair, delta_weight
from ..lora.seeds import stable_seed
from ..lora.targets import PRESETS, TEXT_ENCODERS
from ..paths import shown
from . import writing
from .analysis import OnProgress, counted
from .checkpoint import Checkpoint, open_checkpoint
from .randomised import top_directions
from .resize import Loss, Made, check_cut, together
from .spectra import largest, truncated

EVERYTHING = "everything"


class Extracted(NamedTuple):
    made: Made
    left_out: dict[str, float]  # layers that `targets` leaves out but that have changed, with ‖W' − W‖
    others: int  # other tensors that have changed, None where the two models are of different layouts

    def facts(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {**self.made.facts(), "left_out": self.lines()[2:]}

    def lines(self) -> list[str]:
        lines = self.made.lines()
        whole = together(self.made.losses).whole
        if self.left_out:
            norm = sum(value**2 for value in self.left_out.values()) ** 0.5
            lines.append(
                f"{len(self.left_out)} more layers have changed, by {norm / whole:.1%} of that; --targets everything takes them in."
            )
        if self.others:
            lines.append(
                f"{self.others} tensors that no LoRA can hold, such as norms and biases, have changed and are left out."
            )
        return lines


def wanted(name: str, targets: str) -> bool:
    """Whether a preset of training, with the text encoders, has this layer."""
    patterns = ("*",) if targets == EVERYTHING else (*PRESETS[targets], *TEXT_ENCODERS)
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def extract(
    tuned: str | Path,
    base: str | Path,
    out: str | Path,
    *,
    rank: int = 32,
    energy: float | None = None,
    targets: str = "full",
    layout: Layout = "kohya",
    dtype: torch.dtype = torch.float16,
    on_progress: OnProgress | None = None,
) -> Extracted:
    """Write the LoRA that makes `base` nearly `tuned`: of `rank`, or less where that keeps `energy` (0 … 1) of a layer."""
    _check(rank, energy, targets)
    new, old = open_checkpoint(tuned), open_checkpoint(base)
    path = writing.output(out, [*new.files, *old.files])
    if new.family is not old.family:
        raise ValueError(
            f"{new.title} is {new.family.title} and {old.title} {old.family.title}; take its own base."
        )
    layers = [name for name in old.places if name in new.places]
    pairs: dict[str, Pair] = {}
    losses: dict[str, Loss] = {}
    left_out: dict[str, float] = {}
    for name in counted(layers, on_progress):
        delta = _difference(name, new, old)
        whole = delta.norm().item()
        if whole == 0:
            continue
        if not wanted(name, targets):
            left_out[name] = whole
            continue
        pair = _nearest(delta, rank, energy, stable_seed(0, name))
        pairs[name] = writing.stored(name, pair, float(pair.rank if layout == "peft" else rank), dtype)
        losses[name] = Loss((delta.flatten(1) - delta_weight(pairs[name])).norm().item(), whole)
    if not pairs:
        raise ValueError(
            f"No layer of {new.title} differs from {old.title}, so that there is nothing to extract."
        )
    training = Training(base=str(base), output_name=path.stem)
    metadata = build(new.family, new.prediction, pairs, training, level="minimal")
    metadata.pop("modelspec.date")  # the same models give the same bytes
    saved = writing.save(path, pairs, new.family, metadata=metadata, layout=layout)
    made = Made(saved, {name: pair.rank for name, pair in pairs.items()}, losses)
    return Extracted(made, left_out, _changed_elsewhere(new, old))


def _check(rank: int, energy: float | None, targets: str) -> None:
    check_cut(rank, energy)
    if targets not in (*PRESETS, EVERYTHING):
        raise ValueError(f"The targets are {shown(targets)!r}; choose {', '.join(PRESETS)} or {EVERYTHING}.")


def _difference(name: str, new: Checkpoint, old: Checkpoint) -> Tensor:
    """W' − W in fp32, in the shape of the base's."""
    after, before = new.weight(name), old.weight(name)
    if after.numel() != before.numel() or len(after) != len(before):
        raise ValueError(
            f"{old.title} is not the base of {new.title}: {name} is {tuple(before.shape)} in one "
            f"and {tuple(after.shape)} in the other."
        )
    delta = after.float().view_as(before) - before.float()
    if not math.isfinite(largest(delta)):
        raise ValueError(f"{name} has numbers that are not finite in one of the models; use another copy.")
    return delta


def _nearest(delta: Tensor, rank: int, energy: float | None, seed: int) -> Pair:
    """The update of this rank nearest to a dense one, or of the smaller rank that keeps the energy."""
    matrix = delta.flatten(1)
    spectrum = top_directions(matrix, min(rank, *matrix.shape), seed=seed)
    if energy is not None:
        kept = spectrum.values.double().square().cumsum(0) / matrix.double().square().sum()
        rank = int((kept < energy).sum()) + 1
    return truncated(spectrum, rank, delta.shape[1:])


def _changed_elsewhere(new: Checkpoint, old: Checkpoint) -> int:
    """Tensors of the U-Net and text encoders besides the layers, compared where both models have one by the same key."""
    layers = {place.key for place in old.places.values()}
    theirs = {_relative(new, file): stored for file, stored in new.files.items()}
    changed = 0
    for file, stored in old.files.items():
        other = theirs.get(_relative(old, file))
        keys = [key for key in stored.entries if key not in layers and other and key in other]
        for key in keys:
            a, b = stored.tensor(key), other.tensor(key)
            changed += a.shape != b.shape or not torch.equal(a.double(), b.double())
    return changed


def _relative(model: Checkpoint, file: Path) -> Path:
    return Path() if model.path.is_file() else file.relative_to(model.path)
