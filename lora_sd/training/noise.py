"""What can be done to an example's noise before it is mixed in: an offset, then a pyramid; and what its input alone gets.

All of it is a function of (seed, step, place in the global batch) and of that example alone. Each kind draws from a
generator of its own, so none of them changes what the others, or `diffusion.draw`, draw.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .diffusion import generator

OFFSET, PYRAMID, PERTURBATION = range(3)  # the last number of a generator's key
Key = tuple[int, int, int]  # of an example: seed, step, place in the global batch


class Noise(NamedTuple):
    """How the noise of a run is made, as the settings of that name have it; as it stands here, plainly."""

    offset: float = 0.0
    offset_random: bool = False
    offset_adaptive: float = 0.0
    pyramid: int = 0
    pyramid_discount: float = 0.3
    perturbation: float = 0.0
    perturbation_random: bool = False


PLAIN = Noise()


def shaped(noise: Tensor, latents: Tensor, keys: Sequence[Key], how: Noise) -> Tensor:
    """The noise (B, C, H, W) of examples as `how` wants it, which is what the U-Net is to find."""
    if how.offset or how.offset_adaptive:
        offsets = [
            offset(example, generator(*key, OFFSET), how) for example, key in zip(latents, keys, strict=True)
        ]
        noise = noise + torch.stack(offsets)
    if how.pyramid:
        levels = [
            pyramid(example, generator(*key, PYRAMID), how.pyramid, how.pyramid_discount)
            for example, key in zip(noise, keys, strict=True)
        ]
        noise = torch.stack(levels)
    return noise


def offset(latents: Tensor, rng: torch.Generator, how: Noise) -> Tensor:
    """One number for each channel, (C, 1, 1): o · randn (https://www.crosslabs.org/blog/diffusion-with-offset-noise).

    Drawn anew, o is up to `offset`; adaptive, it grows with the mean of the channel's latents, and is never below 0.
    """
    share = torch.rand((), generator=rng) if how.offset_random else 1.0
    strength = share * how.offset + how.offset_adaptive * latents.mean((1, 2), keepdim=True).abs()
    return strength.clamp(min=0) * torch.randn(len(latents), 1, 1, generator=rng)


def pyramid(noise: Tensor, rng: torch.Generator, levels: int, discount: float) -> Tensor:
    """noise (C, H, W) + Σ discountⁱ · randn of a side shrunk by rᵢⁱ with rᵢ from 2 to 4, enlarged; its deviation is 1 again.

    https://wandb.ai/johnowhitaker/multires_noise/reports/Multi-Resolution-Noise-for-Diffusion-Model-Training--VmlldzozNjYyOTU2
    Level 0 is as fine as the noise itself, and one of a single row is the last.
    """
    height, width = noise.shape[1:]
    for level in range(levels):
        shrink = (2 + 2 * torch.rand((), generator=rng).item()) ** level
        size = (max(1, int(height / shrink)), max(1, int(width / shrink)))
        coarse = torch.randn(1, len(noise), *size, generator=rng)
        noise = noise + discount**level * F.interpolate(coarse, (height, width), mode="bilinear")[0]
        if 1 in size:
            break
    return noise / noise.std()


def perturbation(shape: tuple[int, ...], keys: Sequence[Key], how: Noise) -> Tensor | None:
    """What is added to the noise in the U-Net's input but not in its target, γ · randn (arXiv:2301.11706).

    `shape` is (C, H, W) of the examples; None where nothing is added.
    """
    if not how.perturbation:
        return None
    rows = []
    for key in keys:
        rng = generator(*key, PERTURBATION)
        share = torch.rand((), generator=rng) if how.perturbation_random else 1.0
        rows.append(share * how.perturbation * torch.randn(shape, generator=rng))
    return torch.stack(rows)
