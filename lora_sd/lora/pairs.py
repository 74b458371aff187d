"""One layer's adapter: as data (`Pair`, what a file holds for it), and as what learns and multiplies (`LowRank`)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .dropout import LayerDropout


class Pair(NamedTuple):
    """One layer's adapter as data: what a LoRA file holds for it."""

    down: Tensor  # (rank, in) or (rank, in, k, k)
    up: Tensor  # (out, rank) or (out, rank, 1, 1)
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]


def delta_weight(pair: Pair) -> Tensor:
    """The update as one matrix (out, in · k · k), fp32: (alpha / rank) · up @ down."""
    return (pair.alpha / pair.rank) * (pair.up.float().flatten(1) @ pair.down.float().flatten(1))


class Factors(NamedTuple):
    """What a layer multiplies with: `down` and `up` in its own number format."""

    down: Tensor
    up: Tensor


class LowRank(nn.Module):
    """One named adapter of one layer, in fp32; `strength` scales it whenever the layer runs."""

    def __init__(self, name: str, pair: Pair, strength: float = 1.0):
        super().__init__()
        self.name = name
        self.down = nn.Parameter(pair.down.float())
        self.up = nn.Parameter(pair.up.float())
        self.alpha = pair.alpha
        self.strength = strength
        self.dropout: LayerDropout | None = None  # while it learns, if at all
        self.copies: Factors | None = None  # in half precision, while someone keeps them equal to down and up

    @property
    def pair(self) -> Pair:
        return Pair(self.down.detach(), self.up.detach(), self.alpha)

    @property
    def learnt(self) -> dict[str, nn.Parameter]:
        """What training changes, by its name here."""
        return {name: p for name, p in self.named_parameters(recurse=False) if p.requires_grad}

    @property
    def scale(self) -> float:
        return self.strength * self.alpha / self.down.shape[0]

    @property
    def dropping(self) -> LayerDropout | None:
        """The dropout, while it acts."""
        return self.dropout if self.dropout and self.dropout.shared.acts else None

    def factors(self, dtype: torch.dtype) -> Factors:
        """(down, up) in the number format of a layer's input."""
        down, up = self.copies or (self.down, self.up)
        return Factors(down.to(dtype), up.to(dtype))
