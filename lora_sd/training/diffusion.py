"""The diffusion process: how noise is mixed in, what the U-Net is asked for, and how each noise level is weighed.

ᾱ is the cumulative product of 1 − β (arXiv:2006.11239, section 2); SNR = ᾱ / (1 − ᾱ). Functions take ᾱ of each example, (B,).
"""

import hashlib
import struct
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


def over(alpha_bar: Tensor, x: Tensor) -> Tensor:
    """`alpha_bar` (B,) shaped to multiply `x` (B, C, H, W)."""
    return alpha_bar.to(x).view(-1, *[1] * (x.ndim - 1))


def add_noise(latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = √ᾱ·x₀ + √(1 − ᾱ)·noise (arXiv:2006.11239, eq. 4)."""
    a = over(alpha_bar, latents)
    return a.sqrt() * latents + (1 - a).sqrt() * noise


def target(latents: Tensor, noise: Tensor, alpha_bar: Tensor, prediction: str) -> Tensor:
    """What the U-Net should answer: the noise, or the velocity v = √ᾱ·noise − √(1 − ᾱ)·x₀ (arXiv:2202.00512)."""
    if prediction == "epsilon":
        return noise
    a = over(alpha_bar, latents)
    return a.sqrt() * noise - (1 - a).sqrt() * latents


def snr(alpha_bar: Tensor) -> Tensor:
    return alpha_bar / (1 - alpha_bar)


def min_snr_weight(alpha_bar: Tensor, gamma: float, prediction: str) -> Tensor:
    """min(SNR, γ) / SNR for noise (arXiv:2303.09556, section 3.4), min(SNR, γ) / (SNR + 1) for velocity.

    The velocity loss is (SNR + 1) times the x₀ loss, hence its + 1. At SNR 0 the weight for noise is its limit, 1.
    """
    ratio = snr(alpha_bar)
    if prediction == "epsilon":
        return torch.where(ratio > 0, ratio.clamp(max=gamma) / ratio.clamp(min=1e-12), torch.ones_like(ratio))
    return ratio.clamp(max=gamma) / (ratio + 1)


def soft_min_snr_weight(alpha_bar: Tensor, gamma: float, prediction: str) -> Tensor:
    """Min-SNR without its corner: on x₀ it is SNR·γ / (SNR + γ) where that is min(SNR, γ) (arXiv:2401.11605)."""
    ratio = snr(alpha_bar)
    if prediction == "epsilon":
        return gamma / (ratio + gamma)
    return ratio * gamma / ((ratio + gamma) * (ratio + 1))


def debiased_weight(alpha_bar: Tensor, prediction: str) -> Tensor:
    """1 / √SNR for noise (arXiv:2310.08442), 1 / (SNR + 1) for velocity; SNR is held within 1000 and its inverse.

    No noise level of the usual schedule is below; one without any signal would weigh infinitely.
    """
    ratio = snr(alpha_bar).clamp(max=1000)
    if prediction == "epsilon":
        return ratio.clamp(min=1 / 1000).rsqrt()
    return 1 / (ratio + 1)


class Draw(NamedTuple):
    """The random part of training on some examples."""

    t: Tensor  # (B,) int64
    noise: Tensor  # (B, C, H, W)
    posterior: Tensor  # (B, C, H, W): picks a sample of the VAE's Gaussian, mean + std · posterior


def draw(seed: int, step: int, indices: Iterable[int], shape: tuple[int, ...], timesteps: int) -> Draw:
    """A function of (seed, step, index in the global batch) only, so that resume, batch splits and previews change nothing.

    `indices` are the examples' places in the global batch; `shape` is (C, H, W) of their latents.
    """
    rows = [_draw_one(generator(seed, step, index), shape, timesteps) for index in indices]
    return Draw(*(torch.stack(column) for column in zip(*rows, strict=True)))


def _draw_one(rng: torch.Generator, shape: tuple[int, ...], timesteps: int) -> tuple[Tensor, Tensor, Tensor]:
    t = torch.randint(timesteps, (), generator=rng)
    return t, torch.randn(shape, generator=rng), torch.randn(shape, generator=rng)


def generator(*key: int) -> torch.Generator:
    """A CPU generator seeded by the whole key: neighbouring keys give unrelated numbers."""
    digest = hashlib.blake2b(struct.pack(f"<{len(key)}q", *key), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
