"""Small LoRAs of the real structure for the workshop's tests."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import safetensors.torch
import torch
from real_shapes import real_parts
from torch import Tensor

from lora_sd.lora.layers import named_layers
from lora_sd.lora.names import written_keys
from lora_sd.lora.pairs import Pair, delta_weight
from lora_sd.lora.targets import resolve
from lora_sd.models.family import FAMILIES

SHRUNK = 40  # the released widths, divided by this


@cache
def shapes(family: str, preset: str = "full") -> Mapping[str, tuple[int, ...]]:
    """Layer → shape of its weight, of the released model but 40 times as narrow, except for the text states' width."""
    parts = real_parts(family)
    layers = named_layers(parts)
    return {
        name: _narrow(name, layers[name].weight.shape, FAMILIES[family].cross_attention)
        for name in resolve(parts, preset, rank=1, text_encoders=True)
    }


def _narrow(name: str, shape: tuple[int, ...], text: int) -> tuple[int, ...]:
    out, inputs, *kernel = shape
    keeps = ".attn2.to_k" in name and inputs == text
    return (max(6, out // SHRUNK), inputs if keeps else max(6, inputs // SHRUNK), *kernel)


def random_pairs(
    family: str, *, rank: int = 4, alpha: float = 2.0, seed: int = 0, every: int = 30
) -> dict[str, Pair]:
    """Random factors for every so-many-th layer of a released model, and for each kind of layer."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: random_pair(shape, rank, alpha, generator)
        for index, (name, shape) in enumerate(shapes(family).items())
        if index % every == 0
        or "down_blocks.1.resnets.0" in name
        or "down_blocks.1.attentions.0.tran" in name
    }


def random_pair(shape: tuple[int, ...], rank: int, alpha: float, generator: torch.Generator) -> Pair:
    out, *inputs = shape
    down = torch.randn(rank, *inputs, generator=generator)
    return Pair(down, torch.randn(out, rank, *(1,) * (len(inputs) - 1), generator=generator), alpha)


def write(path: Path, pairs: Mapping[str, Pair], family: str, layout: str = "kohya", **metadata: str) -> Path:
    """The file in fp32, of kohya's or PEFT's names, written without our writer."""
    tensors: dict[str, Tensor] = {}
    for name, pair in pairs.items():
        keys = written_keys(name, FAMILIES[family], layout)
        fold = pair.alpha / pair.rank if layout == "peft" else 1.0
        tensors |= {keys.down: pair.down, keys.up: pair.up * fold}
        tensors |= {keys.alpha: torch.tensor(pair.alpha)} if layout == "kohya" else {}
    safetensors.torch.save_file(tensors, path, metadata)
    return path


def deltas(pairs: Mapping[str, Pair]) -> dict[str, Tensor]:
    """ΔW of every layer, as a matrix."""
    return {name: delta_weight(pairs[name]) for name in pairs}
