"""From a folder to what the loop draws batches from: pictures found, fitted to buckets, encoded once and kept on disk."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ..data import batches, buckets, cache
from ..data.buckets import Fit
from ..data.cache import LatentCache, OnProgress, TextCache
from ..data.folder import Example
from ..models.family import Conditioning, Models
from .loss import Inputs


@dataclass
class Dataset:
    """Pictures with their buckets; latents come from the cache."""

    examples: list[Example]
    fits: list[Fit]
    latents: LatentCache

    @property
    def _buckets(self) -> list[buckets.Size]:
        return [fit.bucket for fit in self.fits]

    @property
    def _repeats(self) -> list[int]:
        return [example.repeats for example in self.examples]

    def batches_per_epoch(self, batch_size: int) -> int:
        return batches.batches_per_epoch(self._buckets, self._repeats, batch_size)

    def endless(self, seed: int, batch_size: int, start: int = 0) -> Iterator[batches.Batch]:
        """Batches without end in the order of (seed, epoch), from batch number `start` on."""
        for _, indices in batches.batches(seed, self._buckets, self._repeats, batch_size, start=start):
            yield self.batch(indices)

    def batch(self, indices: list[int]) -> batches.Batch:
        return batches.collate([(self.examples[i], self.fits[i]) for i in indices], self.latents)

    def bucket_counts(self) -> dict[buckets.Size, int]:
        """Pictures of each bucket in an epoch."""
        counts = Counter()
        for bucket, times in zip(self._buckets, self._repeats, strict=True):
            counts[bucket] += times
        return dict(counts)

    def notes(self) -> list[str]:
        """What fitting does to pictures that is worth knowing: much enlarged, or much cropped away."""
        return buckets.notes(
            (e.path.name, e.size, fit) for e, fit in zip(self.examples, self.fits, strict=True)
        )

    def captions(self) -> list[str]:
        return list(dict.fromkeys(example.caption for example in self.examples))


def prepare(
    examples: list[Example],
    models: Models,
    resolution: int,
    folder: Path,
    *,
    on_progress: OnProgress | None = None,
) -> Dataset:
    """Fit `examples` to buckets of `resolution`² area and encode those that the cache does not have yet."""
    step = buckets.step_for(resolution, models.family.bucket_step)
    sizes = buckets.make_buckets(resolution, step=step)
    fits = [buckets.fit(example.size, buckets.nearest(example.size, sizes)) for example in examples]
    latents = LatentCache(folder, models.vae)
    latents.fill(list(zip(examples, fits, strict=True)), on_progress=on_progress)
    return Dataset(examples, fits, latents)


def split(examples: list[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """(to train on, to hold out): at least one of each where `share` is not 0; which ones is a function of `seed`."""
    count = min(len(examples) - 1, max(1, round(share * len(examples)))) if share else 0
    if share and count < 1:
        raise ValueError(
            f"validate.split is {share:g} of {len(examples)} picture; add pictures or set it to 0."
        )
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed)).tolist()
    held = set(order[:count])
    return [e for i, e in enumerate(examples) if i not in held], [
        e for i, e in enumerate(examples) if i in held
    ]


def held_out_inputs(
    dataset: Dataset, models: Models, condition: Callable[[list[str]], Conditioning]
) -> Iterator[Inputs]:
    """The dataset's pictures one by one, with the mean of their latents."""
    for index in range(len(dataset.examples)):
        batch = dataset.batch([index])
        yield Inputs(batch.mean.to(models.device), condition(batch.captions), batch.sizes.to(models.device))


def to_device(condition: Conditioning, models: Models) -> Conditioning:
    return Conditioning(*(None if x is None else x.to(models.device) for x in condition))


def cached_text(
    models: Models,
    captions: list[str],
    folder: Path,
    encode: Callable[[list[str]], Conditioning],
    *,
    on_progress: OnProgress | None = None,
) -> Callable[[list[str]], Conditioning]:
    """`encode`, from the disk: `captions` are encoded now, unless `folder` has them already."""
    states = TextCache(folder, text_identity(models), encode)
    states.fill(captions, on_progress=on_progress)
    return lambda wanted: to_device(states.load(wanted), models)


def text_identity(models: Models) -> str:
    """What text states depend on besides the text: the encoders, their tokenizers' padding, and the layer taken."""
    encoders = [cache.identity(encoder) for encoder in models.text_encoders]
    padding = [tokenizer.pad_token_id for tokenizer in models.tokenizers]
    return f"{models.family.name} {encoders} {padding} {models.clip_skip} {models.dtype}"
