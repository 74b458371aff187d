"""The loss of training, and the same loss held still on pictures that are not trained on."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.family import Conditioning, Models
from . import diffusion


class Inputs(NamedTuple):
    """What the loss looks at, for B pictures."""

    latents: Tensor  # (B, 4, H/8, W/8), scaled
    conditioning: Conditioning
    sizes: Tensor  # (B, 6)


def denoising_loss(
    models: Models, inputs: Inputs, t: Tensor, noise: Tensor, *, min_snr: float = 0.0
) -> Tensor:
    """The squared error of the U-Net's prediction, one value per example (B,), weighed by Min-SNR where `min_snr` > 0."""
    alpha_bar = models.alpha_bar.to(inputs.latents.device)[t]
    noisy = diffusion.add_noise(inputs.latents, noise, alpha_bar)
    with models.autocast():
        prediction = models.predict(noisy.to(models.dtype), t, inputs.conditioning, inputs.sizes)
    target = diffusion.target(inputs.latents, noise, alpha_bar, models.prediction)
    loss = (prediction.float() - target.float()).square().mean((1, 2, 3))
    if min_snr:
        loss = loss * diffusion.min_snr_weight(alpha_bar, min_snr, models.prediction)
    return loss


HELD_OUT_T = (100, 300, 500, 700, 900)


@torch.no_grad()
def held_out_loss(models: Models, pictures: Iterable[Inputs], *, seed: int) -> float:
    """Mean unweighted loss over `pictures` (each of B = 1) at fixed timesteps and noise: only learning can change it."""
    losses = []
    for index, inputs in enumerate(pictures):
        shape = (len(HELD_OUT_T), *inputs.latents.shape[1:])
        noise = torch.randn(shape, generator=diffusion.generator(seed, index)).to(inputs.latents)
        t = torch.tensor(HELD_OUT_T, device=inputs.latents.device)
        repeated = Inputs(*(_repeat(part, len(HELD_OUT_T)) for part in inputs))
        losses.append(denoising_loss(models, repeated, t, noise).mean().item())
    return sum(losses) / len(losses)


def _repeat(part: Tensor | Conditioning, times: int) -> Tensor | Conditioning:
    if isinstance(part, Conditioning):
        return Conditioning(*(None if x is None else _repeat(x, times) for x in part))
    return part.expand(times, *part.shape[1:])
