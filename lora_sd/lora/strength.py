"""How strongly a LoRA counts: as a whole, and by part. A layer's strength is the whole one times that of every part it is in.

As text: `0.8`, `0.8:text=0`, `0.8:unet=1.2:mid=0.5:IN04=0`. No torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..paths import shown

SIDES = {"down": "IN*", "mid": "MID", "up": "OUT*"}  # of the U-Net, as `blocks.block_of` names their blocks
MOST = 100  # of the whole, and of a part


@dataclass(frozen=True)
class Strength:
    """`Strength(0.8, text=0, blocks={"mid": 0.5})`; parts that are not named have 1.

    `blocks` are down, mid, up, blocks by the names artists know (IN04, OUT*) or layers by name, with patterns.
    """

    whole: float = 1.0
    unet: float = 1.0
    text: float = 1.0  # of all text encoders
    blocks: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = {"strength": self.whole, "unet": self.unet, "text": self.text, **self.blocks}
        for name, value in named.items():
            if not -MOST <= value <= MOST:  # nor is NaN
                what = "The strength of a LoRA" if name == "strength" else f"The strength of {shown(name)}"
                raise ValueError(f"{what} is {value}; it must be {-MOST} to {MOST}.")

    def __str__(self) -> str:
        """As `parse` reads it."""
        parts = {"unet": self.unet, "text": self.text, **self.blocks}
        named = [f"{name}={value:g}" for name, value in parts.items() if value != 1]
        return ":".join([f"{self.whole:g}", *named])

    @property
    def plain(self) -> bool:
        """Whether every part has the same."""
        return self.unet == self.text == 1 and all(value == 1 for value in self.blocks.values())

    def of(self, layer: str, block: str) -> float:
        """That of one layer of a block."""
        part = self.unet if layer.startswith("unet.") else self.text
        named = (value for name, value in self.blocks.items() if fits(name, layer, block))
        return self.whole * part * math.prod(named)

    def by_layer(self, blocks: Mapping[str, str]) -> dict[str, float]:
        """That of every layer, by the block it is in; ValueError for a name that is none of them."""
        for name in self.blocks:
            if not any(fits(name, layer, block) for layer, block in blocks.items()):
                there = ", ".join(dict.fromkeys(blocks.values()))
                raise ValueError(
                    f"No block or layer of the LoRA is named {shown(name)!r}; its blocks are {there}. "
                    "down, mid and up are those of a side, OUT* is all that begin so."
                )
        return {layer: self.of(layer, block) for layer, block in blocks.items()}


def fits(name: str, layer: str, block: str) -> bool:
    """Whether a name of a person's means the layer: down, mid, up, its block in any case, or itself."""
    pattern = SIDES.get(name.lower(), name)
    return fnmatchcase(block, pattern.upper()) or fnmatchcase(layer, pattern)


def as_strength(given: "float | Strength") -> Strength:
    """A plain number is that of the whole."""
    return given if isinstance(given, Strength) else Strength(given)


def parts(words: list[str]) -> dict[str, Any]:
    """`["text=0", "mid=0.5"]` as the arguments of a Strength."""
    found: dict[str, float] = {}
    for word in words:
        name, equals, value = word.partition("=")
        number = _number(value)
        if not (name.strip() and equals) or number is None:
            raise ValueError(
                f"{shown(word)!r} is no part's strength; write text=0, unet=1.2, mid=0.5 or a block like IN04=0."
            )
        found[name.strip()] = number
    sides = {name: found.pop(name) for name in ("unet", "text") if name in found}
    return {**sides, "blocks": found} if found else sides


def of_file(text: str) -> tuple[Path, Strength]:
    """`cat.safetensors:0.8:text=0` → (path, Strength(0.8, text=0)); 1 where no number is given.

    A drive letter is no strength: what follows the last colon without `=` counts if it is a number.
    """
    path, *words = text.split(":")
    named: list[str] = []
    while words and "=" in words[-1] and not _is_path(words[-1]):
        named.insert(0, words.pop())
    whole = _number(words[-1]) if words else None
    if whole is not None:
        words.pop()
    return Path(":".join([path, *words])), Strength(1.0 if whole is None else whole, **parts(named))


def _is_path(word: str) -> bool:
    """An = may be in a file's name, too."""
    return any(sign in word for sign in "/\\") or word.endswith(".safetensors")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
