"""What can be told of a picture before it is trained on: how sharp it is, and which others are nearly the same.

fingerprint = signs of the 8 × 8 lowest frequencies of the grey picture about their median (pHash, Zauner 2010, section 3.2.1)
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image

SIDE = 512  # pixels: sharpness is told of pictures reduced to it
ALIKE = 6  # bits of 64 in which fingerprints of nearly the same picture differ at most
BLURRED = 40.0  # a sharpness below it may be blur, or a picture of few edges


def fingerprint(picture: Image.Image) -> int:
    """64 bits that stay when a picture is resized, recompressed or a little brighter."""
    grey = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    low = (_cosines() @ grey @ _cosines().T)[:8, :8].ravel().round(3)  # of a plain picture nothing is left
    low[0] = np.median(low[1:])  # the mean brightness tells nothing
    return int.from_bytes(np.packbits(low > low[0]).tobytes())


@cache
def _cosines() -> np.ndarray:
    """The discrete cosine transform of 32 values as a matrix (32, 32)."""
    k, n = np.arange(32)[:, None], np.arange(32)[None]
    return np.cos(np.pi * k * (2 * n + 1) / 64)


def sharpness(picture: Image.Image) -> float:
    """The variance of the Laplacian of the grey picture, 0 for one without edges."""
    grey = np.asarray(picture.convert("L"), np.float32)
    if min(grey.shape) < 3:
        return 0.0
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return float(laplacian.var())


def alike(fingerprints: Sequence[int]) -> list[list[int]]:
    """Groups of indices of nearly the same pictures, the first of each in front.

    >>> alike([0b0, 0b111, ~0 & (1 << 64) - 1, 0b1])
    [[0, 1, 3]]
    """
    groups: list[list[int]] = []
    for index, mine in enumerate(fingerprints):
        for group in groups:
            if (fingerprints[group[0]] ^ mine).bit_count() <= ALIKE:
                group.append(index)
                break
        else:
            groups.append([index])
    return [group for group in groups if len(group) > 1]
