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
    magnitude: Tensor | None = None  # (out, 1, …) or (1, in, …), of a DoRA

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(tensor for tensor in (self.down, self.up, self.magnitude) if tensor is not None)

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
        self.magnitude = None if pair.magnitude is None else nn.Parameter(pair.magnitude.float())
        self.register_buffer("base_squares", None, persistent=False)  # of a DoRA: Σ W² of each channel
        # of PiSSA: where both matrices began; what learns is the way from there
        self.register_buffer("first_down", None)
        self.register_buffer("first_up", None)
        self.alpha = pair.alpha
        self.strength = strength
        self.dropout: LayerDropout | None = None  # while it learns, if at all
        self.copies: Factors | None = None  # in half precision, while someone keeps them equal to down and up

    @property
    def pair(self) -> Pair:
        magnitude = None if self.magnitude is None else self.magnitude.detach()
        down, up = self._from_first(self.down.detach(), self.up.detach())
        return Pair(down, up, self.alpha * (len(down) // len(self.down)), magnitude)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that it consists of, live: `down`, `up`, and what else it has."""
        return tuple(self.state_dict().values())

    def begin_at(self, first: Factors) -> None:
        """Let ΔW be what up · down differs by from the product of these."""
        self.first_down, self.first_up = (tensor.to(self.down.device) for tensor in first)

    def _from_first(self, down: Tensor, up: Tensor) -> Factors:
        """ΔW as one product, of twice the rank: (U₀ + u)(D₀ + d) − U₀ D₀ = u (D₀ + d) + U₀ d.

        Its terms are as small as ΔW is, so that half precision rounds what was learnt and not what it began with.
        """
        if self.first_down is None:
            return Factors(down, up)
        return Factors(torch.cat([self.first_down + down, down]), torch.cat([up, self.first_up], 1))

    @property
    def learnt(self) -> dict[str, nn.Parameter]:
        """What training changes, by its name here."""
        return {name: p for name, p in self.named_parameters(recurse=False) if p.requires_grad}

    @property
    def scale(self) -> float:
        """On up(down(x)). The strength of a DoRA is on all that it changes instead, magnitudes too."""
        return (self.strength if self.magnitude is None else 1) * self.alpha / self.down.shape[0]

    @property
    def dropping(self) -> LayerDropout | None:
        """The dropout, while it acts."""
        return self.dropout if self.dropout and self.dropout.shared.acts else None

    def factors(self, dtype: torch.dtype) -> Factors:
        """(down, up) in the number format of a layer's input."""
        down, up = self._from_first(*(self.copies or (self.down, self.up)))
        return Factors(down.to(dtype), up.to(dtype))
