"""How two LoRAs relate, and what one does to its base model: the two measures of arXiv:2106.09685, section 7.

φ (section 7.2, equation 4) says how much of the first i directions of one update lies in the first j of another's, from 0
to 1. The amplification factor (section 7.3) is ‖ΔW‖ / ‖UᵀWVᵀ‖: how much more the update has, in its own directions, than
the base model has there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..lora import blocks
from ..lora.pairs import Pair
from ..lora.seeds import stable_seed
from ..models.family import Family
from .analysis import OnProgress, counted
from .checkpoint import Checkpoint, check, check_fit
from .randomised import top_directions
from .spectra import decompose, inner, rank_for

Of = Literal["delta", "down", "up"]
CHANGED = 0.99  # of ‖ΔW‖²: the directions that are compared where no number is given


def directions(pair: Pair, of: Of = "delta") -> Tensor:
    """Orthonormal rows (k, in · k · k), the strongest first: inputs that ΔW answers to, or `down` alone as the paper has it.

    down and up can be exchanged for others with the same ΔW (down M, M⁻¹ up), which turns the order of their own
    directions; those of ΔW depend on the update alone. "up" are the columns of `up`, (k, out).
    """
    if of == "delta":
        return decompose(pair).right
    matrix = pair.down.double().flatten(1) if of == "down" else pair.up.double().flatten(1).T
    return torch.linalg.svd(matrix, full_matrices=False).Vh


def subspace_similarity(a: Tensor, b: Tensor) -> Tensor:
    """φ(i, j) = ‖Aᵢ Bⱼᵀ‖² / min(i, j) at [i − 1, j − 1], for orthonormal rows: equation 4 for every i and j at once."""
    overlaps = (a @ b.T).square().cumsum(0).cumsum(1)
    i, j = (torch.arange(1, n + 1, dtype=overlaps.dtype) for n in overlaps.shape)
    return overlaps / torch.minimum(i[:, None], j)


def chance(i: int, j: int, width: int) -> float:
    """What φ is on average between subspaces drawn at random in `width` dimensions."""
    return max(i, j) / width


class Relation(NamedTuple):
    """Of one layer that both LoRAs have."""

    phi: Tensor  # (i, j)
    cosine: float  # ⟨ΔWₐ, ΔW_b⟩ / ‖ΔWₐ‖‖ΔW_b‖
    change: float  # ‖ΔW_b − ΔWₐ‖ / ‖ΔWₐ‖
    used: tuple[int, int]  # the rank of each that keeps CHANGED
    width: int  # dimensions that the directions lie in

    @property
    def shared(self) -> float:
        """φ between the directions that each really uses."""
        return self.phi[self.used[0] - 1, self.used[1] - 1].item()

    @property
    def chance(self) -> float:
        return chance(*self.used, self.width)


@dataclass(frozen=True)
class Comparison:
    relations: dict[str, Relation]
    only: tuple[list[str], list[str]]  # layers that only the first has, and only the second
    family: Family

    def lines(self) -> list[str]:
        lines = [
            "  block   layers   φ(1,1)   φ(used)   by chance   cosine   change",
            *(
                f"  {name:7} {n:>6}   {first:>6.3f}   {shared:>7.3f}   {luck:>9.3f}   {cosine:>6.3f}   {change:>6.1%}"
                for name, (n, first, shared, luck, cosine, change) in self.by_block().items()
            ),
        ]
        for words, layers in zip(("first", "second"), self.only, strict=True):
            lines += [f"  {len(layers)} layers are in the {words} file only."] if layers else []
        return lines

    def by_block(self) -> dict[str, tuple[int, float, float, float, float, float]]:
        """Layers, and means over them of φ(1, 1), φ of what is used, its value by chance, the cosine and the change."""
        named = {layer: blocks.block_of(layer, self.family) for layer in self.relations}
        found = {}
        for name in sorted(set(named.values()), key=blocks.order):
            own = [self.relations[layer] for layer, block in named.items() if block == name]
            rows = torch.tensor([[r.phi[0, 0], r.shared, r.chance, r.cosine, r.change] for r in own])
            found[name] = (len(own), *rows.mean(0).tolist())
        return found

    def phi(self) -> Tensor:
        """The mean of φ(i, j) over the layers, as far as all of them have directions."""
        i, j = (min(r.phi.shape[side] for r in self.relations.values()) for side in (0, 1))
        return torch.stack([r.phi[:i, :j] for r in self.relations.values()]).mean(0)

    def facts(self) -> dict[str, Any]:
        """What is true of blocks and of the whole, as plain values, for JSON."""
        names = ("layers", "first", "shared", "chance", "cosine", "change")
        blocks = {block: dict(zip(names, row, strict=True)) for block, row in self.by_block().items()}
        return {"blocks": blocks, "phi": self.phi().tolist(), "only": [len(layers) for layers in self.only]}

    def table(self) -> dict[str, Any]:
        return {
            layer: {**r._asdict(), "phi": r.phi.tolist(), "shared": r.shared, "chance": r.chance}
            for layer, r in self.relations.items()
        }


def relate(a: Pair, b: Pair, of: Of = "delta") -> Relation:
    spectra = decompose(a), decompose(b)
    rows = [s.right for s in spectra] if of == "delta" else [directions(pair, of) for pair in (a, b)]
    product, norms = inner(a, b), [s.values.norm().item() for s in spectra]
    apart = max(0.0, norms[0] ** 2 - 2 * product + norms[1] ** 2) ** 0.5
    return Relation(
        phi=subspace_similarity(*rows),
        cosine=product / (norms[0] * norms[1]) if all(norms) else 0.0,
        change=apart / norms[0] if norms[0] else float("inf") if norms[1] else 0.0,
        used=tuple(min(rank_for(s.values, CHANGED), len(r)) for s, r in zip(spectra, rows, strict=True)),
        width=rows[0].shape[1],
    )


def compare(
    a: Mapping[str, Pair],
    b: Mapping[str, Pair],
    family: Family,
    *,
    of: Of = "delta",
    on_progress: OnProgress | None = None,
) -> Comparison:
    """Layer by layer, for two LoRAs of one family; ValueError where they share none."""
    both = [name for name in a if name in b]
    if not both:
        raise ValueError("The two LoRAs have no layer in common, so that nothing can be compared.")
    relations = {}
    for name in counted(both, on_progress):
        first, second = a[name], b[name]
        if first.down[0].numel() != second.down[0].numel() or first.up.shape[0] != second.up.shape[0]:
            raise ValueError(f"The two LoRAs are for different models: {name} has other sizes in each.")
        relations[name] = relate(first, second, of)
    return Comparison(relations, ([n for n in a if n not in b], [n for n in b if n not in a]), family)


class Amplification(NamedTuple):
    """Of one layer; norms of W seen through r directions on each side."""

    delta: float  # ‖ΔW‖ of its first r directions
    own: float  # ‖UᵀWVᵀ‖ with the directions of ΔW
    top: float  # with those of W itself: the most that r directions can have
    random: float  # with random ones
    base: float  # ‖W‖

    @property
    def factor(self) -> float:
        return self.delta / self.own if self.own else float("inf")


def amplification(pair: Pair, weight: Tensor, rank: int, *, name: str = "") -> Amplification:
    """Section 7.3 for one layer with its base weight (out, in, …); random directions are drawn from the layer's name."""
    w = weight.float().flatten(1)
    spectrum = decompose(pair)
    rank = min(rank, len(spectrum.values))
    u, v = spectrum.left[:, :rank].float(), spectrum.right[:rank].float()
    generator = torch.Generator().manual_seed(stable_seed(0, name))
    draws = [torch.randn(side, rank, generator=generator) for side in w.shape]
    random_u, random_v = (torch.linalg.qr(draw).Q for draw in draws)
    return Amplification(
        delta=spectrum.values[:rank].norm().item(),
        own=(u.T @ w @ v.T).norm().item(),
        top=top_directions(w, rank, seed=stable_seed(1, name)).values.norm().item(),
        random=(random_u.T @ w @ random_v).norm().item(),
        base=w.norm().item(),
    )


