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
    masks: Tensor | None = None  # (B, 1, H/8, W/8) in [0, 1]; None to learn all of the pictures


def denoising_loss(
    models: Models, inputs: Inputs, t: Tensor, noise: Tensor, *, min_snr: float = 0.0
) -> Tensor:
    """The squared error of the U-Net's prediction, one value per example (B,), weighed by Min-SNR where `min_snr` > 0."""
    alpha_bar = models.alpha_bar[t]
    noisy = diffusion.add_noise(inputs.latents, noise, alpha_bar)
    prediction = models.predict(noisy.to(models.dtype), t, inputs.conditioning, inputs.sizes)
    target = diffusion.target(inputs.latents, noise, alpha_bar, models.prediction)
    loss = mean((prediction.float() - target.float()).square(), inputs.masks)
    if min_snr:
        loss = loss * diffusion.min_snr_weight(alpha_bar, min_snr, models.prediction)
    return loss


def mean(errors: Tensor, masks: Tensor | None) -> Tensor:
    """The mean of each example's `errors` (B, C, H, W) over what its mask (B, 1, H, W) covers, however little: (B,)."""
    if masks is None:
        return errors.mean((1, 2, 3))
    covered = masks.expand_as(errors).sum((1, 2, 3))
    return (errors * masks).sum((1, 2, 3)) / covered.clamp(min=1e-6)  # 0 for a mask that covers nothing


HELD_OUT_T = (100, 300, 500, 700, 900)


@torch.no_grad()
def held_out_losses(
    models: Models, pictures: Iterable[tuple[int, Inputs]], *, seed: int, at_once: int = len(HELD_OUT_T)
) -> list[float]:
    """The unweighted loss of each picture (its index, and inputs of B = 1) at fixed timesteps and noise.

    Only learning can change it. `at_once` is how many of the timesteps go through the U-Net together.
    """
    return [
        _held_out_loss(models, inputs, diffusion.generator(seed, index), at_once)
        for index, inputs in pictures
    ]


def _held_out_loss(models: Models, inputs: Inputs, rng: torch.Generator, at_once: int) -> float:
    noise = torch.randn((len(HELD_OUT_T), *inputs.latents.shape[1:]), generator=rng).to(inputs.latents)
    t = torch.tensor(HELD_OUT_T, device=inputs.latents.device)
    losses = [
        denoising_loss(models, Inputs(*(_repeat(part, len(some)) for part in inputs)), some, noise_of_some)
        for some, noise_of_some in zip(t.split(at_once), noise.split(at_once), strict=True)
    ]
    return torch.cat(losses).mean().item()


def _repeat(part: Tensor | Conditioning | None, times: int) -> Tensor | Conditioning | None:
    if part is None:
        return None
    if isinstance(part, Conditioning):
        return Conditioning(*(_repeat(x, times) for x in part))
    return part.expand(times, *part.shape[1:])
