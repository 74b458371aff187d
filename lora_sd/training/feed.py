"""What one forward and backward pass looks at, all as tensors: made on the CPU from a batch and the step's random numbers."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.batches import Batch
from ..models.family import Conditioning
from . import diffusion


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
    masks: Tensor | None = None  # (B, 1, H/8, W/8) as in a Batch

    def tensors(self) -> tuple[Tensor, ...]:
        masks = () if self.masks is None else (self.masks,)
        return (*self[:5], *self.text, *masks)

    def to(self, device: torch.device) -> "Feed":
        moved = [tensor.to(device) for tensor in self[:5]]
        text = tuple(tensor.to(device) for tensor in self.text)
        return Feed(*moved, text, None if self.masks is None else self.masks.to(device))

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(tensor.shape) for tensor in self.tensors())


def feeds(parts: Iterable[Part], text: Text, *, seed: int, step: int, num_timesteps: int) -> Iterator[Feed]:
    """The feeds of a step from this process's parts of its batches.

    The loss of a step is the mean over all its examples, whatever way they fell into batches and processes.
    """
    parts = list(parts)
    total, first = sum(part.count for part in parts), 0
    for part in parts:
        if part.batch is not None:
            indices = [first + position for position in part.positions]
            random = diffusion.draw(seed, step, indices, tuple(part.batch.mean.shape[1:]), num_timesteps)
            yield Feed(
                latents=part.batch.mean + part.batch.std * random.posterior,
                noise=random.noise,
                t=random.t,
                sizes=part.batch.sizes,
                shares=part.batch.weights / total,
                text=text.tensors(part.batch.captions),
                masks=part.batch.masks,
            )
        first += part.count
