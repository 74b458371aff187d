"""How near pictures are to the training pictures, by the base model's own eyes: nothing else has to be downloaded.

look   mean and deviation of each channel of the U-Net's second up block, for the picture with a little noise and no words
       (features of a diffusion model, arXiv:2306.03881): colours, lines and textures, not where they are
copy   the picture's latents at 16 × 16: where everything is

Both are distances to the nearest training picture, in units of how far a training picture usually is from its nearest
other one: 1 is as near as the pictures of the set are to each other, 0 is the same picture.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .models import text
from .models.family import Models

SIDE = 512  # pixels at most that are looked at
CELLS = 16  # of the latents, a side
T = 0.2  # of the noise schedule
BLOCK = 1  # of unet.up_blocks
FEW = 3  # pictures: with fewer there is no usual distance
LEAST_SPREAD = 0.1  # of the mean deviation: a channel that never changes in the set would count without end


class Seen(NamedTuple):
    """What is compared of n pictures."""

    look: Tensor  # (n, 2 · channels)
    place: Tensor  # (n, 4 · CELLS²)
    mirrored: Tensor  # the same of the mirrored pictures


@torch.no_grad()
def see(models: Models, pictures: Sequence[Image.Image]) -> Seen:
    """What is compared of the pictures; no LoRA may be on the model."""
    condition = text.encode(models, [""])
    each = [_see(models, picture, condition) for picture in pictures]
    return Seen(*(torch.stack(parts) for parts in zip(*each, strict=True)))


def _see(models: Models, picture: Image.Image, condition: object) -> tuple[Tensor, Tensor, Tensor]:
    side = min(SIDE, models.resolution)
    latents = _latents(models, picture, side)
    mirrored = _latents(models, ImageOps.mirror(picture), side)
    return _look(models, latents, side, condition), _place(latents), _place(mirrored)


def _latents(models: Models, picture: Image.Image, side: int) -> Tensor:
    """The middle of the picture as scaled latents, (1, 4, side / 8, side / 8) in fp32."""
    square = ImageOps.fit(picture.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float() / 127.5 - 1
    mean = models.vae.encode(pixels.to(models.vae.device)).latent_dist.mean
    return mean * models.vae.config.scaling_factor


def _place(latents: Tensor) -> Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(latents, CELLS).flatten().cpu()


def _look(models: Models, latents: Tensor, side: int, condition: object) -> Tensor:
    """Mean and deviation of the channels that the block gives, with the same noise for every picture."""
    t = torch.tensor([round(T * (len(models.alpha_bar) - 1))], device=models.device)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(latents)
    a = models.alpha_bar[t].to(latents.device)
    noisy = (a.sqrt() * latents + (1 - a).sqrt() * noise).to(models.device, models.dtype)
    beside = None
    if models.extra_channels:  # an inpainting model, which is to paint all of it
        beside = torch.cat([torch.ones_like(noisy[:, :1]), torch.zeros_like(noisy)], 1)
    sizes = torch.tensor([[side, side, 0, 0, side, side]], device=models.device)
    seen: list[Tensor] = []
    hook = models.unet.up_blocks[BLOCK].register_forward_hook(lambda _, __, out: seen.append(out.float()))
    try:
        models.predict(noisy, t, condition, sizes, beside)
    finally:
        hook.remove()
    [features] = seen
    return torch.cat([features.mean((2, 3)), features.std((2, 3))], 1)[0].cpu()


class Usual(NamedTuple):
    """The training pictures, and how far each usually is from its nearest other."""

    seen: Seen
    spread: Tensor  # of each number of a look
    look: float
    place: float


def usual(seen: Seen) -> Usual:
    """What distances are measured in. ValueError for a set that has no distances."""
    if len(seen.look) < FEW:
        raise ValueError(f"{len(seen.look)} training pictures are too few to compare with; it takes {FEW}.")
    spread = seen.look.std(0)
    spread = spread.clamp_min(LEAST_SPREAD * spread.mean())
    look = _to_nearest(seen.look / spread, seen.look / spread, others=True).median().item()
    place = _to_nearest(seen.place, seen.place, others=True).median().item()
    if not (look and place):
        raise ValueError(
            "Most training pictures are there twice, so there is no usual distance between them."
        )
    return Usual(seen, spread, look, place)


def looks(pictures: Seen, known: Usual) -> list[float]:
    """How far each is from the look of the training pictures."""
    return (_to_nearest(pictures.look / known.spread, known.seen.look / known.spread) / known.look).tolist()


def places(pictures: Seen, known: Usual) -> list[float]:
    """How far each is from being one of the training pictures, mirrored or not."""
    all_of_them = torch.cat([known.seen.place, known.seen.mirrored])
    return (_to_nearest(pictures.place, all_of_them) / known.place).tolist()


def _to_nearest(points: Tensor, to: Tensor, *, others: bool = False) -> Tensor:
    """Euclidean distance of each point to the nearest; `others`: not to itself, in the same place of the list."""
    distances = torch.cdist(points, to)
    if others:
        distances.fill_diagonal_(torch.inf)
    return distances.min(1).values
