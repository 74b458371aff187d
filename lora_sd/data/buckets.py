"""Aspect-ratio buckets: a few picture sizes of about equal area, so that a batch is one rectangle. Sizes are (w, h).

A picture is enlarged or reduced until it covers its bucket, then cropped at the centre.
"""

import random
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

Size = tuple[int, int]  # (w, h) in pixels
MUCH_CROPPED = 0.25  # share of a picture that is worth a word


class Fit(NamedTuple):
    """How a picture becomes its bucket: resized, then cropped."""

    bucket: Size
    resized: Size
    crop: tuple[int, int]  # (left, top) in pixels of the resized picture

    @property
    def cropped_away(self) -> float:
        """Share of the picture's area that is not seen in training, 0 to 1."""
        return 1 - (self.bucket[0] * self.bucket[1]) / (self.resized[0] * self.resized[1])

    def mirrored(self) -> "Fit":
        """Where the same crop lies in the mirrored picture."""
        (w, _), (resized_w, _), (left, top) = self
        return self._replace(crop=(resized_w - w - left, top))

    def elsewhere(self, rng: random.Random) -> "Fit":
        """The crop at another place, any of them as likely."""
        (w, h), (resized_w, resized_h), _ = self
        return self._replace(crop=(rng.randint(0, resized_w - w), rng.randint(0, resized_h - h)))

    def time_ids(self, original_size: Size) -> tuple[int, int, int, int, int, int]:
        """SDXL's size conditions: original h, w, the crop that was really applied as top, left, target h, w."""
        (original_w, original_h), (left, top), (w, h) = original_size, self.crop, self.bucket
        return original_h, original_w, top, left, h, w


class Rules(NamedTuple):
    """What a person wants of the buckets; None is as the resolution and the family have it."""

    step: int | None = None
    smallest: int | None = None  # side
    largest: int | None = None
    shapes: bool = True  # off: every picture is cropped to a square
    enlarge: bool = True


def fits(sizes: Iterable[Size], resolution: int, family_step: int, rules: Rules) -> list[Fit]:
    """Where each picture of these sizes comes to lie."""
    step = rules.step or step_for(resolution, family_step)
    smallest = resolution // 2 if rules.smallest is None else rules.smallest
    largest = 2 * resolution if rules.largest is None else rules.largest
    buckets = make_buckets(resolution, step=step, smallest=smallest, largest=largest)
    if not rules.shapes:
        buckets = [(resolution // step * step,) * 2]

    def placed(size: Size) -> Fit:
        usual = fit(size, nearest(size, buckets))
        own = (min(size[0], largest) // step * step, min(size[1], largest) // step * step)
        keeps = usual.resized[0] > size[0] and not rules.enlarge and rules.shapes and min(own) >= smallest
        return fit(size, own) if keeps else usual

    return list(map(placed, sizes))


def batches_per_epoch(buckets: Iterable[Size], repeats: Iterable[int], batch_size: int) -> int:
    """How many batches an epoch has: each is of one bucket, and each picture in as many as it is repeated."""
    counts: Counter[Size] = Counter()
    for bucket, times in zip(buckets, repeats, strict=True):
        counts[bucket] += times
    return sum(num_batches(count, batch_size) for count in counts.values())


def num_batches(num_pictures: int, batch_size: int) -> int:
    return -(-num_pictures // batch_size)


def step_for(resolution: int, family_step: int) -> int:
    """The family's bucket step, or a finer one where the resolution is small: at most an eighth of it.

    >>> step_for(512, 64), step_for(1024, 32), step_for(128, 64)
    (64, 32, 16)
    """
    return min(family_step, max(8, resolution // 64 * 8))


def make_buckets(
    resolution: int, *, step: int, smallest: int | None = None, largest: int | None = None
) -> list[Size]:
    """Sizes in steps of `step` with at most the area of `resolution` squared, sides from `smallest` to `largest`.

    Sides run from half to twice the resolution unless given: 256 to 1024 at 512.
    """
    smallest = _multiple_above(resolution // 2 if smallest is None else smallest, step)
    largest = (2 * resolution if largest is None else largest) // step * step
    square = resolution // step * step
    if not 0 < smallest <= square <= largest:
        raise ValueError(
            f"The resolution is {resolution}; with sides in steps of {step} it must be between {max(smallest, step)} "
            f"and {largest}."
        )
    buckets = {(square, square)}
    for w in range(smallest, largest + 1, step):
        h = min(resolution * resolution // w // step * step, largest)
        if h >= smallest:
            buckets |= {(w, h), (h, w)}
    return sorted(buckets)


def _multiple_above(value: int, step: int) -> int:
    return -(-value // step) * step


def nearest(size: Size, buckets: list[Size]) -> Size:
    """The bucket of the same size, else the one with the nearest aspect ratio by |log ratio|.

    The logarithm treats portrait and landscape alike: mirrored pictures get mirrored buckets.
    """
    return size if size in buckets else min(buckets, key=lambda bucket: _distance(size, bucket))


def _distance(size: Size, bucket: Size) -> tuple[float, int, int]:
    """Sorts as |log ratio| does; equally near buckets by area, then by how square they are."""
    a, b = bucket[0] * size[1], bucket[1] * size[0]
    return max(a, b) / min(a, b), -bucket[0] * bucket[1], max(bucket)


def fit(size: Size, bucket: Size) -> Fit:
    """The picture scaled, without distortion, to cover the bucket, and the centre crop that is left of it.

    >>> fit((1920, 1080), (640, 384))
    Fit(bucket=(640, 384), resized=(683, 384), crop=(21, 0))
    """
    (w, h), (bucket_w, bucket_h) = size, bucket
    if w * bucket_h > bucket_w * h:  # wider than the bucket
        resized = (_rounded(w * bucket_h, h), bucket_h)
    else:
        resized = (bucket_w, _rounded(h * bucket_w, w))
    return Fit(bucket, resized, ((resized[0] - bucket_w) // 2, (resized[1] - bucket_h) // 2))


def _rounded(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)


def notes(pictures: Iterable[tuple[str, Size, Fit]]) -> list[str]:
    """What a person should know of how these (name, original size, fit) are trained: enlarged, much cropped."""
    said, enlarged = [], []
    for name, (w, h), placed in pictures:
        if placed.resized[0] > w:
            enlarged.append(f"{name} ({w}×{h})")
        if placed.cropped_away > MUCH_CROPPED:
            bucket_w, bucket_h = placed.bucket
            said.append(
                f"{name} is {w}×{h} and trains as {bucket_w}×{bucket_h}: {placed.cropped_away:.0%} of it is cropped away. "
                "Crop or split it yourself to choose what is kept."
            )
    if enlarged:
        said.append(f"Smaller than the training size, so enlarged and softer: {listed(enlarged)}.")
    return said


def listed(names: list[str], limit: int = 5) -> str:
    """The first few names, and how many more there are.

    >>> listed(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")
