"""Which layers learn, at what rank and how strongly: a preset is a list of layer-name patterns, and the user's go over it."""

import difflib
import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from torch import nn

from .layers import named_layers

TRANSFORMER = ("unet.*.attentions.*",)
PRESETS = {
    "attention-qv": ("unet.*.attn?.to_q", "unet.*.attn?.to_v"),  # arXiv:2106.09685, section 4.2
    "attention": ("unet.*.attn?.to_[qkv]", "unet.*.attn?.to_out.0"),
    "transformer": TRANSFORMER,  # kohya's default
    "full": (*TRANSFORMER, "unet.*.resnets.*", "unet.*.downsamplers.*", "unet.*.upsamplers.*"),
    "none": (),  # for what learns without layers
}
TEXT_ENCODERS = ("text_encoder*.self_attn.*", "text_encoder*.mlp.*")


def resolve(
    parts: Mapping[str, nn.Module],
    preset: str,
    *,
    rank: int,
    conv_rank: int = 0,
    patterns: Mapping[str, int] | None = None,
    text_encoders: bool = False,
) -> dict[str, int]:
    """The rank of each layer that learns, in the model's order.

    `conv_rank` is that of the preset's convolutions wider than 1 × 1, where it is not 0. `patterns` may change, add or
    (rank 0) leave out any Linear or Conv2d by its name; the last that matches decides.
    """
    layers = named_layers(parts)
    names = list(layers)
    table = dict.fromkeys(PRESETS[preset] + (TEXT_ENCODERS if text_encoders else ()), rank)
    ranks = {name: table[p] for name in names for p in table if fnmatchcase(name, p)}
    if conv_rank:
        ranks |= dict.fromkeys(_wide(ranks, layers), conv_rank)
    for pattern, pattern_rank in (patterns or {}).items():
        if pattern_rank < 0:
            raise ValueError(
                f"lora.ranks gives {pattern!r} the rank {pattern_rank}; use 1 or more, or 0 to leave layers out."
            )
        ranks |= dict.fromkeys(_matching("lora.ranks", pattern, names), pattern_rank)
    if preset != "none" and not any(ranks.values()):
        raise ValueError("No layer is left to train; give at least one pattern in lora.ranks a rank above 0.")
    return {name: ranks[name] for name in names if ranks.get(name)}


def _wide(names: Iterable[str], layers: Mapping[str, nn.Module]) -> list[str]:
    """The convolutions wider than 1 × 1 among `names`; an error where there are none, for then the settings ask for nothing."""
    found = [name for name in names if layers[name].weight[0, 0].numel() > 1]
    if not found:
        raise ValueError(
            "lora.conv_rank and lora.conv_alpha are for convolutions, and none learns; set lora.targets to full, or them to 0."
        )
    return found


def scales(
    parts: Mapping[str, nn.Module],
    ranks: Mapping[str, int],
    *,
    rank: int,
    alpha: float,
    conv_rank: int = 0,
    conv_alpha: float = 0,
    patterns: Mapping[str, float] | None = None,
    rank_stabilized: bool = False,
) -> dict[str, float]:
    """How strongly each layer's up @ down counts: alpha / rank, which layers with ranks of their own share.

    Rank-stabilized, it is alpha / √(the layer's own rank) (arXiv:2312.03732, section 3). `patterns` give the layers that they
    match an alpha for the rank that they have; the last that matches decides.
    """

    def scale(name: str, alpha: float, rank: int) -> float:
        return alpha / math.sqrt(ranks[name]) if rank_stabilized else alpha / rank

    found = {name: scale(name, alpha, rank) for name in ranks}
    if conv_alpha:
        wide = _wide(ranks, named_layers(parts))
        found |= {name: scale(name, conv_alpha, conv_rank or rank) for name in wide}
    for pattern, pattern_alpha in (patterns or {}).items():
        matching = _matching("lora.alphas", pattern, list(ranks), "that learns")
        found |= {name: scale(name, pattern_alpha, ranks[name]) for name in matching}
    return found


def _matching(setting: str, pattern: str, names: list[str], which: str = "of this model") -> list[str]:
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        near = ", ".join(difflib.get_close_matches(pattern, _candidates(names), cutoff=0.0))
        raise ValueError(f"{setting}: no layer {which} matches {pattern!r}; near it are {near}.")
    return found


def _candidates(names: list[str]) -> list[str]:
    """Patterns that do match something: every opening, every ending of one or two words, and every name."""
    split = [name.split(".") for name in names]
    openings = (".".join([*words[:n], "*"]) for words in split for n in range(1, len(words)))
    endings = (".".join(["*", *words[-n:]]) for words in split for n in (1, 2))
    return list(dict.fromkeys([*openings, *endings, *names]))
