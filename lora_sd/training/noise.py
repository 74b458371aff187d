"""What noise an example gets: an offset and a pyramid on it, how much of it is mixed in, and what the input alone gets.

All of it is a function of (seed, step, place in the global batch) and of that example alone. Each kind draws from a
generator of its own, so none of them changes what the others, or `diffusion.draw`, draw.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .diffusion import generator

OFFSET, PYRAMID, PERTURBATION, TIMESTEP = range(4)  # the last number of a generator's key
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
    min_timestep: int = 0
    max_timestep: int = 1000
    density: str = "uniform"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    shift: float = 1.0


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


def timesteps(t: Tensor, keys: Sequence[Key], how: Noise) -> Tensor:
    """The noise levels (B,) of examples: `t`, which are uniform over all, or drawn anew as `how` wants them."""
    wants = (how.min_timestep, how.max_timestep, how.density, how.shift)
    if wants == (PLAIN.min_timestep, PLAIN.max_timestep, PLAIN.density, PLAIN.shift):
        return t
    shares = torch.stack([_share(generator(*key, TIMESTEP), how) for key in keys])
    count = how.max_timestep - how.min_timestep
    return how.min_timestep + (count * shares).long().clamp(max=count - 1)


def _share(rng: torch.Generator, how: Noise) -> Tensor:
    """How far in the range a timestep lies, 0 … 1: σ(mean + std · randn) or u, then s·u / (1 + (s − 1)·u).

    Logit-normal and shift are those of arXiv:2403.03206, sections 3.1 and 5.3.2.
    """
    if how.density == "logit_normal":
        u = torch.sigmoid(how.logit_mean + how.logit_std * torch.randn((), generator=rng))
    else:
        u = torch.rand((), generator=rng)
    return how.shift * u / (1 + (how.shift - 1) * u)


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
