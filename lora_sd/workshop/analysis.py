"""What a LoRA does and how much of its rank it uses: the singular values of every layer, and what follows from them.

‖ΔW‖² adds up over layers, so that "rank k keeps 99 %" is a share of the whole update, each layer cut to its best k.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..lora import blocks
from ..lora.pairs import Pair
from ..models.family import Family
from ..paths import shown
from .lora_file import LoraFile, open_lora
from .spectra import effective_rank, energies, rank_for, singular_values

ENOUGH = 0.99  # of ‖ΔW‖²: what "uses about 6" means; a tenth of ‖ΔW‖ is lost
OnProgress = Callable[[int, int], None]  # layers done, of how many


def counted(layers: Collection[str], on_progress: OnProgress | None) -> Iterator[str]:
    """The layers one by one, with the progress told."""
    for done, layer in enumerate(layers, 1):
        yield layer
        if on_progress:
            on_progress(done, len(layers))


@dataclass(frozen=True)
class Layer:
    name: str
    block: str
    rank: int
    alpha: float
    values: Tensor  # singular values of ΔW, falling, fp64
    cost: int  # numbers that one unit of rank takes: in · k · k + out

    @property
    def norm(self) -> float:
        """‖ΔW‖, Frobenius."""
        return self.values.norm().item()

    @property
    def effective_rank(self) -> float:
        return effective_rank(self.values)

    def rank_for(self, energy: float) -> int:
        return rank_for(self.values, energy)


class Block(NamedTuple):
    layers: int
    norm: float
    share: float  # of ‖ΔW‖² of the whole LoRA
    effective_rank: float  # mean over its layers
    rank_for: int  # that keeps ENOUGH of the block


@dataclass(frozen=True)
class Analysis:
    layers: list[Layer]

    @property
    def rank(self) -> int:
        return max(layer.rank for layer in self.layers)

    @property
    def norm(self) -> float:
        return sum(layer.norm**2 for layer in self.layers) ** 0.5

    def energies(self) -> Tensor:
        """The share of ‖ΔW‖² that is kept when every layer is cut to rank 1, 2, 3 …"""
        return energies(_joint(self.layers))

    def rank_for(self, energy: float = ENOUGH) -> int:
        """The one rank for all layers that keeps this share of the whole."""
        return rank_for(_joint(self.layers), energy)

    def numbers(self, rank: int | None = None) -> int:
        """How many numbers down and up have, at most `rank` a layer."""
        return sum(layer.cost * min(rank or layer.rank, layer.rank) for layer in self.layers)

    def by_block(self) -> dict[str, Block]:
        whole, found = self.norm**2, {}
        for name in sorted({layer.block for layer in self.layers}, key=blocks.order):
            own = [layer for layer in self.layers if layer.block == name]
            energy = sum(layer.norm**2 for layer in own)
            mean = sum(layer.effective_rank for layer in own) / len(own)
            share = energy / whole if whole else 0.0
            found[name] = Block(len(own), energy**0.5, share, mean, rank_for(_joint(own), ENOUGH))
        return found


def _joint(layers: list[Layer]) -> Tensor:
    """√ of the sum over layers of their σᵢ², i = 1, 2 …: its squares are what each unit of rank keeps."""
    squares = torch.zeros(max(len(layer.values) for layer in layers), dtype=torch.float64)
    for layer in layers:
        squares[: len(layer.values)] += layer.values.square()
    return squares.sqrt()


def analyse(pairs: Mapping[str, Pair], family: Family, on_progress: OnProgress | None = None) -> Analysis:
    return Analysis([_layer(name, pairs[name], family) for name in counted(pairs, on_progress)])


def _layer(name: str, pair: Pair, family: Family) -> Layer:
    return Layer(
        name=name,
        block=blocks.block_of(name, family),
        rank=pair.rank,
        alpha=pair.alpha,
        values=singular_values(pair),
        cost=pair.down[0].numel() + pair.up.shape[0],
    )


@dataclass(frozen=True)
class Report:
    """The analysis of a file; `str()` of it is for people."""

    path: Path
    size: int  # bytes
    stored: int  # bytes of that which are numbers of the layers
    width: int  # bytes of a number
    analysis: Analysis
    left_out: tuple[str, ...] = ()  # what the file has besides

    def size_at(self, rank: int) -> int:
        """Bytes of the file if it were a plain LoRA with every layer cut to this rank."""
        return self.size - self.stored + self.analysis.numbers(rank) * self.width

    def sentence(self) -> str:
        rank, used = self.analysis.rank, self.analysis.rank_for()
        told = f"This rank-{rank} LoRA uses about {used}: rank {used} keeps {ENOUGH:.0%} of its energy"
        if used == rank:
            return f"{told}, so that none can be spared."
        return f"{told} and would take {self.size_at(used) / 1e6:.1f} MB instead of {self.size / 1e6:.1f} MB."

    def lines(self, *, layers: bool = False) -> list[str]:
        found, shares = self.analysis, self.analysis.energies()
        lines = [shown(self.path.name), f"  {self.sentence()}", "", "  rank   energy kept   size"]
        for rank in [r for r in _doubled(found.rank) if r <= len(shares)]:
            lines.append(f"  {rank:>4}   {shares[rank - 1]:>11.2%}   {self.size_at(rank) / 1e6:.1f} MB")
        lines += [f"  {sentence}" for sentence in self.left_out]
        lines += ["", "  block   layers   ‖ΔW‖       share    effective rank   rank for 99 %"]
        for name, b in found.by_block().items():
            lines.append(
                f"  {name:7} {b.layers:>6}   {b.norm:<8.4g}  {b.share:>6.1%}  {b.effective_rank:>15.1f}  {b.rank_for:>14}"
            )
        if layers:
            lines += ["", "  rank   alpha   ‖ΔW‖       effective rank   rank for 99 %   layer"]
            lines += [
                f"  {x.rank:>4}  {x.alpha:>6g}   {x.norm:<8.4g}  {x.effective_rank:>15.1f}  {x.rank_for(ENOUGH):>14}   {x.name}"
                for x in found.layers
            ]
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def table(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        found = self.analysis
        return {
            "file": self.path.name,
            "bytes": self.size,
            "rank": found.rank,
            "norm": found.norm,
            "uses": found.rank_for(),
            "uses_bytes": self.size_at(found.rank_for()),
            "energy_kept": found.energies().tolist(),
            "bytes_at": [self.size_at(rank) for rank in range(1, found.rank + 1)],
            "blocks": {name: block._asdict() for name, block in found.by_block().items()},
            "layers": {
                x.name: {
                    "block": x.block,
                    "rank": x.rank,
                    "alpha": x.alpha,
                    "norm": x.norm,
                    "effective_rank": x.effective_rank,
                    "singular_values": x.values.tolist(),
                }
                for x in found.layers
            },
        }


def _doubled(rank: int) -> list[int]:
    """1, 2, 4 … and the rank itself."""
    return sorted({2**n for n in range(rank.bit_length())} | {rank})


def analyse_file(
    path: str | Path, *, family: str | None = None, on_progress: OnProgress | None = None
) -> Report:
    """Every layer's spectrum, of a LoRA file of any layout; needs no base model."""
    file: LoraFile = open_lora(path, family)
    analysis = analyse(file, file.family, on_progress)
    width = file.dtype.itemsize
    return Report(
        path=file.path,
        size=file.path.stat().st_size,
        stored=file.numbers() * width,
        width=width,
        analysis=analysis,
        left_out=file.left_out(),
    )
