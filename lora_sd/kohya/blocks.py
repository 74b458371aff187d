"""Ranks by block, which sd-scripts has as lists of 25 numbers (SDXL: 23) → patterns of layer names (lora.ranks, lora.alphas)."""

from collections import Counter
from typing import Any, NamedTuple

from .translation import Translation
from .values import decimal, is_set, numbers, whole

SD, XL = 25, 23  # blocks: 12 down, 1 middle, 12 up; 1 embedding, 9 in, 3 middle, 9 out, 1 out
LISTS = ("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas")
WEIGHTS = ("down_lr_weight", "mid_lr_weight", "up_lr_weight")  # factors on the learning rate
WITHOUT_ATTENTION = {SD: {"down": 3, "up": 0}, XL: {"down": 0, "up": 2}}  # levels


class Block(NamedTuple):
    """Where a block's layers are, in diffusers' names."""

    attentions: list[str]
    resnets: list[str]
    samplers: list[str]

    def patterns(self, rank: float, conv_rank: float | None) -> dict[str, float]:
        """The ranks, or alphas, of its layers; `conv_rank` is that of convolutions, which don't learn where it is None."""
        found = {f"unet.{name}.*": rank for name in self.attentions}
        if conv_rank is not None:
            found |= {f"unet.{name}.*": rank for name in self.resnets}
            found |= {f"unet.{name}.conv?": conv_rank for name in self.resnets}
            found |= {f"unet.{name}.conv": conv_rank for name in self.samplers}
        return found


def block(index: int, count: int) -> Block:
    """The block of that number of `count`.

    >>> block(4, SD).attentions, block(3, SD).samplers, block(12, SD).attentions
    (['down_blocks.1.attentions.0'], ['down_blocks.0.downsamplers.0'], ['mid_block.attentions.0'])
    >>> block(5, XL).attentions, block(11, XL).attentions
    (['down_blocks.1.attentions.0'], ['mid_block.attentions.0'])
    """
    first, middle, last, levels = (1, 12, 13, 4) if count == SD else (2, 10, 13, 3)
    if index < first or (count == XL and index == XL - 1):  # conv_in, embeddings, conv_out: never a LoRA
        return Block([], [], [])
    if middle <= index < last:
        return _middle(index - middle, count)
    side, start = ("down", first) if index < middle else ("up", last)
    level, place = divmod(index - start, 3)
    name = f"{side}_blocks.{level}"
    is_layer = side == "up" or place < 2  # a down block has two layers, then its sampler
    attends = is_layer and level != WITHOUT_ATTENTION[count][side]
    return Block(
        [f"{name}.attentions.{place}"] if attends else [],
        [f"{name}.resnets.{place}"] if is_layer else [],
        [f"{name}.{side}samplers.0"] if place == 2 and level != levels - 1 else [],
    )


def _middle(place: int, count: int) -> Block:
    if count == SD:
        return Block(["mid_block.attentions.0"], ["mid_block.resnets.0", "mid_block.resnets.1"], [])
    return [
        Block([], ["mid_block.resnets.0"], []),
        Block(["mid_block.attentions.0"], [], []),
        Block([], ["mid_block.resnets.1"], []),
    ][place]


def weights(
    down: list[float] | None, middle: list[float] | None, up: list[float] | None, count: int, zero: float
) -> list[float]:
    """The factors on the rates of all blocks; those at or below `zero` are 0, those not given 1."""
    sides, middles = (12, 1) if count == SD else (9, 3)

    def whole(given: list[float] | None, length: int) -> list[float]:
        found = [weight if weight > zero else 0.0 for weight in (given or [])[:length]]
        return found + [1.0] * (length - len(found))

    each = whole(down, sides) + whole(middle, middles) + whole(up, sides)
    return each if count == SD else [1.0, *each, 1.0]


def usual_convolution(work: Translation) -> tuple[int, float]:
    """The rank of most blocks' convolutions, where only lists of them are given, and its alpha."""
    try:
        dims = [whole(value) for value in numbers(work.rest["conv_block_dims"])]
        alphas = numbers(work.rest.get("conv_block_alphas") or [1.0] * len(dims))
    except ValueError:  # told when all lists are read
        return 0, 1.0
    common = Counter((d, a) for d, a in zip(dims, alphas, strict=False) if d).most_common(1)
    return common[0][0] if common else (0, 1.0)


