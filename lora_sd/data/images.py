"""Picture files: checked without torch, and loaded as a tensor (3, H, W) in [-1, 1] cut to its bucket.

A picture of any usual kind is one upright RGB picture: EXIF orientation applied, transparency on white, the first frame of many.
"""

import contextlib
import stat
import threading
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..paths import shown
from .buckets import Fit, Size

if TYPE_CHECKING:
    from torch import Tensor

# Nothing else is decoded, whatever a file's name says: Pillow would start other programs for some kinds.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO", "PSD", "HEIF", "JXL")
ORIENTATION = 0x0112  # EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LONGEST = 100  # times as long as wide: enlarged to cover its bucket, a longer one would take gigabytes
LARGE = 40_000_000  # pixels; of such pictures only one is in memory at a time
alone = threading.Lock()

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of half the size that is refused


class Unfit(ValueError):
    """A picture that is not damaged and can't be trained on."""


def check(path: Path) -> Size:
    """The size (w, h) of the upright picture; decodes all of it, so that a damaged file is a ValueError here.

    JPEG is decoded at an eighth of its size, which reads all of the file and takes a quarter of the time.
    """
    with _opened(path) as image:
        size = image.size
        image.draft("RGB", (1, 1))
        image.load()
        return size[::-1] if _orientation(image) >= 5 else size


def size(path: Path) -> Size:
    """The size (w, h) of the upright picture, by its header alone. ValueError for a file that is no picture."""
    with _opened(path) as image:
        return image.size[::-1] if _orientation(image) >= 5 else image.size


def rgb(path: Path) -> Image.Image:
    """The upright picture in RGB, transparency on white."""
    with _opened(path) as image:
        return _upright(image)


def small(path: Path, side: int) -> Image.Image:
    """As `rgb`, reduced to at most `side` pixels; JPEG is decoded at about that size, which takes a quarter of the time."""
    with _opened(path) as image:
        image.draft("RGB", (side, side))
        picture = _upright(image)
    picture.thumbnail((side, side))
    return picture


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    turn = TURNS.get(_orientation(image))
    return _on_white(_eight_bit(image if turn is None else image.transpose(turn)))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A picture of a kind and size that is safe to decode. Whatever a decoder stumbles over is the file's fault."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for without end
            raise Unfit(f"{shown(path.name)} is not a file; remove it.")
        with Image.open(path, formats=_formats()) as image:
            _refuse(shown(path.name), image)
            with alone if image.width * image.height > LARGE else contextlib.nullcontext():
                yield image
    except Unfit:
        raise
    except Exception as error:
        raise ValueError(problem(path, error)) from error


@cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]  # some come with other packages


def _refuse(name: str, image: Image.Image) -> None:
    if image.mode == "F":
        raise Unfit(f"{name} has floating-point pixels; convert it to PNG.")
    if max(image.size) > LONGEST * min(image.size):
        raise Unfit(
            f"{name} is {image.width}×{image.height}, too long and narrow to learn from; crop or split it."
        )


def _orientation(image: Image.Image) -> int:
    """1 to 8 as EXIF counts; 1 is upright, and damaged EXIF says nothing."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # its pixels may be fine
        return 1
    return value if value in TURNS else 1


def load(path: Path, fit: Fit, *, flipped: bool = False) -> "Tensor":
    """The picture in its bucket, which then may be `flipped`: (3, H, W) float32 in [-1, 1]."""
    import torch

    left, top = fit.crop
    w, h = fit.bucket
    picture = rgb(path).resize(fit.resized, Image.Resampling.LANCZOS).crop((left, top, left + w, top + h))
    pixels = torch.from_numpy(np.array(picture))  # (H, W, 3)
    pixels = pixels.permute(2, 0, 1).float() / 127.5 - 1
    return pixels.flip(-1) if flipped else pixels


def load_mask(path: Path, fit: Fit, *, alpha: bool, flipped: bool = False, factor: int = 8) -> "Tensor":
    """How much of each cell of latents is to be learned, (1, H/factor, W/factor) float32 in [0, 1]: means of its pixels.

    Of a mask of its own the brightness tells, of a picture with transparency `alpha`.
    """
    import torch

    left, top = fit.crop
    w, h = fit.bucket
    mask = _alpha(path) if alpha else rgb(path).convert("L")
    mask = mask.resize(fit.resized, Image.Resampling.BILINEAR).crop((left, top, left + w, top + h))
    cells = torch.from_numpy(np.array(mask)).float().div(255)[None]  # (1, H, W)
    cells = cells.unflatten(2, (-1, factor)).unflatten(1, (-1, factor)).mean((2, 4))
    return cells.flip(-1) if flipped else cells


def _alpha(path: Path) -> Image.Image:
    """How opaque the upright picture is, in greys."""
    with _opened(path) as image:
        image.load()
        turn = TURNS.get(_orientation(image))
        upright = image if turn is None else image.transpose(turn)
        if not upright.has_transparency_data:
            return Image.new("L", upright.size, 255)
        return upright.convert("RGBA").getchannel("A")


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


def problem(path: Path, error: Exception) -> str:
    """What is wrong with a picture file, and what to do about it."""
    name, limit = shown(path.name), 2 * (Image.MAX_IMAGE_PIXELS or 0)
    match error:
        case Image.DecompressionBombError():
            return f"{name} has more than {limit / 1e6:.0f} megapixels, too many to open safely; make it smaller."
        case UnidentifiedImageError() if path.stat().st_size == 0:
            return f"{name} is empty (0 bytes); export it again or remove it."
        case UnidentifiedImageError():
            return f"{name} is not a picture that can be read; convert it to PNG or remove it."
        case OSError(errno=int()):
            return f"{name} can't be opened ({error.strerror}); check that it is there and may be read."
        case MemoryError():
            return f"{name} is too large for this computer's memory; make it smaller."
    return f"{name} is damaged or cut short; replace it or remove it."
