"""What the starter model learns from: emoji on backgrounds, and four ways to say what each picture shows."""

from collections.abc import Iterable
from pathlib import Path

import icons
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPTokenizer

ICON, PIXELS = 112, 128  # an icon as drawn, and the picture it is put into
STYLES = {"twemoji": "twemoji", "noto": "noto", "emojione": "emojione", "fxemoji": "firefox"}
VAE_ONLY = ("noto-v1", "fluent-emoji", "fluent-emoji-flat", "openmoji", "streamline-emojis")
COLOURS = {
    "white": (255, 255, 255),
    "red": (220, 60, 60),
    "blue": (70, 120, 220),
    "green": (80, 175, 90),
    "yellow": (250, 215, 80),
    "purple": (150, 90, 200),
    "orange": (245, 150, 60),
    "black": (25, 25, 30),
    "pink": (245, 160, 190),
    "gray": (150, 150, 155),
}
NAMES = list(COLOURS)


class Pictures:
    """Icons on backgrounds: `pixels` (N, 3, 128, 128) uint8, and of each its icon's index and its colour's name."""

    def __init__(self, sources: np.ndarray, variants: int, seed: int, device: torch.device):
        rng = np.random.default_rng(seed)
        pixels, self.icon, self.colour = [], [], []
        for variant in range(variants):
            white = np.zeros(len(sources), int)
            colours = rng.integers(1, len(NAMES), len(sources)) if variant % 2 else white
            for chunk in torch.arange(len(sources)).split(512):
                count = len(chunk)
                size, shift = np.full(count, ICON), np.zeros((count, 2))
                if variant:
                    size, shift = rng.integers(88, 121, count), rng.uniform(-1, 1, (count, 2))
                background = torch.tensor([COLOURS[NAMES[colour]] for colour in colours[chunk]])
                icons_here = torch.from_numpy(sources[chunk])
                placed = place(
                    icons_here.to(device), background, torch.from_numpy(size), torch.from_numpy(shift)
                )
                pixels.append(placed)
            self.icon += range(len(sources))
            self.colour += [NAMES[colour] for colour in colours]
        self.pixels = torch.cat(pixels)

    def __len__(self) -> int:
        return len(self.icon)


def place(icons: Tensor, background: Tensor, size: Tensor, shift: Tensor) -> Tensor:
    """RGBA icons (N, h, w, 4), `size` pixels a side, on colours (N, 3); `shift` −1…1 is how far to the edges (x, y)."""
    rgba = icons.permute(0, 3, 1, 2) / 255
    rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)  # premultiplied, so that edges mix rightly
    affine = torch.zeros(len(icons), 2, 3)
    affine[:, 0, 0] = affine[:, 1, 1] = PIXELS / size
    affine[:, :, 2] = shift * (1 - PIXELS / size[:, None])
    grid = F.affine_grid(affine.to(rgba), [len(icons), 4, PIXELS, PIXELS], align_corners=False)
    placed = F.grid_sample(rgba, grid, align_corners=False)
    opaque = placed[:, :3] + background.to(rgba)[:, :, None, None] / 255 * (1 - placed[:, 3:])
    return (opaque * 255).round().clamp(0, 255).to(torch.uint8)


def read_sets(folder: Path, sets: Iterable[str], limit: int | None) -> list[icons.Icons]:
    """The named sets, from the archives of `npm pack` or `NAME.json` files in `folder`."""
    found = []
    for name in sets:
        paths = [*folder.glob(f"iconify-json-{name}-[0-9]*.tgz"), *folder.glob(f"{name}.json")]
        if not paths:
            raise ValueError(
                f"{folder} has no icons of {name}: fetch them there with npm pack @iconify-json/{name}"
            )
        found.append(icons.read(paths[0], ICON, limit))
        print(f"{name}: {len(found[-1].captions)} icons", flush=True)
    return found


class Prompts:
    """Four ways to say what each picture shows, as token ids: `ids[which[picture, form]]`; the last row is empty."""

    def __init__(
        self, sets: list[icons.Icons], pictures: Pictures, tokenizer: CLIPTokenizer, device: torch.device
    ):
        named = [(c, style) for s, style in zip(sets, STYLES.values(), strict=True) for c in s.captions]
        forms = [
            phrases(*named[icon], colour) for icon, colour in zip(pictures.icon, pictures.colour, strict=True)
        ]
        rows = {prompt: row for row, prompt in enumerate(dict.fromkeys([p for form in forms for p in form]))}
        texts = [*rows, ""]
        encoded = tokenizer(texts, padding="max_length", max_length=77, truncation=True)["input_ids"]
        self.ids = torch.tensor(encoded, device=device)  # (P + 1, 77)
        self.which = torch.tensor([[rows[p] for p in form] for form in forms], device=device)  # (N, 4)


def phrases(name: str, style: str, colour: str) -> tuple[str, str, str, str]:
    """With style and background, with one of them, and with as little as is true."""
    background = f" on a {colour} background"
    if_coloured = "" if colour == "white" else background
    return (
        f"{name}, {style} style{background}",
        f"{name}{background}",
        f"{name}, {style} style{if_coloured}",
        f"{name}{if_coloured}",
    )
