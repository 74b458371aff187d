"""Iconify's emoji sets as pictures: an `@iconify-json/*` archive from npm -> captions and RGBA arrays."""

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import resvg_py
from PIL import Image

SKIN_TONES = re.compile(r"skin-tone|-(light|dark|medium)(-|$)")


class Icons(NamedTuple):
    captions: list[str]
    pixels: np.ndarray  # (N, size, size, 4) uint8, alpha last


def read(path: Path, size: int, limit: int | None = None) -> Icons:
    """The icons of a set (an npm archive or its icons.json), drawn `size` pixels a side; at most `limit`."""
    icon_set = _load(path)
    chosen = names(icon_set)[:limit]
    drawn = [draw(svg(icon_set, name, size), size) for name in chosen]
    visible = [(name, icon) for name, icon in zip(chosen, drawn, strict=True) if icon[..., 3].mean() > 8]
    return Icons([name.replace("-", " ") for name, _ in visible], np.stack([icon for _, icon in visible]))


def _load(path: Path) -> dict[str, Any]:
    if path.suffix == ".json":
        return json.loads(path.read_text("utf-8"))
    with tarfile.open(path) as archive:
        return json.load(archive.extractfile("package/icons.json"))


def names(icon_set: dict[str, Any]) -> list[str]:
    """Icons to show; variants of skin tone look too much alike to be worth their share."""
    return [
        name
        for name, icon in icon_set["icons"].items()
        if not icon.get("hidden") and not SKIN_TONES.search(name)
    ]


def svg(icon_set: dict[str, Any], name: str, size: int) -> str:
    """A whole SVG document; what an icon does not say of its box, the set says, and then Iconify's defaults."""
    icon = {"left": 0, "top": 0, "width": 16, "height": 16, **icon_set, **icon_set["icons"][name]}
    box = "{left} {top} {width} {height}".format(**icon)
    xmlns = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {xmlns} viewBox="{box}" width="{size}" height="{size}">{icon["body"]}</svg>'


def draw(document: str, size: int) -> np.ndarray:
    """An SVG as (size, size, 4) uint8, alpha last."""
    png = resvg_py.svg_to_bytes(svg_string=document, width=size, height=size)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))
