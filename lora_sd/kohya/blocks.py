"""Ranks by block, which sd-scripts has as lists of 25 numbers (SDXL: 23) → patterns of layer names (lora.ranks)."""

from typing import NamedTuple

SD, XL = 25, 23  # blocks: 12 down, 1 middle, 12 up; 1 embedding, 9 in, 3 middle, 9 out, 1 out
WITHOUT_ATTENTION = {SD: {"down": 3, "up": 0}, XL: {"down": 0, "up": 2}}  # levels


class Block(NamedTuple):
    """Where a block's layers are, in diffusers' names."""

    attentions: list[str]
    resnets: list[str]
    samplers: list[str]

    def patterns(self, rank: int, conv_rank: int | None) -> dict[str, int]:
        """The ranks of its layers; `conv_rank` is that of convolutions, which have none where it is None."""
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
