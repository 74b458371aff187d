"""How much an error counts, number by number: its square, its size, or something between the two.

Huber and smooth L1 are here the smooth ones (pseudo-Huber) with a threshold c, below which errors count by their
square and above it by their size (arXiv:2403.16728): far-off pictures then pull less.
"""

import torch
from torch import Tensor


def error(difference: Tensor, kind: str, c: Tensor | None) -> Tensor:
    """What the differences d (B, C, H, W) count: d², |d|, 2c·(√(d² + c²) − c), or for smooth L1 that without its c.

    `c` (B,) is the threshold of each example, for the two kinds that have one.
    """
    if kind == "l2":
        return difference.square()
    if kind == "l1":
        return difference.abs()
    c = c.to(difference).view(-1, *[1] * (difference.ndim - 1))
    smooth = 2 * ((difference.square() + c.square()).sqrt() - c)
    return c * smooth if kind == "huber" else smooth


def threshold(alpha_bar: Tensor, share: Tensor, *, schedule: str, c: float, scale: float) -> Tensor:
    """The threshold (B,) of noise levels: from `scale` where there is no noise to c · scale where there is nothing else.

    `share` is t / T. By signal-to-noise ratio it is (1 − c) / (1 + σ)² + c with σ = √((1 − ᾱ) / ᾱ), exponentially cᵗᐟᵀ,
    constantly c.
    """
    if schedule == "constant":
        found = torch.full_like(share, c)
    elif schedule == "exponential":
        found = c**share
    else:
        sigma = ((1 - alpha_bar) / alpha_bar).sqrt()  # infinite where no signal is left, which gives c
        found = (1 - c) / (1 + sigma).square() + c
    return scale * found