def translate(work: Translation, sdxl: bool | None) -> None:
    """Lists of ranks, alphas and weights become patterns: exact, but for rates between 0 and the whole one."""
    options = (*LISTS, *WEIGHTS, "block_lr_zero_threshold")
    given = {name: value for name in options if is_set(value := work.rest.pop(name, None))}
    if not given or "unet.*" in work.config.lora.ranks:  # which leaves out all of the U-Net
        return
    name, value = ", ".join(given), next(iter(given.values())) if len(given) == 1 else "…"
    try:
        found = _read(given, work, sdxl)
    except ValueError as error:
        work.note(name, value, "ignored", f"{error}.")
        return
    lora = work.config.lora
    but = []
    if set(found.factors) - {0.0, 1.0}:
        but.append("all blocks learn at one rate here, but those with weight 0 are left out")
    work.set(name, value, "lora.ranks", found.ranks(lora.rank, lora.conv_rank), "; ".join(but))
    usual = (lora.alpha or lora.rank / 2) / lora.rank
    conv_usual = lora.conv_alpha / lora.conv_rank if lora.conv_rank and lora.conv_alpha else usual
    if alphas := found.alphas_apart(usual, conv_usual, bool(lora.conv_rank)):
        work.set(name, value, "lora.alphas", alphas)


class Lists(NamedTuple):
    """One number for each block."""

    dims: list[int]
    conv_dims: list[int]
    factors: list[float]
    alphas: list[float]
    conv_alphas: list[float]

    def alphas_apart(self, usual: float, conv_usual: float, conv: bool) -> dict[str, float]:
        """The alphas of blocks that are not as strong for their rank as `usual`; an alpha of 0 is the rank there."""
        found: dict[str, float] = {}
        for index, factor in enumerate(self.factors):
            dim, conv_dim = self.dims[index], self.conv_dims[index] if conv else 0
            alpha, conv_alpha = self.alphas[index] or dim, self.conv_alphas[index] or conv_dim
            apart = alpha != usual * dim or (conv_dim and conv_alpha != conv_usual * conv_dim)
            if factor and apart:
                place = block(index, len(self.dims))
                learns = place.patterns(dim, conv_dim if conv else None)
                alphas = place.patterns(alpha, conv_alpha if conv else None)
                found |= {pattern: value for pattern, value in alphas.items() if learns[pattern]}
        return found

    def ranks(self, rank: int, conv_rank: int) -> dict[str, float]:
        """The patterns of blocks that are not as the rest."""
        found: dict[str, float] = {}
        for index, (dim, conv_dim, factor) in enumerate(
            zip(self.dims, self.conv_dims, self.factors, strict=True)
        ):
            place, on = block(index, len(self.dims)), bool(factor)
            patterns = place.patterns(dim * on, conv_dim * on if conv_rank else None)
            if patterns != place.patterns(rank, conv_rank or None):
                found |= patterns
        return found


def _read(given: dict[str, Any], work: Translation, sdxl: bool | None) -> Lists:
    lora = work.config.lora
    lists = {name: numbers(given[name]) for name in LISTS if name in given}
    lengths = {len(values) for values in lists.values()} or {XL if sdxl else SD}
    if lengths not in ({SD}, {XL}):
        raise ValueError(f"lists of blocks have {SD} numbers each, {XL} for SDXL")
    [count] = lengths
    factors = [1.0] * count
    if any(name in given for name in WEIGHTS):
        sides = [_weights(given[name]) if name in given else None for name in WEIGHTS]
        factors = weights(*sides, count, decimal(given.get("block_lr_zero_threshold", 0)))
    dims = [whole(value) for value in lists.get("block_dims", [lora.rank] * count)]
    conv_dims = [whole(value) for value in lists.get("conv_block_dims", [lora.conv_rank] * count)]
    alphas = lists.get("block_alphas", [lora.alpha or lora.rank / 2] * count)
    conv_alphas = lists.get("conv_block_alphas", [lora.conv_alpha] * count)  # conv_alpha there, too
    return Lists(dims, conv_dims, factors, alphas, conv_alphas)


def _weights(value: Any) -> list[float]:
    if isinstance(value, str) and any(sign.isalpha() for sign in value.replace("e", "")):
        raise ValueError("curves of weights are not here; write a number for each block")
    return numbers(value)
