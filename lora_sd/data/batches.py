"""Which pictures are looked at when: a function of (seed, epoch) alone, so that any step can be gone to directly."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import hidden
from .buckets import Fit, Size, batches_per_epoch, num_batches
from .cache import LatentCache
from .folder import Example


class Batch(NamedTuple):
    """Latents are kept as mean and std: each step draws its own sample of them."""

    mean: Tensor  # (B, 4, H/8, W/8)
    std: Tensor  # (B, 4, H/8, W/8)
    captions: list[str]
    sizes: Tensor  # (B, 6) pixels: original h, w, crop top, left, target h, w
    weights: Tensor  # (B,)
    masks: Tensor | None = (
        None  # (B, 1, H/8, W/8) in [0, 1]: how much of each cell is to be learned; None where it is all
    )
    beside: Tensor | None = None  # (B, 5, H/8, W/8): what an inpainting model is to paint, and what it sees


def epoch_order(
    seed: int, epoch: int, buckets: Sequence[Size], repeats: Sequence[int], batch_size: int
) -> list[list[int]]:
    """The batches of an epoch as indices: each of one bucket, each index `repeats` times.

    The batches of a bucket are filled evenly (5 pictures at batch size 4 are 3 + 2), so that no picture of a
    short last batch weighs as much as a whole batch.
    """
    rng = random.Random(f"{seed}/{epoch}")
    by_bucket: dict[Size, list[int]] = {}
    for index, (bucket, times) in enumerate(zip(buckets, repeats, strict=True)):
        by_bucket.setdefault(bucket, []).extend([index] * times)
    batches = []
    for indices in by_bucket.values():
        rng.shuffle(indices)
        count = num_batches(len(indices), batch_size)
        batches += [indices[start::count] for start in range(count)]
    rng.shuffle(batches)
    return batches


def batches(
    seed: int, buckets: Sequence[Size], repeats: Sequence[int], batch_size: int, start: int = 0
) -> Iterator[tuple[list[int], list[int]]]:
    """Batches without end from the `start`-th on, each with how often each of its pictures was shown before."""
    epoch, passed = divmod(start, batches_per_epoch(buckets, repeats, batch_size))
    while True:
        order = epoch_order(seed, epoch, buckets, repeats, batch_size)
        yield from list(zip(order, _shown_before(order, epoch, repeats), strict=True))[passed:]
        epoch, passed = epoch + 1, 0


def _shown_before(order: list[list[int]], epoch: int, repeats: Sequence[int]) -> Iterator[list[int]]:
    counts = Counter({index: epoch * times for index, times in enumerate(repeats)})
    for batch in order:
        shown = []
        for index in batch:
            shown.append(counts[index])
            counts[index] += 1
        yield shown


def collate(
    items: Sequence[tuple[Example, Fit]], latents: LatentCache, hides: Sequence[hidden.Box] = ()
) -> Batch:
    """One batch of cached pictures, on the CPU; `hides` is what of each an inpainting model is to paint."""
    means, stds = zip(*(latents.load(example, fit) for example, fit in items), strict=True)
    return Batch(
        mean=torch.stack(means),
        std=torch.stack(stds),
        captions=[example.caption for example, _ in items],
        sizes=torch.tensor([_time_ids(*item) for item in items], dtype=torch.float32),
        weights=torch.tensor([example.weight for example, _ in items]),
        masks=_masks(items, latents) if any(example.mask for example, _ in items) else None,
        beside=torch.stack([_beside(*seen, latents) for seen in zip(items, hides, strict=True)])
        if hides
        else None,
    )


def _beside(item: tuple[Example, Fit], box: hidden.Box, latents: LatentCache) -> Tensor:
    """The mask of the box, and the mean of the latents of what is left, without the small deviation of the VAE."""
    example, fit = item
    mean, _ = latents.load(hidden.hide(example, box), fit)
    return torch.cat([hidden.mask(box, fit.bucket[0] // mean.shape[2], mean), mean])


def _masks(items: Sequence[tuple[Example, Fit]], latents: LatentCache) -> Tensor:
    found = [latents.mask(example, fit) if example.mask else None for example, fit in items]
    whole = torch.ones_like(next(mask for mask in found if mask is not None))
    return torch.stack([whole if mask is None else mask for mask in found])


def _time_ids(example: Example, fit: Fit) -> tuple[int, ...]:
    return (fit.mirrored() if example.flipped else fit).time_ids(example.size)
