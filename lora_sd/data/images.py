"""Picture files: checked without torch, and loaded as a tensor (3, H, W) in [-1, 1] cut to its bucket.

Any file that Pillow reads is one upright RGB picture: EXIF orientation applied, transparency on white, the first frame of many.
"""

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .buckets import Fit, Size

if TYPE_CHECKING:
    from torch import Tensor

ORIENTATION = 0x0112  # EXIF tag; values from 5 on exchange width and height
BAD_FILE = (OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError, KeyError, struct.error)


def check(path: Path) -> Size:
    """The size (w, h) of the upright picture; decodes all of it, so that a damaged file is a ValueError here.

    JPEG is decoded at an eighth of its size, which reads all of the file and takes a quarter of the time.
    """
    try:
        with Image.open(path) as image:
            upright = image.size[::-1] if image.getexif().get(ORIENTATION, 1) >= 5 else image.size
            image.draft("RGB", (1, 1))
            image.load()
            _refuse_floats(image)
    except (Image.DecompressionBombError, *BAD_FILE) as error:
        raise ValueError(problem(path, error)) from error
    return upright


def rgb(path: Path) -> Image.Image:
    """The upright picture in RGB, transparency on white."""
    try:
        with Image.open(path) as image:
            _refuse_floats(image)
            upright = ImageOps.exif_transpose(image)
            return _on_white(_eight_bit(upright))
    except (Image.DecompressionBombError, *BAD_FILE) as error:
        raise ValueError(problem(path, error)) from error


def load(path: Path, fit: Fit) -> "Tensor":
    """The picture in its bucket: (3, H, W) float32 in [-1, 1]."""
    import torch

    left, top = fit.crop
    w, h = fit.bucket
    picture = rgb(path).resize(fit.resized, Image.Resampling.LANCZOS).crop((left, top, left + w, top + h))
    pixels = torch.from_numpy(np.array(picture))  # (H, W, 3)
    return pixels.permute(2, 0, 1).float() / 127.5 - 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit greyscale scaled to 8 bits; Pillow's own conversion would clip it to white."""
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.float32) / 257).round().clip(0, 255).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    picture = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _refuse_floats(image: Image.Image) -> None:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")


def problem(path: Path, error: Exception) -> str:
    """What is wrong with a picture file, and what to do about it."""
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    match error:
        case Image.DecompressionBombError():
            return f"{path.name} has more than {limit / 1e6:.0f} megapixels, too many to open safely; make it smaller."
        case FileNotFoundError() | PermissionError():
            return f"{path.name} can't be opened ({error.strerror}); check that it is there and may be read."
        case UnidentifiedImageError() if path.stat().st_size == 0:
            return f"{path.name} is empty (0 bytes); export it again or remove it."
        case UnidentifiedImageError():
            return f"{path.name} is not a picture that can be read; convert it to PNG or remove it."
    return f"{path.name} is damaged ({error}); replace it or remove it."
