"""What training holds in memory, counted without a card: the real shapes run on PyTorch's meta device, which computes nothing.

Every tensor that appears in a forward and backward pass is followed until nothing holds it any more; the peak of what is
alive at once, less what was there before the pass, is what the pass needs. Blocks are as models/fast.py makes them, with
norms as they run where its kernels don't, which keep a few per cent more.
"""

import json
import re
import weakref
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
import transformers
from diffusers import UNet2DConditionModel
from torch import Tensor, UntypedStorage, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from lora_sd.footprint import LATENT_SIDE, RUNGS, Footprint, Rung
from lora_sd.lora import layers, targets
from lora_sd.models import fast
from lora_sd.models.family import FAMILIES, Family
from lora_sd.training.memory import take_rung
from lora_sd.training.vector import Vector

CONFIGS = Path(fast.__file__).parent / "configs"
RANK, HIGH_RANK = 16, 128
POOLED = 1280  # numbers of SDXL's pooled text state
TOKENS = 77


class Alive(TorchDispatchMode):
    """Counts the bytes of every storage that it sees appear, until it is freed."""

    def __init__(self, there: list[Tensor]):
        super().__init__()
        self.known: set[int] = set()
        self.now = self.peak = 0
        for tensor in there:
            self.see(tensor.untyped_storage())
        self.before = self.peak

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self.see(tensor.untyped_storage())
        return result

    def see(self, storage: UntypedStorage) -> None:
        if storage._cdata not in self.known:
            self.known.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.forget, storage._cdata, storage.nbytes())

    def forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: None = None, is_causal: bool = False, **_: Any
) -> Tensor:
    """Attention that keeps q, k, v, its output and one number per row, as the fused kernels of every card do."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, is_causal)[0]


# The parts of a model, in half precision and without data


def unet_of(family: Family) -> UNet2DConditionModel:
    config = json.loads((CONFIGS / family.name / "unet" / "config.json").read_text())
    with torch.device("meta"):
        return _frozen(UNet2DConditionModel.from_config(config))


def text_encoders_of(family: Family) -> dict[str, nn.Module]:
    found = {}
    for spec in family.text_encoders:
        config = json.loads((CONFIGS / family.name / spec.attribute / "config.json").read_text())
        kind = getattr(transformers, config["architectures"][0])
        with torch.device("meta"):
            found[spec.attribute] = _frozen(kind(transformers.CLIPTextConfig(**config)))
    return found


def _frozen(model: nn.Module) -> nn.Module:
    return model.bfloat16().to(memory_format=torch.channels_last).requires_grad_(False).train()


def _teach(parts: dict[str, nn.Module], ranks: dict[str, int], dora: bool = False) -> list[Tensor]:
    """Adapters on the parts, as in a run; gives every tensor that is there before a pass."""
    layers.inject(parts, ranks, scale=1.0, magnitudes="output" if dora else None)
    held = [tensor for part in parts.values() for tensor in (*part.parameters(), *part.buffers())]
    if not ranks:  # a word of its own learns alone, which is a few numbers
        return held
    vector = Vector((low_rank for _, low_rank in layers.low_ranks(parts)), torch.bfloat16)
    return [*held, vector.values, vector.sums, vector.copies, vector.fresh]


# Passes


def unet_pass(
    family: Family,
    preset: str,
    rung: Rung,
    *,
    side: int,
    rank: int = RANK,
    batch: int = 1,
    plain: bool = False,
    dora: bool = False,
) -> int:
    """Bytes that a pass of the U-Net needs for `batch` latents of side × side; with diffusers' own blocks if `plain`."""
    unet = unet_of(family)
    with torch.device("meta"):
        take_rung(unet, rung)
        if not plain:
            fast.change_blocks(unet)
        there = _teach({"unet": unet}, targets.resolve({"unet": unet}, preset, rank=rank), dora)
        x = torch.zeros(batch, 4, side, side, dtype=torch.bfloat16)
        tokens = torch.zeros(batch, TOKENS, family.cross_attention, dtype=torch.bfloat16)
        tokens.requires_grad_(preset == "none")  # for the word that learns instead of layers
        added = {"text_embeds": x.new_zeros(batch, POOLED), "time_ids": torch.zeros(batch, 6)}
        with Alive(there) as alive, mock.patch.object(F, "scaled_dot_product_attention", attention):
            t = torch.zeros(batch, dtype=torch.long)
            prediction = unet(
                x, t, tokens, added_cond_kwargs=added if family.size_conditioning else None
            ).sample
            prediction.float().square().mean().backward()
    return alive.peak - alive.before


def text_pass(family: Family) -> int:
    """Bytes that learning text encoders need for one caption."""
    parts = text_encoders_of(family)
    with torch.device("meta"):
        there = _teach(parts, dict.fromkeys(_text_layers(parts), RANK))
        with Alive(there) as alive, mock.patch.object(F, "scaled_dot_product_attention", attention):
            outputs = [part(torch.zeros(1, TOKENS, dtype=torch.long)) for part in parts.values()]
            sum(output.last_hidden_state.float().square().mean() for output in outputs).backward()
    return alive.peak - alive.before


def _text_layers(parts: dict[str, nn.Module]) -> list[str]:
    resolved = targets.resolve(
        {"unet": unet_of(FAMILIES["sd15"]), **parts}, "attention", rank=1, text_encoders=True
    )
    return [name for name in resolved if not name.startswith("unet.")]


# A family's row of lora_sd/footprint.py


def footprint(family: Family) -> Footprint:
    side = family.resolution // LATENT_SIDE

    def per_latent_pixel(preset: str, rung: Rung, rank: int = RANK) -> float:
        return unet_pass(family, preset, rung, side=side, rank=rank) / side**2

    high = per_latent_pixel("full", RUNGS[0], HIGH_RANK) - per_latent_pixel("full", RUNGS[0])
    return weights(family)._replace(
        kept={
            preset: tuple(round(per_latent_pixel(preset, rung)) for rung in RUNGS)
            for preset in targets.PRESETS
        },
        narrow=round(high / (HIGH_RANK - RANK)),
        text_kept=text_pass(family),
    )


def weights(family: Family) -> Footprint:
    """The part of a row that needs no pass."""
    unet, encoders = unet_of(family), text_encoders_of(family)
    adapters = {
        preset: _numbers({"unet": unet}, targets.resolve({"unet": unet}, preset, rank=1))
        for preset in targets.PRESETS
    }
    footprint = Footprint(
        unet=sum(p.numel() for p in unet.parameters()),
        packed=0,
        text=sum(p.numel() for encoder in encoders.values() for p in encoder.parameters()),
        adapters=adapters,
        text_adapters=_numbers(encoders, _text_layers(encoders)),
        kept={},
        narrow=0,
        text_kept=0,
    )
    layers.pack(unet)
    return footprint._replace(packed=sum(t.nbytes for t in (*unet.parameters(), *unet.buffers())))


def _numbers(parts: dict[str, nn.Module], names: Any) -> int:
    """Parameters that adapters of rank 1 have on these layers."""
    found = layers.named_layers(parts)
    return sum(len(weight) + weight[0].numel() for weight in (found[name].weight for name in names))


def as_python(name: str, row: Footprint) -> str:
    """The row as it stands in lora_sd/footprint.py, before `ruff format`."""
    return re.sub(r"\d{5,}", lambda digits: f"{int(digits[0]):_}", f"{name!r}: {row!r},").replace("'", '"')
