"""What one forward and backward pass looks at, all as tensors: made on the CPU from a batch and the step's random numbers."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.batches import Batch
from ..models.family import Conditioning
from . import diffusion, noise
from .noise import PLAIN, Noise


class Text(NamedTuple):
    """How captions become conditions, in two steps: what is prepared on the CPU, and what the device makes of that."""

    tensors: Callable[
        [list[str]], tuple[Tensor, ...]
    ]  # cached states, or the token ids of each encoder that learns
    conditioning: Callable[[tuple[Tensor, ...]], Conditioning]


class Part(NamedTuple):
    """What one process sees of a batch."""

    batch: Batch | None  # None where there are more processes than examples
    positions: list[int]  # of its examples in the batch
    count: int  # examples in the whole batch


class Feed(NamedTuple):
    latents: Tensor  # (B, 4, H/8, W/8), scaled: a sample of the VAE's Gaussian
    noise: Tensor  # (B, 4, H/8, W/8)
    t: Tensor  # (B,) int64
    sizes: Tensor  # (B, 6)
    shares: Tensor  # (B,) of each example in the step's mean loss: weight / examples in the step
    text: tuple[Tensor, ...]  # as Text.tensors gives it
    perturbation: Tensor | None = None  # (B, 4, H/8, W/8): what the input's noise has more than the target's
    masks: Tensor | None = None  # (B, 1, H/8, W/8) as in a Batch
    beside: Tensor | None = None  # (B, 5, H/8, W/8) as in a Batch

    def tensors(self) -> tuple[Tensor, ...]:
        parts = (part if isinstance(part, tuple) else (part,) for part in self)
        return tuple(tensor for part in parts for tensor in part if tensor is not None)

    def to(self, device: torch.device) -> "Feed":
        return Feed(*(_moved(part, device) for part in self))

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(tensor.shape) for tensor in self.tensors())


def _moved(part: Tensor | tuple[Tensor, ...] | None, device: torch.device) -> Any:
    if isinstance(part, tuple):
        return tuple(tensor.to(device) for tensor in part)
    return None if part is None else part.to(device)


def feeds(
    parts: Iterable[Part], text: Text, *, seed: int, step: int, num_timesteps: int, how: Noise = PLAIN
) -> Iterator[Feed]:
    """The feeds of a step from this process's parts of its batches.

    The loss of a step is the mean over all its examples, whatever way they fell into batches and processes.
    """
    parts = list(parts)
    total, first = sum(part.count for part in parts), 0
    for part in parts:
        if part.batch is not None:
            indices = [first + position for position in part.positions]
            shape, keys = tuple(part.batch.mean.shape[1:]), [(seed, step, index) for index in indices]
            random = diffusion.draw(seed, step, indices, shape, num_timesteps)
            latents = part.batch.mean + part.batch.std * random.posterior
            yield Feed(
                latents=latents,
                noise=noise.shaped(random.noise, latents, keys, how),
                t=noise.timesteps(random.t, keys, how),
                sizes=part.batch.sizes,
                shares=part.batch.weights / total,
                text=text.tensors(part.batch.captions),
                perturbation=noise.perturbation(shape, keys, how),
                masks=part.batch.masks,
                beside=part.batch.beside,
            )
        first += part.count
