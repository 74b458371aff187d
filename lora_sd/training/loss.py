"""The loss of training, and the same loss held still on pictures that are not trained on."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ..lora import layers
from ..models.family import Conditioning, Models
from . import criteria, diffusion


class Inputs(NamedTuple):
    """What the loss looks at, for B pictures."""

    latents: Tensor  # (B, 4, H/8, W/8), scaled
    conditioning: Conditioning
    sizes: Tensor  # (B, 6)
    perturbation: Tensor | None = None  # (B, 4, H/8, W/8): what the input's noise has more than the target's
    text_of_base: Conditioning | None = None  # what the base alone reads, where that is something else
    masks: Tensor | None = None  # (B, 1, H/8, W/8) in [0, 1]; None to learn all of the pictures
    beside: Tensor | None = None  # (B, 5, H/8, W/8): what an inpainting model is to paint, and what it sees


class Loss(NamedTuple):
    """How errors count, as the settings of that name have it; as it stands here, squared and alike at every noise level."""

    weighting: str = "min_snr"
    min_snr: float = 0.0
    kind: str = "l2"
    huber_c: float = 0.1
    huber_schedule: str = "snr"
    huber_scale: float = 1.0
    keep_base: float = 0.0


PLAIN = Loss()


def denoising_loss(models: Models, inputs: Inputs, t: Tensor, noise: Tensor, how: Loss = PLAIN) -> Tensor:
    """The error of the U-Net's prediction, one value per example (B,), as `how` weighs it.

    Where the base is to be kept, `keep_base` times the error against the base's own prediction is added before that:
    prior preservation (arXiv:2208.12242) without pictures made for it.
    """
    alpha_bar = models.alpha_bar[t]
    mixed_in = noise if inputs.perturbation is None else noise + inputs.perturbation
    noisy = diffusion.add_noise(inputs.latents, mixed_in, alpha_bar).to(models.dtype)
    base = _prediction_of_base(models, inputs, noisy, t) if how.keep_base else None
    prediction = models.predict(noisy, t, inputs.conditioning, inputs.sizes, inputs.beside).float()
    target = diffusion.target(inputs.latents, noise, alpha_bar, models.prediction)
    c = _threshold(models.alpha_bar, t, how) if how.kind in ("huber", "smooth_l1") else None
    error = criteria.error(prediction - target.float(), how.kind, c)
    if base is not None:
        error = error + how.keep_base * criteria.error(prediction - base, how.kind, c)
    return _weighed(mean(error, inputs.masks), alpha_bar, models.prediction, how)


@torch.no_grad()
def _prediction_of_base(models: Models, inputs: Inputs, noisy: Tensor, t: Tensor) -> Tensor:
    with layers.adapters_off(models.parts()):
        text = inputs.text_of_base or inputs.conditioning
        return models.predict(noisy, t, text, inputs.sizes, inputs.beside).float()


def _threshold(alpha_bars: Tensor, t: Tensor, how: Loss) -> Tensor:
    share = t / len(alpha_bars)
    return criteria.threshold(
        alpha_bars[t], share, schedule=how.huber_schedule, c=how.huber_c, scale=how.huber_scale
    )


def _weighed(loss: Tensor, alpha_bar: Tensor, prediction: str, how: Loss) -> Tensor:
    if how.weighting == "debiased":
        return loss * diffusion.debiased_weight(alpha_bar, prediction)
    if not how.min_snr:
        return loss
    soft = how.weighting == "soft_min_snr"
    weight = diffusion.soft_min_snr_weight if soft else diffusion.min_snr_weight
    return loss * weight(alpha_bar, how.min_snr, prediction)


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
    if isinstance(part, Conditioning):
        return Conditioning(*(_repeat(x, times) for x in part))
    return None if part is None else part.expand(times, *part.shape[1:])
