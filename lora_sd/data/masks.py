"""Masks from a folder: pictures in black and white, each named as the one that it is for, that say what is learned of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..paths import shown, typed
from . import captions, images
from .buckets import listed
from .folder import SUFFIXES, Example, names

SAME_SHAPE = 0.02  # relative difference of aspect ratios that rounding may make


def with_masks(examples: list[Example], folder: str, on_note: Callable[[str], None]) -> list[Example]:
    """The examples, those with a mask in `folder` with it: of the same name, under the same folders or none.

    Raises ValueError where there are no masks, or one that can't be its picture's.
    """
    root = typed(folder, "data.masks")
    if not root.is_dir():
        raise ValueError(f"data.masks is {shown(root)}, and there is no such folder; check its spelling.")
    found = _masks(root)
    masked = [
        replace(example, mask=_of(Path(name), found))
        for name, example in zip(names(examples), examples, strict=True)
    ]
    without = [shown(example.path.name) for example in masked if example.mask is None]
    if len(without) == len(masked):
        raise ValueError(
            f"No mask in {shown(root)} is named as one of the pictures; call the mask of cat.jpg cat.png."
        )
    for example in masked:
        if example.mask:
            _check(example)
    if without:
        on_note(f"Without a mask, so learned whole: {listed(without)}.")
    return masked


def _masks(root: Path) -> dict[str, Path]:
    """Every picture under `root` by its path in it without suffix."""
    files = [path for path in sorted(root.rglob("*")) if path.suffix.lower() in SUFFIXES]
    return {captions.name_of(path.relative_to(root).with_suffix("")): path for path in files}


def _of(picture: Path, masks: dict[str, Path]) -> Path | None:
    known = map(captions.name_of, (picture.with_suffix(""), Path(picture.stem)))
    return next((masks[name] for name in known if name in masks), None)


def _check(example: Example) -> None:
    (w, h), (mask_w, mask_h) = example.size, images.check(example.mask)
    if abs(w * mask_h - mask_w * h) > SAME_SHAPE * w * mask_h:
        raise ValueError(
            f"The mask {shown(example.mask.name)} is {mask_w}×{mask_h} and its picture {w}×{h}; make them the same shape."
        )
