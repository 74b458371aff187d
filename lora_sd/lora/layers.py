"""Low-rank adapters inside Linear and Conv2d: y = W x + Σ strength · (alpha / rank) · up(down(x)) (arXiv:2106.09685).

An adapted layer *is* the layer it replaces, so base keys keep their names; it carries any number of named adapters,
each with its own strength. Layers are named `part.path` with diffusers' paths: "unet.mid_block.attentions.0.proj_in".
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Pair(NamedTuple):
    """One layer's adapter as data: what a LoRA file holds for it."""

    down: Tensor  # (rank, in) or (rank, in, k, k)
    up: Tensor  # (out, rank) or (out, rank, 1, 1)
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]


def delta_weight(pair: Pair) -> Tensor:
    """The update as one matrix (out, in · k · k), fp32: (alpha / rank) · up @ down."""
    return (pair.alpha / pair.rank) * (pair.up.float().flatten(1) @ pair.down.float().flatten(1))


class LowRank(nn.Module):
    """One named adapter of one layer, in fp32; `strength` scales it whenever the layer runs."""

    def __init__(self, name: str, pair: Pair, strength: float = 1.0):
        super().__init__()
        self.name = name
        self.down = nn.Parameter(pair.down.float())
        self.up = nn.Parameter(pair.up.float())
        self.alpha = pair.alpha
        self.strength = strength

    @property
    def pair(self) -> Pair:
        return Pair(self.down.detach(), self.up.detach(), self.alpha)


class Adapted(nn.Module):
    """What LoRALinear and LoRAConv2d share. Made from a plain layer by `adapt`, which changes its class in place."""

    adapters: nn.ModuleList

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        for adapter in self.adapters:
            if adapter.strength != 0:
                y = y + self.low_rank(x, adapter).to(y.dtype)
        return y

    def low_rank(self, x: Tensor, adapter: LowRank) -> Tensor:
        """strength · ΔW x, in the dtype autocast asks for and in fp32 without it."""
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(adapter.down.dtype)
        # the scale goes on the narrow middle: `rank` numbers per position instead of `out`
        scale = adapter.strength * adapter.alpha / adapter.down.shape[0]
        return self.widen(scale * self.narrow(x, adapter.down), adapter.up)


class LoRALinear(Adapted, nn.Linear):
    def narrow(self, x: Tensor, down: Tensor) -> Tensor:
        return F.linear(x, down)

    def widen(self, x: Tensor, up: Tensor) -> Tensor:
        return F.linear(x, up)


class LoRAConv2d(Adapted, nn.Conv2d):
    def narrow(self, x: Tensor, down: Tensor) -> Tensor:
        # stride, padding and dilation are the layer's own; every group gets all of `down`, as ΔW has it
        return self._conv_forward(x, down.expand(self.groups, *down.shape).flatten(0, 1), None)

    def widen(self, x: Tensor, up: Tensor) -> Tensor:
        return F.conv2d(x, up, groups=self.groups)


ADAPTED = {nn.Linear: LoRALinear, nn.Conv2d: LoRAConv2d}
PLAIN = {adapted: plain for plain, adapted in ADAPTED.items()}


