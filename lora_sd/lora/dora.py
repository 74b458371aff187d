"""DoRA (arXiv:2402.09353): how large each channel's weights are is learnt by itself, W' = m · (W + ΔW) / ‖W + ΔW‖.

Channels are those of the outputs, as in PEFT, diffusers and LyCORIS, or of the inputs, the paper's columns, as in A1111,
ComfyUI and Forge. The shape of m tells which: (out, 1, …) or (1, in, …).
"""

from typing import Literal

import torch
from torch import Tensor

from .pairs import Factors, LowRank, delta_weight

Axis = Literal["output", "input"]
SMALLEST = 1e-30  # of a square: a channel of zeros stays one


def axis_of(magnitude: Tensor, weight: Tensor) -> Axis:
    return "output" if magnitude.shape[:2] == (len(weight), 1) else "input"


def squares(weight: Tensor, axis: Axis) -> Tensor:
    """Σ W² of each channel, fp32, shaped to multiply the weight."""
    kept = 0 if axis == "output" else 1
    return weight.float().square().sum([dim for dim in range(weight.dim()) if dim != kept], keepdim=True)


def root(squares: Tensor) -> Tensor:
    return squares.clamp(min=SMALLEST).sqrt()


@torch.no_grad()
def norm(weight: Tensor, adapter: LowRank) -> Tensor:
    """‖W + ΔW‖ of each channel at strength 1, shaped like m; W + ΔW itself is never made."""
    axis = axis_of(adapter.magnitude, weight)
    more = _growth(weight, adapter.factors(weight.dtype), adapter.scale, axis)
    return root(adapter.base_squares + more.view_as(adapter.base_squares))


def _growth(weight: Tensor, factors: Factors, scale: float, axis: Axis) -> Tensor:
    """Σ (W + ΔW)² − Σ W² = Σ (2 W + ΔW) ∘ ΔW of each channel, with ΔW = scale · up down; fp32, flat."""
    w, down, up = weight.flatten(1), factors.down.flatten(1), factors.up.flatten(1)
    if axis == "output":
        along, down, up = (w @ down.T).float(), down.float(), up.float()  # (out, rank)
        return scale * ((2 * along + scale * up @ (down @ down.T)) * up).sum(1)
    along, down, up = (up.T @ w).float(), down.float(), up.float()  # (rank, in · k · k)
    each = scale * ((2 * along + scale * (up.T @ up) @ down) * down).sum(0)
    return each.view(weight.shape[1], -1).sum(1)


def gain(weight: Tensor, adapter: LowRank) -> Tensor:
    """m / ‖W + ΔW‖, shaped like m; the norm is a constant for the gradient (section 4.3)."""
    return adapter.magnitude / norm(weight, adapter)


def change(weight: Tensor, adapter: LowRank) -> Tensor:
    """What an adapter adds to a layer's weight at its strength, fp32 and shaped like it: strength · ΔW, or of a DoRA · (W' − W)."""
    delta = delta_weight(adapter.pair).view_as(weight)
    if adapter.magnitude is not None:
        delta = gain(weight, adapter) * (weight.float() + delta) - weight.float()
    return adapter.strength * delta