def amplifications(
    pairs: Mapping[str, Pair], base: Checkpoint, rank: int, on_progress: OnProgress | None = None
) -> dict[str, Amplification]:
    """Layer by layer, with the base model's weights read one after the other."""
    check(base, base.family, pairs)
    found = {}
    for name in counted(pairs, on_progress):
        pair, weight = pairs[name], base.weight(name)
        check_fit(base, name, pair, weight)
        found[name] = amplification(pair, weight, rank, name=name)
    return found


def by_block(found: Mapping[str, Amplification], family: Family) -> dict[str, dict[str, float]]:
    """The means over the layers of each block."""
    named = {layer: blocks.block_of(layer, family) for layer in found}
    table = {}
    for name in sorted(set(named.values()), key=blocks.order):
        own = [found[layer] for layer, block in named.items() if block == name]
        means = dict(zip(Amplification._fields, torch.tensor(own).mean(0).tolist(), strict=True))
        table[name] = {"factor": sum(a.factor for a in own) / len(own), **means}
    return table


def amplification_lines(found: Mapping[str, Amplification], family: Family) -> list[str]:
    """The means by block, for people."""
    return [
        "  block   factor   ‖ΔW‖      ‖UᵀWVᵀ‖   of W itself   at random   ‖W‖",
        *(
            f"  {name:7} {a['factor']:>6.2f}   {a['delta']:<8.4g}  {a['own']:<8.4g}  {a['top']:<11.4g}   "
            f"{a['random']:<9.4g}   {a['base']:<.4g}"
            for name, a in by_block(found, family).items()
        ),
    ]
