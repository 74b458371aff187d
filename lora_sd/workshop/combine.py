"""Several LoRAs as one: sums, averages and differences of ΔW, of any ranks and layouts; exact, or cut to a rank.

Exact: Σ wᵢ ΔWᵢ = [w₁s₁up₁ … wₙsₙupₙ] · [down₁; …; downₙ], so that ranks add and nothing is lost. (To add the matrices
themselves, as some programs do, gives products of one LoRA's `up` with another's `down`, which is no sum of the updates.)

TIES and DARE choose single numbers of ΔW, after which it has no low rank any more: here ΔW is made whole, one layer at a
time, they do what their papers say, and the nearest update of the wanted rank is kept, with the error told. That cut
undoes a part of what they did, more for DARE, whose dropped numbers are noise of full rank.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..lora.blocks import weights_of
from ..lora.names import Layout
from ..lora.pairs import Pair, delta_weight
from ..lora.seeds import stable_seed
from ..paths import shown
from . import writing
from .analysis import OnProgress
from .lora_file import LoraFile, open_lora, same_family
from .randomised import top_directions
from .resize import Loss, Made, check_cut, held, ranks_for_energy
from .spectra import shaped, truncated
from .table import layer_names

Method = Literal["sum", "average", "ties", "dare"]
DENSE = ("ties", "dare")


class Source(NamedTuple):
    path: str | Path
    weight: float = 1.0
    blocks: Mapping[str, float] = {}


# -- one layer ---------------------------------------------------------------------------------------------------------


def joined(parts: Sequence[tuple[Pair, float]]) -> Pair:
    """Σ weight · ΔW, exact; where all are of one alpha / rank and weight 1, the very numbers of each."""
    scale = parts[0][0].alpha / parts[0][0].rank
    ups = [p.up.flatten(1) * (w * (p.alpha / p.rank) / scale) for p, w in parts]
    down = torch.cat([pair.down.flatten(1) for pair, _ in parts])
    return shaped(down, torch.cat(ups, 1), scale * len(down), parts[0][0].down.shape[1:])


def trimmed(delta: Tensor, density: float) -> Tensor:
    """The largest numbers, this part of them; 0 for the others."""
    count = max(1, int(density * delta.numel()))
    sizes = delta.abs()
    least = sizes.flatten().kthvalue(delta.numel() - count + 1).values
    return delta * (sizes >= least)


def ties(deltas: Sequence[Tensor], density: float) -> Tensor:
    """Trim each, elect the sign of every number by their sum, average those that agree (arXiv:2306.01708, section 3).

    Trimmed layer by layer, as peft does.
    """
    kept = [trimmed(delta, density) for delta in deltas]
    elected = sum(kept, torch.zeros_like(deltas[0])).sign()
    total, count = torch.zeros_like(elected), torch.zeros_like(elected)
    for delta in kept:
        agrees = (delta.sign() == elected).logical_and_(delta != 0)
        total += delta.mul_(agrees)
        count += agrees
    return total.div_(count.clamp_(min=1))


def dare(deltas: Sequence[Tensor], density: float, seeds: Sequence[int]) -> Tensor:
    """Keep each number with probability `density` and divide it by that, then add up (arXiv:2311.03099, section 3)."""
    total = torch.zeros_like(deltas[0])
    for delta, seed in zip(deltas, seeds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        total += delta * (torch.rand(delta.shape, generator=generator) < density) / density
    return total


def nearest(delta: Tensor, rank: int, like: Pair, seed: int) -> tuple[Pair, float]:
    """The update of this rank that is nearest to a dense one, and how far it is from it."""
    pair = truncated(top_directions(delta, min(rank, *delta.shape), seed=seed), rank, like.down.shape[1:])
    return pair, (delta - delta_weight(pair)).norm().item()


# -- all layers --------------------------------------------------------------------------------------------------------


class Sum(Mapping[str, Pair]):
    """Σ wᵢ ΔWᵢ of several files, exact, made for a layer when it is asked for; a layer of weight 0 is in no file."""

    def __init__(self, files: Sequence[LoraFile], weights: Sequence[Mapping[str, float]]):
        self.files, self.weights = files, weights
        names = {name for w in weights for name, weight in w.items() if weight}
        self.names = [name for name in layer_names(files[0].family) if name in names]
        if not self.names:
            raise ValueError(
                "Every weight is 0, so that nothing would be left; give at least one LoRA a weight."
            )

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, name: str) -> Pair:
        return joined(self.parts(name))

    def own(self, name: str) -> list[tuple[LoraFile, float]]:
        """The files that have this layer, with their weights there."""
        given = zip(self.files, self.weights, strict=True)
        return [(file, weights[name]) for file, weights in given if weights.get(name)]

    def parts(self, name: str) -> list[tuple[Pair, float]]:
        parts = [(file[name], weight) for file, weight in self.own(name)]
        sides = [(len(pair.up), pair.down[0].numel()) for pair, _ in parts]
        if len(set(sides)) > 1:
            raise ValueError(
                f"{name} is {' and '.join(f'{out} × {inputs}' for out, inputs in sides)} in these LoRAs: they were "
                "made for different base models and can't be combined."
            )
        return parts

    def rank(self, name: str) -> int:
        return sum(file.rank(name) for file, _ in self.own(name))

    def alpha(self, name: str) -> float:
        first = self.own(name)[0][0]
        return first.alpha(name) / first.rank(name) * self.rank(name)


class Chosen(Sum):
    """TIES or DARE, each layer cut to a rank; `losses` tells what that cost of the layers that were asked for."""

    def __init__(
        self,
        files: Sequence[LoraFile],
        weights: Sequence[Mapping[str, float]],
        method: Literal["ties", "dare"],
        density: float,
        seed: int,
        rank: int | None,
    ):
        super().__init__(files, weights)
        self.method, self.density, self.seed, self.most = method, density, seed, rank
        self.losses: dict[str, Loss] = {}

    def __getitem__(self, name: str) -> Pair:
        parts = self.parts(name)
        deltas = [weight * delta_weight(pair) for pair, weight in parts]
        if self.method == "ties":
            delta = ties(deltas, self.density)
        else:
            seeds = [stable_seed(self.seed, f"{number} {name}") for number in range(len(deltas))]
            delta = dare(deltas, self.density, seeds)
        pair, lost = nearest(delta, self.rank(name), parts[0][0], stable_seed(self.seed, name))
        self.losses[name] = Loss(lost, delta.norm().item())
        return pair

    def rank(self, name: str) -> int:
        return self.most or super().rank(name)

    def alpha(self, name: str) -> float:
        return float(self.rank(name))


def combine(
    sources: Sequence[Source],
    out: str | Path,
    *,
    method: Method = "sum",
    rank: int | None = None,
    energy: float | None = None,
    density: float = 0.5,
    seed: int = 0,
    layout: Layout | None = None,
    dtype: torch.dtype | None = None,
    family: str | None = None,
    on_progress: OnProgress | None = None,
) -> Made:
    """Write one LoRA that does what `sources` do together, each at its weight; a negative weight takes away.

    "average" divides the weights by their sum. Without `rank` or `energy` the result is exact; "ties" and "dare" are cut
    to `rank`, or to the ranks of all together, and keep the part `density` of each update's numbers.
    """
    _check(method, rank, energy, density)
    files = opened(sources, family)
    out = writing.output(out, [file.path for file in files])
    layout, dtype = layout or "kohya", dtype or files[0].dtype
    weights = weights_by_layer(files, sources, average=method == "average")
    pairs = Chosen(files, weights, method, density, seed, rank) if method in DENSE else Sum(files, weights)
    ranks = ranks_for_energy(pairs, energy, on_progress) if energy else {}
    if rank and method not in DENSE:
        ranks = {name: min(rank, pairs.rank(name)) for name in pairs}
    found, losses = held(pairs, ranks, layout, dtype, on_progress)
    if isinstance(pairs, Chosen):
        losses = {n: Loss(math.hypot(cut.lost, losses[n].lost), cut.whole) for n, cut in pairs.losses.items()}
    metadata = writing.joint_header(files, found, out.stem)
    saved = writing.save(out, found, files[0].family, metadata=metadata, layout=layout)
    left_out = tuple(sentence for file in files for sentence in file.left_out())
    return Made(saved, {name: pair.rank for name, pair in found.items()}, losses, left_out)


def _check(method: Method, rank: int | None, energy: float | None, density: float) -> None:
    check_cut(rank, None)
    if rank is not None and energy is not None:
        raise ValueError("Give a rank or an energy, not both; they are two ways to say the same.")
    if energy is not None and method in DENSE:
        raise ValueError(f"What {method} makes is cut to a rank; give a rank instead of an energy.")
    if not 0 < density <= 1:
        raise ValueError(f"The density is {density:g}; it must be above 0 and at most 1, such as 0.5.")


def opened(sources: Sequence[Source], family: str | None, *, dora: bool = False) -> list[LoraFile]:
    """The sources' files, all for one kind of model."""
    if not sources:
        raise ValueError("Give at least one LoRA.")
    files = [open_lora(source.path, family, dora=dora) for source in sources]
    return [same_family(files[0], file) for file in files]


def weights_by_layer(
    files: Sequence[LoraFile], sources: Sequence[Source], *, average: bool = False
) -> list[dict[str, float]]:
    """Of each file, the weight of each of its layers; for an average they are divided by the sum of all weights."""
    if wrong := next((s for s in sources if not math.isfinite(s.weight)), None):
        raise ValueError(f"The weight of {shown(Path(wrong.path).name)} is {wrong.weight}; give it a number.")
    total = sum(source.weight for source in sources) if average else 1.0
    if not total:
        raise ValueError(
            "The weights add up to 0, so that there is no average; take the sum, or other weights."
        )
    found = []
    for file, source in zip(files, sources, strict=True):
        factors = weights_of(file, file.family, source.blocks)
        found.append({name: source.weight / total * factor for name, factor in factors.items()})
    return found
