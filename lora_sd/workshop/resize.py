"""A LoRA with other ranks: cut to its strongest directions by a rank, an energy or a file size, or given room to learn more.

Cutting is the best there is (Eckart and Young): of all updates of that rank, it is the nearest to ΔW. What is lost is
told for every layer, rounding to the file's number format included.
"""

import heapq
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..lora import container
from ..lora.names import Layout, written_keys
from ..lora.pairs import Pair, delta_weight
from ..lora.seeds import stable_seed
from . import writing
from .analysis import OnProgress, counted
from .lora_file import LoraFile, open_lora
from .randomised import top_directions
from .spectra import (
    DENSE_RANK,
    Spectrum,
    decompose,
    distance,
    norm,
    rank_for,
    shaped,
    singular_values,
    truncated,
)

HASHES = 300  # bytes of a header that are not in the source's: hashes, rank and alpha


class Loss(NamedTuple):
    """What a layer has lost: two norms."""

    lost: float  # ‖ΔW − ΔW'‖
    whole: float  # ‖ΔW‖

    @property
    def part(self) -> float:
        return self.lost / self.whole if self.whole else 0.0


class Made(NamedTuple):
    """A new file, and what it is."""

    saved: writing.Saved
    ranks: dict[str, int]
    losses: dict[str, Loss]
    left_out: tuple[str, ...] = ()  # what the sources have besides

    def lines(self) -> list[str]:
        ranks = sorted(self.ranks.values())
        told = str(ranks[0]) if ranks[0] == ranks[-1] else f"{ranks[0]} to {ranks[-1]}"
        size = f"{self.saved.size / 1e6:.1f} MB"
        return [
            f"{self.saved.path}: {self.saved.layers} layers of rank {told}, {size}.",
            loss_sentence(self.losses),
            *self.left_out,
        ]

    def facts(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        name, worst = worst_of(self.losses)
        return {
            "path": str(self.saved.path),
            "size": self.saved.size,
            "layers": self.saved.layers,
            "ranks": [min(self.ranks.values()), max(self.ranks.values())],
            "error": together(self.losses).part,
            "worst": [name, worst.part],
            "left_out": list(self.left_out),
        }


def loss_sentence(losses: Mapping[str, Loss]) -> str:
    """The error of the whole and of the worst layer."""
    whole = together(losses)
    name, worst = worst_of(losses)
    return (
        f"Error {whole.part:.3%} of ‖ΔW‖ ({1 - whole.part**2:.3%} of its energy is kept); "
        f"most in {name}: {worst.part:.3%}."
    )


def worst_of(losses: Mapping[str, Loss]) -> tuple[str, Loss]:
    """The layer that has lost most of itself."""
    return max(losses.items(), key=lambda item: item[1].part)


def together(losses: Mapping[str, Loss]) -> Loss:
    """Of all layers as one."""
    return Loss(*(math.sqrt(sum(loss[i] ** 2 for loss in losses.values())) for i in (0, 1)))


def loss_of(before: Pair, after: Pair) -> Loss:
    return Loss(distance(before, after), norm(before))


# -- which rank each layer gets ----------------------------------------------------------------------------------------


def check_cut(rank: int | None, energy: float | None) -> None:
    """ValueError for a rank or an energy that nothing can be cut to."""
    if rank is not None and rank < 1:
        raise ValueError(f"The rank is {rank}; it must be at least 1.")
    if energy is not None and not 0 < energy <= 1:
        raise ValueError(f"The energy is {energy:g}; it must be above 0 and at most 1, such as 0.95.")


def ranks_for_energy(
    pairs: Mapping[str, Pair], energy: float, on_progress: OnProgress | None = None
) -> dict[str, int]:
    """The smallest rank of each layer that keeps this part, up to 1, of its ‖ΔW‖²."""
    check_cut(None, energy)
    return {name: rank_for(singular_values(pairs[name]), energy) for name in counted(pairs, on_progress)}


def ranks_for_size(
    pairs: Mapping[str, Pair], numbers: int, on_progress: OnProgress | None = None
) -> dict[str, int]:
    """The ranks that keep most of ‖ΔW‖² with this many numbers in all, at least 1 for every layer.

    A unit of rank is worth σ² and costs in · k · k + out numbers: those worth most for their cost come first.
    """
    ranks, queue, left = {}, [], numbers
    for name in counted(pairs, on_progress):
        pair = pairs[name]
        cost, values = pair.down[0].numel() + len(pair.up), singular_values(pair)
        ranks[name], left = 1, left - cost
        queue += [(-(v.item() ** 2) / cost, name, cost) for v in values[1:]]
    if left < 0:
        raise ValueError(
            f"That size is too small: rank 1 in every layer takes {numbers - left:,} numbers, and there is room for "
            f"{max(0, numbers):,}; allow a larger file."
        )
    heapq.heapify(queue)
    while queue and left > 0:
        worth, name, cost = heapq.heappop(queue)
        if worth and cost <= left:
            ranks[name], left = ranks[name] + 1, left - cost
    return ranks


def room(file: LoraFile, size: float, layout: Layout, dtype: torch.dtype) -> int:
    """How many numbers of down and up a file of `size` bytes has room for, with a header as long as at the ranks of `file`."""
    entries = {}
    for name in file:
        new = written_keys(name, file.family, layout)
        for key, shape in zip((new.down, new.up), file.shapes(name), strict=True):
            entries[key] = torch.empty(shape, dtype=dtype, device="meta")
        entries |= {new.alpha: torch.empty((), device="meta")} if layout == "kohya" else {}
    header = len(
        container.head(container.described(entries), {**writing.of_family(file.family), **file.metadata})
    )
    alphas = 4 * len(file) if layout == "kohya" else 0
    return int(size - header - HASHES - alphas) // dtype.itemsize


# -- the layers --------------------------------------------------------------------------------------------------------


def _strongest(name: str, pair: Pair, rank: int) -> Spectrum:
    """At least the first `rank` directions; of a pair that is hardly low in rank itself, by random vectors."""
    if pair.rank > DENSE_RANK and pair.rank > 4 * rank:
        return top_directions(delta_weight(pair), rank, seed=stable_seed(0, name))
    return decompose(pair)


def resized(name: str, pair: Pair, rank: int) -> Pair:
    """The pair at another rank, with alpha = rank; its own factors where nothing is cut."""
    if rank < pair.rank:
        return truncated(_strongest(name, pair, rank), rank, pair.down.shape[1:])
    up = pair.up.flatten(1) * (pair.alpha / pair.rank)
    down, more = pair.down.flatten(1), rank - pair.rank
    generator = torch.Generator().manual_seed(stable_seed(0, name))
    bound = 1 / math.sqrt(down.shape[1])  # as a new adapter begins, so that the added ranks can learn
    added = torch.empty(more, down.shape[1]).uniform_(-bound, bound, generator=generator)
    down, up = torch.cat([down, added]), torch.cat([up, torch.zeros(len(up), more)], 1)
    return shaped(down, up, float(rank), pair.down.shape[1:])


def held(
    pairs: Mapping[str, Pair],
    ranks: Mapping[str, int],
    layout: Layout,
    dtype: torch.dtype,
    on_progress: OnProgress | None = None,
) -> tuple[dict[str, Pair], dict[str, Loss]]:
    """Every layer at its rank, as a file will hold it, and what it has lost; layers that `ranks` leaves out as they are.

    One layer is read, cut and rounded after the other, so that only the result is in memory.
    """
    alpha = writing.most_usual(float(ranks.get(name) or pairs.alpha(name)) for name in pairs)
    found, losses = {}, {}
    for name in counted(pairs, on_progress):
        whole = pairs[name]
        pair = resized(name, whole, ranks[name]) if name in ranks else whole
        own = float(pair.rank) if layout == "peft" else alpha
        found[name] = writing.stored(name, pair, own, dtype)
        losses[name] = loss_of(whole, found[name])
    return found, losses


def resize(
    source: str | Path,
    out: str | Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    size: float | None = None,
    layout: Layout | None = None,
    dtype: torch.dtype | None = None,
    family: str | None = None,
    on_progress: OnProgress | None = None,
) -> Made:
    """Write `source` at a rank for all layers, the ranks that keep an energy (0 … 1), or those that fit `size` bytes.

    With none of them the ranks stay, and the file gets alpha = rank, another layout or number format.
    """
    if sum(target is not None for target in (rank, energy, size)) > 1:
        raise ValueError("Give one of rank, energy and size; they are three ways to say the same.")
    check_cut(rank, None)
    file = open_lora(source, family)
    out = writing.output(out, [file.path])
    layout, dtype = layout or ("peft" if file.layout == "peft" else "kohya"), dtype or file.dtype
    if energy is not None:
        ranks = ranks_for_energy(file, energy, on_progress)
    elif size is not None:
        ranks = ranks_for_size(file, room(file, size, layout, dtype), on_progress)
    else:
        ranks = {name: rank or file.rank(name) for name in file}
    pairs, losses = held(file, ranks, layout, dtype, on_progress)
    saved = writing.save(out, pairs, file.family, metadata=writing.header(file, pairs), layout=layout)
    return Made(saved, ranks, losses, file.left_out())