def named_layers(parts: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Every Linear and Conv2d, adapted or not, by our name for it."""
    return {
        f"{part}.{_level(part, model)}{path}": module
        for part, model in parts.items()
        for path, module in model.named_modules()
        if type(module) in ADAPTED or type(module) in PLAIN
    }


def _level(part: str, model: nn.Module) -> str:
    # transformers 5 dropped the text_model level of CLIPTextModel; LoRA files of every program have it
    return "text_model." if part.startswith("text_encoder") and not hasattr(model, "text_model") else ""


def initial_pair(layer: nn.Module, rank: int, alpha: float, seed: int, name: str) -> Pair:
    """down ~ U(±1/√fan_in), drawn from (seed, name) alone, and up = 0: the first output is the base's."""
    weight = layer.weight
    generator = torch.Generator().manual_seed(_stable_seed(seed, name))
    bound = 1 / math.sqrt(weight[0].numel())
    down = torch.empty(rank, *weight.shape[1:]).uniform_(-bound, bound, generator=generator)
    up = torch.zeros(weight.shape[0], rank, *(1,) * (weight.dim() - 2))
    return Pair(down, up, alpha)


def _stable_seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little")


def adapt(layer: nn.Module, name: str, pair: Pair, strength: float = 1.0) -> LowRank:
    """Give one layer one more adapter, on the layer's device; an adapter of that name is replaced."""
    if type(layer) in ADAPTED:
        layer.__class__ = ADAPTED[type(layer)]
        layer.adapters = nn.ModuleList()
    adapter = LowRank(name, pair, strength).to(layer.weight.device)
    layer.adapters = nn.ModuleList([a for a in layer.adapters if a.name != name] + [adapter])
    return adapter


def inject(
    parts: Mapping[str, nn.Module],
    ranks: Mapping[str, int],
    scale: float,
    *,
    adapter: str = "lora",
    seed: int = 0,
) -> list[nn.Parameter]:
    """A new adapter to train on each layer of `ranks`, with alpha = scale · rank; gives its parameters."""
    layers = named_layers(parts)
    parameters: list[nn.Parameter] = []
    for name, rank in ranks.items():
        pair = initial_pair(layers[name], rank, scale * rank, seed, name)
        parameters += adapt(layers[name], adapter, pair).parameters()
    return parameters


def attach(
    parts: Mapping[str, nn.Module], pairs: Mapping[str, Pair], *, adapter: str, strength: float = 1.0
) -> None:
    """Put a finished adapter, frozen, on the layers it names."""
    layers = named_layers(parts)
    for name, pair in pairs.items():
        adapt(layers[name], adapter, pair, strength).requires_grad_(False)


def detach(parts: Mapping[str, nn.Module], adapter: str) -> None:
    """Take one adapter away; a layer without any becomes a plain one again."""
    for layer in _adapted(parts).values():
        layer.adapters = nn.ModuleList([a for a in layer.adapters if a.name != adapter])
        if not layer.adapters:
            _restore(layer)


def _restore(layer: nn.Module) -> None:
    del layer.adapters
    layer.__class__ = PLAIN[type(layer)]


def _adapted(parts: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    return {name: layer for name, layer in named_layers(parts).items() if isinstance(layer, Adapted)}


def low_ranks(parts: Mapping[str, nn.Module]) -> Iterator[tuple[str, LowRank]]:
    """(layer name, adapter) for every adapter of every layer."""
    for name, layer in _adapted(parts).items():
        for adapter in layer.adapters:
            yield name, adapter


def adapters(parts: Mapping[str, nn.Module], adapter: str = "lora") -> dict[str, Pair]:
    """One adapter as data. The tensors are the live ones: clone them to keep a moment."""
    return {name: low_rank.pair for name, low_rank in low_ranks(parts) if low_rank.name == adapter}


def set_strength(parts: Mapping[str, nn.Module], adapter: str, strength: float) -> None:
    """1 is as trained, 0 is the base model exactly, negative is the opposite."""
    found = [low_rank for _, low_rank in low_ranks(parts) if low_rank.name == adapter]
    if not found:
        raise ValueError(f"There is no LoRA named {adapter!r} on this model; load it first.")
    for low_rank in found:
        low_rank.strength = strength


@contextmanager
def adapters_off(parts: Mapping[str, nn.Module]) -> Iterator[None]:
    """The base model for a while; strengths are put back."""
    strengths = [(low_rank, low_rank.strength) for _, low_rank in low_ranks(parts)]
    for low_rank, _ in strengths:
        low_rank.strength = 0.0
    try:
        yield
    finally:
        for low_rank, strength in strengths:
            low_rank.strength = strength


@torch.no_grad()
def merge(parts: Mapping[str, nn.Module]) -> None:
    """Fold every adapter at its strength into the weights, summed in fp32, and leave plain layers."""
    for layer in _adapted(parts).values():
        delta = sum(a.strength * delta_weight(a.pair) for a in layer.adapters)
        layer.weight.copy_(layer.weight.float() + delta.view_as(layer.weight))
        _restore(layer)
