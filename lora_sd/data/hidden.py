"""What of a picture an inpainting model is to paint: all of it, or a rectangle on the grid of its latents.

The masks are few and fixed for each picture, so that what is left of it can be encoded once. On the grid, since a mask in
latents then says exactly which pixels are hidden.
"""

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from .buckets import Fit, Size
from .folder import Example

if TYPE_CHECKING:
    from torch import Tensor

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the bucket

RECTANGLES = 3  # of each picture, beside all of it


def boxes(bucket: Size, grid: int, rng: random.Random, rectangles: int = RECTANGLES) -> list[Box]:
    """All of the picture, then rectangles with sides of a quarter of it to the whole; `grid` is pixels of one latent."""
    w, h = bucket
    return [(0, 0, w, h), *(_rectangle(w // grid, h // grid, grid, rng) for _ in range(rectangles))]


def _rectangle(columns: int, rows: int, grid: int, rng: random.Random) -> Box:
    (left, right), (top, bottom) = (_stretch(length, rng) for length in (columns, rows))
    return left * grid, top * grid, right * grid, bottom * grid


def _stretch(length: int, rng: random.Random) -> tuple[int, int]:
    part = rng.randint(max(1, length // 4), length)
    begin = rng.randint(0, length - part)
    return begin, begin + part


def hide(example: Example, box: Box) -> Example:
    """The picture without what is in the box."""
    return replace(example, hidden=box, mask=None)


def is_all(box: Box, fit: Fit) -> bool:
    """Whether nothing of the picture is left, so that it could be any."""
    return box == (0, 0, *fit.bucket)


def grey(pixels: "Tensor", box: Box) -> "Tensor":
    """A picture (3, H, W) in [-1, 1] with the box in middle grey."""
    left, top, right, bottom = box
    pixels = pixels.clone()
    pixels[:, top:bottom, left:right] = 0
    return pixels


def mask(box: Box, grid: int, latents: "Tensor") -> "Tensor":
    """The box as a mask (1, H/8, W/8) of 0 and 1 for latents (C, H/8, W/8)."""
    left, top, right, bottom = (side // grid for side in box)
    cells = latents.new_zeros(1, *latents.shape[1:])
    cells[:, top:bottom, left:right] = 1
    return cells
