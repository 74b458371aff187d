"""Blocks of a model by the names that artists know from block weights: TE1, TE2, IN00 … IN11, MID, OUT00 … OUT11.

Numbers are Stability's, also for models whose layers are named diffusers' way. EMB is the embedding of time and size.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from ..models.family import Family
from ..paths import shown
from .names import ldm_path

SIDES = {"input_blocks": "IN", "middle_block": "MID", "output_blocks": "OUT"}


def block_of(layer: str, family: Family) -> str:
    """
    >>> from lora_sd.models.family import SDXL
    >>> block_of("unet.down_blocks.1.attentions.0.proj_in", SDXL)
    'IN04'
    """
    part, path = layer.split(".", 1)
    if part != "unet":
        return "TE2" if part.endswith("_2") else "TE1"
    side, number, *_ = ldm_path(path, family).split(".")
    if side not in SIDES:
        return "OUT" if side == "out" else "EMB"
    return "MID" if side == "middle_block" else f"{SIDES[side]}{int(number):02}"


def order(block: str) -> tuple[int, str]:
    """Sorts blocks as a picture passes them, after the text."""
    starts = ("TE", "EMB", "IN", "MID", "OUT0", "OUT1", "OUT")
    return next(i for i, start in enumerate(starts) if block.startswith(start)), block


def weights_of(layers: Iterable[str], family: Family, patterns: Mapping[str, float]) -> dict[str, float]:
    """The weight of each layer: that of the last pattern that fits its block or its name, 1 where none does.

    ValueError for a pattern that fits nothing, with the blocks there are.
    """
    blocks = {layer: block_of(layer, family) for layer in layers}
    weights = dict.fromkeys(blocks, 1.0)
    for pattern, weight in patterns.items():
        fits = [n for n, block in blocks.items() if fnmatchcase(block, pattern) or fnmatchcase(n, pattern)]
        if not fits:
            there = ", ".join(sorted(set(blocks.values()), key=order))
            raise ValueError(
                f"No block or layer is named {shown(pattern)!r}; the blocks are {there}. OUT* is all that begin so."
            )
        weights |= dict.fromkeys(fits, weight)
    return weights
