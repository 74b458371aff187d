"""WD taggers: the words of a list that fit a picture, as an ONNX model that knows 10,000 of them rates them.

A picture goes in as float32 BGR 0…255, (B, H, W, 3), padded with white to a square of the model's size; out comes a
probability for each line of selected_tags.csv, whose category says what kind of word it is.
"""

import csv
import io
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..data import captions
from ..models.captioners import ONNX, TAGS
from ..paths import shown

INSTALL = "onnxruntime is not installed, and the tagger needs it; install it with: pip install onnxruntime"
GENERAL, CHARACTER, RATING = 0, 4, 9  # categories
# Faces made of signs, in which an underscore is no space.
FACES = frozenset(
    "0_0 (o)_(o) +_+ +_- ._. <o>_<o> <|>_<|> =_= >_< 3_3 6_9 >_o @_@ ^_^ o_o u_u x_x |_| ||_||".split()
)
PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}  # device -> its name in onnxruntime


class Tag(NamedTuple):
    name: str
    category: int


class Tagger:
    """The model of a folder, loaded on "auto", "cuda" or "cpu".

    Words that are as probable as `threshold` are taken, of characters those as probable as `character_threshold`; never
    ratings, nor those of `without`.
    """

    def __init__(
        self,
        folder: Path,
        device: str = "auto",
        *,
        threshold: float = 0.35,
        character_threshold: float = 0.85,
        without: Collection[str] = (),
    ) -> None:
        self.tags = read_tags(folder / TAGS)
        self.session = _session(folder / ONNX, device)
        [entry, *_] = self.session.get_inputs()
        self.input, shape = entry.name, entry.shape
        if len(shape) != 4 or shape[3] != 3 or not isinstance(shape[1], int) or shape[1] != shape[2]:
            raise ValueError(
                f"{shown(folder / ONNX)} takes pictures as {shape}, which no WD tagger does; choose another model."
            )
        self.side = shape[1]  # pixels
        self.fixed = isinstance(shape[0], int)  # some are made for one picture at a time
        self.at_once = shape[0] if self.fixed else 4
        self.least = {GENERAL: threshold, CHARACTER: character_threshold}
        self.without = {name.casefold() for name in map(plain, without)}

    def __call__(self, pictures: list[Image.Image]) -> list[str]:
        """The tags of each RGB picture, the most probable first: `"1girl, long hair, o_o"`."""
        missing = self.at_once - len(pictures) if self.fixed else 0
        shown_to_it = [*pictures, *pictures[:1] * missing]
        inputs = np.stack([prepared(picture, self.side) for picture in shown_to_it])
        [rated, *_] = self.session.run(None, {self.input: inputs})  # (B, tags)
        if rated.shape[1] != len(self.tags):
            raise ValueError(
                f"{TAGS} has {len(self.tags):,} tags and {ONNX} knows {rated.shape[1]:,}; they are of two models: "
                "get both from one place."
            )
        return [", ".join(self._chosen(row)) for row in rated[: len(pictures)]]

    def _chosen(self, rated: np.ndarray) -> list[str]:
        kept = [
            (float(rating), plain(tag.name))
            for tag, rating in zip(self.tags, rated, strict=True)
            if rating >= self.least.get(tag.category, np.inf)
        ]
        names = [name for _, name in sorted(kept, key=lambda pair: -pair[0])]
        return [name for name in names if name.casefold() not in self.without]


def prepared(picture: Image.Image, side: int) -> np.ndarray:
    """An RGB picture on a white square, (side, side, 3) float32 BGR in [0, 255]."""
    longest = max(picture.size)
    square = Image.new("RGB", (longest, longest), "white")
    square.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
    if longest != side:
        square = square.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(square, np.float32)[:, :, ::-1]


def plain(tag: str) -> str:
    """The tag as a person writes it.

    >>> plain("long_hair"), plain("o_o")
    ('long hair', 'o_o')
    """
    name = " ".join(tag.split())
    return name if name in FACES else name.replace("_", " ")


def read_tags(path: Path) -> list[Tag]:
    """The lines of selected_tags.csv: tag_id, name, category, count. ValueError for a file that is none."""
    text, _ = captions.decoded(path)
    try:
        tags = [Tag(row["name"], int(row["category"])) for row in csv.DictReader(io.StringIO(text))]
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise ValueError(
            f"{shown(path)} is no list of tags with a name and a category each; download the model again."
        ) from error
    if not tags:
        raise ValueError(f"{shown(path)} has no tags in it; download the model again.")
    return tags


def _session(path: Path, device: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(f"{INSTALL}, or pip install -e .[tagger].") from error
    there = onnxruntime.get_available_providers()
    if device == "cuda" and PROVIDERS["cuda"] not in there:
        raise ValueError(
            "The installed onnxruntime is made for the processor only; choose --device cpu, or install onnxruntime-gpu instead."
        )
    wanted = [PROVIDERS["cpu"]] if device == "cpu" else list(PROVIDERS.values())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; what it can't use it says otherwise, too
    try:
        return onnxruntime.InferenceSession(
            path, options, providers=[name for name in wanted if name in there]
        )
    except Exception as error:  # it has a dozen kinds for what is wrong in a file
        raise ValueError(
            f"{shown(path)} is damaged or no model that onnxruntime reads; download it again."
        ) from error
