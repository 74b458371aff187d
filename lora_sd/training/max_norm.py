"""Max-norm: no layer's update grows beyond a limit, so that a LoRA does not burn and mixes with others (kohya's scale_weight_norms)."""

from collections.abc import Iterable

import torch
from torch import Tensor

from ..lora.pairs import LowRank


@torch.no_grad()
def limit_norms(adapters: Iterable[LowRank], limit: float) -> None:
    """Make every (alpha / rank) · up @ down whose Frobenius norm is above the limit that large; doesn't wait for the device.

    Both matrices take half of it, or `up` all where `down` does not learn.
    """
    adapters = list(adapters)
    norms = torch.stack([_norm(adapter) for adapter in adapters])
    ratios = limit / norms.clamp(min=limit)
    for adapter, ratio, root in zip(adapters, ratios, ratios.sqrt(), strict=True):
        if adapter.down.requires_grad:
            adapter.down.mul_(root)
        adapter.up.mul_(root if adapter.down.requires_grad else ratio)


def _norm(adapter: LowRank) -> Tensor:
    """() of the update, from rank × rank matrices: ‖up down‖² = Σ upᵀup ∘ down downᵀ."""
    down, up = adapter.down.flatten(1), adapter.up.flatten(1)
    square = ((up.T @ up) * (down @ down.T)).sum().clamp(min=0)
    return adapter.alpha / len(down) * square.sqrt()
