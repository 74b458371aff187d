"""Plots of what `analyse` tells (its `report` as plain values): a heat map over blocks and kinds of layers, and the spectra."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .plots import Curve, curves, heat_map

Layers = Mapping[str, Mapping[str, Any]]  # layer → block, norm, effective_rank, singular_values …

KINDS = {  # column → what a layer's name has in it; the first that fits
    "attn1 q": ("attn1.to_q", "q_proj"),
    "attn1 k": ("attn1.to_k", "k_proj"),
    "attn1 v": ("attn1.to_v", "v_proj"),
    "attn1 out": ("attn1.to_out", "out_proj"),
    "attn2 q": ("attn2.to_q",),
    "attn2 k": ("attn2.to_k",),
    "attn2 v": ("attn2.to_v",),
    "attn2 out": ("attn2.to_out",),
    "ff": (".ff.", ".mlp."),
    "proj": ("proj_in", "proj_out"),
    "conv": ("conv", "samplers", "resnets", "time_emb"),
    "other": ("",),
}
SIDES = {"TE": "text (TE)", "IN": "down (IN)", "MID": "middle (MID)", "OUT": "up (OUT)", "EMB": "down (IN)"}


def kind_of(layer: str) -> str:
    """
    >>> kind_of("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k")
    'attn2 k'
    """
    return next(kind for kind, marks in KINDS.items() if any(mark in layer for mark in marks))


def block_map(title: str, layers: Layers, value: Callable[[list[Mapping[str, Any]]], float]) -> str:
    """Blocks downwards, as a picture passes them, and kinds of layers to the right; `value` of the layers of each cell."""
    cells: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for name, layer in layers.items():
        cells.setdefault((layer["block"], kind_of(name)), []).append(layer)
    rows = list(dict.fromkeys(layer["block"] for layer in layers.values()))
    rows.sort(key=_place)
    columns = [kind for kind in KINDS if any(kind == column for _, column in cells)]
    values = {(rows.index(r), columns.index(c)): value(own) for (r, c), own in cells.items()}
    return heat_map(title, rows, columns, values)


def norms(title: str, layers: Layers) -> str:
    """‖ΔW‖ of the layers of each cell together."""
    return block_map(title, layers, lambda own: math.sqrt(sum(layer["norm"] ** 2 for layer in own)))


def effective_ranks(title: str, layers: Layers) -> str:
    """The mean effective rank of each cell."""
    return block_map(title, layers, lambda own: sum(layer["effective_rank"] for layer in own) / len(own))


def spectra(title: str, layers: Layers, *, whole: str, x: str, y: str) -> str:
    """√Σσᵢ² over the layers of each block, and of all (`whole`), by i."""
    by_block: dict[str, list[Sequence[float]]] = {}
    for layer in layers.values():
        by_block.setdefault(layer["block"], []).append(layer["singular_values"])
    lines = [
        Curve(block, joint(own), SIDES[next(side for side in SIDES if block.startswith(side))])
        for block, own in sorted(by_block.items(), key=lambda item: _place(item[0]))
    ]
    every = [values for own in by_block.values() for values in own]
    return curves(title, [*lines, Curve(whole, joint(every))], x=x, y=y)


def joint(spectra: Sequence[Sequence[float]]) -> list[float]:
    """
    >>> joint([[3.0, 1.0], [4.0]])
    [5.0, 1.0]
    """
    long = max(map(len, spectra))
    return [math.sqrt(sum(values[i] ** 2 for values in spectra if i < len(values))) for i in range(long)]


def _place(block: str) -> tuple[int, str]:
    starts = ("TE", "EMB", "IN", "MID", "OUT0", "OUT1", "OUT")
    return next(number for number, start in enumerate(starts) if block.startswith(start)), block
