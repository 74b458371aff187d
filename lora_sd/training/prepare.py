"""From a folder to what the loop draws batches from: pictures found, fitted to buckets, encoded once and kept on disk."""

import functools
import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..data import batches, buckets, cache, hidden, variants
from ..data.buckets import Fit
from ..data.cache import LatentCache, OnProgress, TextCache
from ..data.folder import Example
from ..length import Epoch
from ..models import text
from ..models.family import Conditioning, Models
from .feed import Part, Text
from .loss import Inputs
from .world import World

ALONE = World()
PLAIN_RULES = buckets.Rules()


@dataclass
class Dataset:
    """Pictures with their buckets; latents come from the cache. What chance draws is a function of `seed` and the showing."""

    examples: list[Example]
    fits: list[Fit]
    latents: LatentCache
    seed: int = 0
    crops: int = 1  # of each picture
    grid: int = 0  # of an inpainting model: pixels of one latent, a side; 0 where nothing is hidden
    rectangles: int = hidden.RECTANGLES  # that may be hidden of a picture, beside all of it

    @property
    def _buckets(self) -> list[buckets.Size]:
        return [fit.bucket for fit in self.fits]

    @property
    def _repeats(self) -> list[int]:
        return [example.repeats for example in self.examples]

    def batches_per_epoch(self, batch_size: int) -> int:
        return batches.batches_per_epoch(self._buckets, self._repeats, batch_size)

    def epoch(self, batch_size: int, accumulation: int) -> Epoch:
        """What an epoch comes to."""
        subjects = [example for example in self.examples if not example.prior]
        return Epoch(
            pictures=len(subjects),
            shown=sum(example.repeats for example in subjects),
            prior=sum(example.repeats for example in self.examples if example.prior),
            batches=self.batches_per_epoch(batch_size),
            batch_size=batch_size,
            accumulation=accumulation,
        )

    def endless(self, seed: int, batch_size: int, start: int = 0, world: World = ALONE) -> Iterator[Part]:
        """This process's parts of batches without end in the order of (seed, epoch), from batch number `start` on."""
        order = batches.batches(seed, self._buckets, self._repeats, batch_size, start=start)
        for number, (indices, shown) in enumerate(order, start):
            yield self.part(indices, shown, (world.rank + number) % world.size, world.size)

    def part(self, indices: list[int], shown: list[int], which: int = 0, of: int = 1) -> Part:
        """Every `of`-th example of a batch, from number `which` on; each was `shown` so often before."""
        positions = list(range(which, len(indices), of))
        batch = self.batch(indices[which::of], shown[which::of]) if positions else None
        return Part(batch, positions, len(indices))

    def shapes(self, seed: int, batch_size: int, world: World, num_chunks: dict[str, int]) -> Iterator[Part]:
        """One part of every shape that an epoch has: as many pictures, of one bucket, with captions as long.

        `num_chunks` has how many chunks of 77 tokens each caption is.
        """
        known = set()
        order = batches.batches(seed, self._buckets, self._repeats, batch_size)
        for indices, shown in itertools.islice(order, self.batches_per_epoch(batch_size)):
            for which in range(min(world.size, len(indices))):
                texts = map(self.text, indices[which :: world.size], shown[which :: world.size])
                lengths = [num_chunks[text] for text in texts]
                shape = (self.fits[indices[0]].bucket, len(lengths), max(lengths))
                if shape not in known:
                    known.add(shape)
                    yield self.part(indices, shown, which, world.size)

    def batch(self, indices: list[int], shown: list[int] | None = None) -> batches.Batch:
        """Pictures that were `shown` so often before; without it nothing is left to chance."""
        numbers = shown or [None] * len(indices)
        hides = list(map(self.hides, indices, numbers)) if self.grid else ()
        return batches.collate(list(map(self.view, indices, numbers)), self.latents, hides)

    def view(self, index: int, shown: int | None) -> cache.Item:
        """A picture that was `shown` so often before, as it is looked at; without it nothing is left to chance."""
        views = self.views(index)
        which = (
            0 if shown is None else random.Random(f"{self.seed}/{index}/view/{shown}").randrange(len(views))
        )
        example, fit = views[which]
        return replace(example, caption=self.text(index, shown)), fit

    def views(self, index: int) -> list[cache.Item]:
        """All that may be seen of a picture: at first the centre, then other crops of it, each also mirrored if it may be."""
        example, fit = self.examples[index], self.fits[index]
        rng = random.Random(f"{self.seed}/{example.path.name}")
        fits = dict.fromkeys([fit, *(fit.elsewhere(rng) for _ in range(self.crops - 1))])
        return [
            (replace(example, flipped=flipped), fit)
            for fit in fits
            for flipped in (False, True)[: 1 + example.flip]
        ]

    def hides(self, index: int, shown: int | None) -> hidden.Box:
        """What an inpainting model is to paint of a picture that was `shown` so often before; without it, all."""
        boxes = self.boxes(index)
        if shown is None:
            return boxes[0]
        return random.Random(f"{self.seed}/{index}/hidden/{shown}").choice(boxes)

    def boxes(self, index: int) -> list[hidden.Box]:
        """All that may be hidden of a picture, at first everything."""
        rng = random.Random(f"{self.seed}/{self.examples[index].path.name}/hidden")
        return hidden.boxes(self.fits[index].bucket, self.grid, rng, self.rectangles)

    def to_encode(self) -> list[cache.Item]:
        """Every picture, crop and side that may be seen, and of an inpainting model what is left of each; grey once a bucket."""
        views = [(index, *view) for index in range(len(self.examples)) for view in self.views(index)]
        seen = [(example, fit) for _, example, fit in views]
        if not self.grid:
            return seen
        left = [
            (hidden.hide(example, box), fit) for index, example, fit in views for box in self.boxes(index)
        ]
        grey = {fit.bucket: (example, fit) for example, fit in left if hidden.is_all(example.hidden, fit)}
        return [*seen, *(item for item in left if not hidden.is_all(item[0].hidden, item[1])), *grey.values()]

    def text(self, index: int, shown: int | None = None) -> str:
        """The caption of a picture that was `shown` so often before; without it nothing is left to chance."""
        example = self.examples[index]
        if shown is None:
            return variants.text(example.caption, example.wording)
        most = variants.num_variants(len(self.examples))
        return variants.drawn(example.caption, example.wording, self.seed, index, shown, most)

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
        """Every caption of what is to be learned once, nothing in it left to chance."""
        subjects = [index for index, example in enumerate(self.examples) if not example.prior]
        return list(dict.fromkeys(map(self.text, subjects)))

    def texts(self, num_batches: int, batch_size: int) -> list[str]:
        """Every text that so many batches show, once: of those that chance draws, at most variants.MOST_TEXTS."""
        epochs = -(-num_batches // self.batches_per_epoch(batch_size))
        most = variants.num_variants(len(self.examples))
        found = dict.fromkeys([""] if any(example.wording.dropout for example in self.examples) else [])
        for index, example in enumerate(self.examples):
            caption, wording = example.caption, example.wording
            times = min(epochs * example.repeats, most) if wording.varies(caption) else 1
            found |= dict.fromkeys(
                variants.variant(caption, wording, self.seed, index, number) for number in range(times)
            )
        return list(found)


def prepare(
    examples: list[Example],
    models: Models,
    resolution: int,
    folder: Path,
    *,
    rules: buckets.Rules = PLAIN_RULES,
    seed: int = 0,
    crops: int = 1,
    rectangles: int = hidden.RECTANGLES,
    on_progress: OnProgress | None = None,
    world: World = ALONE,
) -> Dataset:
    """Fit `examples` to buckets of `resolution`² area and encode those that the cache does not have yet."""
    sizes = [example.size for example in examples]
    fits = buckets.fits(sizes, resolution, models.family.bucket_step, rules)
    grid = models.vae_factor if models.extra_channels else 0
    dataset = Dataset(examples, fits, LatentCache(folder, models.vae), seed, crops, grid, rectangles)
    dataset.latents.fill(dataset.to_encode(), on_progress=on_progress, share=world.here)
    world.wait()
    return dataset


def held_out_inputs(
    dataset: Dataset, models: Models, text: Text, indices: Iterable[int]
) -> Iterator[tuple[int, Inputs]]:
    """Pictures of the dataset with their indices, one by one, with the mean of their latents."""
    for index in indices:
        batch = dataset.batch([index])
        states = tuple(tensor.to(models.device) for tensor in text.tensors(batch.captions))
        mean, sizes = batch.mean.to(models.device), batch.sizes.to(models.device)
        covered, beside = (
            None if part is None else part.to(models.device) for part in (batch.masks, batch.beside)
        )
        yield index, Inputs(mean, text.conditioning(states), sizes, masks=covered, beside=beside)


def cached_text(
    models: Models,
    captions: list[str],
    folder: Path,
    *,
    on_progress: OnProgress | None = None,
    world: World = ALONE,
) -> Text:
    """Text states from the disk: `captions` are encoded now, unless `folder` has them already."""
    states = TextCache(
        folder,
        text_identity(models),
        functools.partial(text.encode, models),
        num_chunks=functools.partial(text.num_chunks, models),
    )
    states.fill(captions, on_progress=on_progress, share=world.here)
    world.wait()
    return Text(
        tensors=lambda captions: tuple(found for found in states.load(captions) if found is not None),
        conditioning=lambda tensors: Conditioning(
            *tensors, *[None] * (len(Conditioning._fields) - len(tensors))
        ),
    )


def learning_text(models: Models) -> Text:
    """Text states made anew in every pass, for text encoders that learn."""
    return Text(
        tensors=functools.partial(text.tokenize, models), conditioning=functools.partial(text.states, models)
    )


def text_identity(models: Models) -> str:
    """What text states depend on besides the text: the encoders, their tokenizers' padding, and the layer taken."""
    encoders = [cache.identity(encoder) for encoder in models.text_encoders]
    weighted = " weighted" if models.weighted else ""
    padding = [tokenizer.pad_token_id for tokenizer in models.tokenizers]
    return f"{models.family.name} {encoders} {padding} {models.clip_skip} {models.dtype}{weighted}"
