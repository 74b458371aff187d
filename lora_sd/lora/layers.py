"""Low-rank adapters inside Linear and Conv2d: y = W x + Σ strength · (alpha / rank) · up(down(x)) (arXiv:2106.09685).

An adapted layer *is* the layer it replaces, so base keys keep their names; it carries any number of named adapters,
each with its own strength. Layers are named `part.path` with diffusers' paths: "unet.mid_block.attentions.0.proj_in".
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import dora, packed
from .dropout import Dropout, LayerDropout
from .initial import Initial, initial_pair, principal
from .packed import PackedConv2d, PackedLinear
from .pairs import LowRank, Pair


class Adapted(nn.Module):
    """What LoRALinear and LoRAConv2d share. Made from a plain layer by `adapt`, which changes its class in place."""

    adapters: nn.ModuleList
    channel_axis: int  # of what goes in and comes out

    def forward(self, x: Tensor) -> Tensor:
        first, *others = [a for a in self.adapters if a.strength != 0] or [None]
        y = super().forward(x) if first is None else self.with_one(x, first)
        for adapter in others:
            y = y + self.change(x, adapter)
        return y

    def with_one(self, x: Tensor, adapter: LowRank) -> Tensor:
        """The layer with one adapter."""
        if adapter.magnitude is None:
            return self.adapted(x, adapter)
        y = self.decomposed(x, adapter)
        return y if adapter.strength == 1 else torch.lerp(super().forward(x), y, adapter.strength)

    def change(self, x: Tensor, adapter: LowRank) -> Tensor:
        """What one adapter adds: strength · ΔW x, or of a DoRA strength · (W' − W) x."""
        if adapter.magnitude is None:
            return self.low_rank(x, adapter)
        return adapter.strength * (self.decomposed(x, adapter) - super().forward(x))

    def decomposed(self, x: Tensor, adapter: LowRank) -> Tensor:
        """The layer with a DoRA at strength 1: outputs or inputs times their channels' gain."""
        # in half precision a number so near to 1 would lose its digits: 1 is taken off before it is rounded
        weight = self.weight
        more = dora.gain(weight, adapter) - 1
        if adapter.dropping:
            more = adapter.dropping.of_layer(more)
        if dora.axis_of(adapter.magnitude, weight) == "input":
            return self.adapted(torch.addcmul(x, x, self.by_channel(more, x)), adapter)
        y = self.adapted(x, adapter)
        linear = y if self.bias is None else y - self.by_channel(self.bias, y)
        return torch.addcmul(y, linear, self.by_channel(more, y))

    def by_channel(self, values: Tensor, x: Tensor) -> Tensor:
        """Values of channels, shaped to multiply x; every group of a convolution has those of its inputs."""
        shape = [1] * x.dim()
        shape[self.channel_axis] = x.shape[self.channel_axis]
        return values.flatten().repeat(x.shape[self.channel_axis] // values.numel()).to(x.dtype).view(shape)

    def adapted(self, x: Tensor, adapter: LowRank) -> Tensor:
        """W x + scale · up(down(x))."""
        return super().forward(x) + self.low_rank(x, adapter)

    def low_rank(self, x: Tensor, adapter: LowRank) -> Tensor:
        """scale · up(down(x))."""
        down, up = adapter.factors(x.dtype)
        drop = adapter.dropping
        # the scale goes on the narrow middle: `rank` numbers per position instead of `out`
        narrow = adapter.scale * self.narrow(drop.of_inputs(x) if drop else x, down)
        return self.widen(drop.of_layer(drop.of_ranks(narrow, self.channel_axis)) if drop else narrow, up)


class LoRALinear(Adapted, nn.Linear):
    channel_axis = -1

    def adapted(self, x: Tensor, adapter: LowRank) -> Tensor:
        if adapter.dropping:
            return super().adapted(x, adapter)
        return _Product.apply(x, *adapter.factors(x.dtype), self, adapter.scale)

    def narrow(self, x: Tensor, down: Tensor) -> Tensor:
        return F.linear(x, down)

    def widen(self, x: Tensor, up: Tensor) -> Tensor:
        return F.linear(x, up)


class _Product(torch.autograd.Function):
    """y = x Wᵀ + b + scale · (x downᵀ) upᵀ with W and b frozen.

    As one function the low-rank part is added by the matrix product that makes it, forward and backward: no pass over
    x or y besides, where separate operations need five.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, down: Tensor, up: Tensor, layer: nn.Module, scale: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (N, in)
        narrow = rows @ down.T  # (N, rank)
        y = F.linear(rows, layer.weight.flatten(1), layer.bias).addmm_(narrow, up.T, alpha=scale)  # (N, out)
        ctx.save_for_backward(rows, narrow, down, up)
        ctx.layer, ctx.scale = layer, scale
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        rows, narrow, down, up = ctx.saved_tensors
        wants_x, wants_down, wants_up = ctx.needs_input_grad[:3]
        grad = grad_y.reshape(-1, grad_y.shape[-1])  # (N, out)
        grad_narrow = _product(grad, up, ctx.scale)  # (N, rank)
        grad_x = (grad @ ctx.layer.weight.flatten(1)).addmm_(grad_narrow, down) if wants_x else None
        return (
            grad_x.view(*grad_y.shape[:-1], -1) if wants_x else None,
            grad_narrow.T @ rows if wants_down else None,
            _product(grad.T, narrow, ctx.scale) if wants_up else None,
            None,
            None,
        )


def _product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale · a b, scaled inside the product."""
    return a.new_empty(a.shape[0], b.shape[1]).addmm_(a, b, beta=0, alpha=scale)


class LoRAConv2d(Adapted, nn.Conv2d):
    channel_axis = 1

    def adapted(self, x: Tensor, adapter: LowRank) -> Tensor:
        if adapter.dropping or not (self._pointwise and x.is_contiguous(memory_format=torch.channels_last)):
            return super().adapted(x, adapter)
        # a channels-last picture is a matrix with a row for each position, and this layer a Linear on it
        down, up = (matrix.flatten(1) for matrix in adapter.factors(x.dtype))
        return _Product.apply(x.permute(0, 2, 3, 1), down, up, self, adapter.scale).permute(0, 3, 1, 2)

    @property
    def _pointwise(self) -> bool:
        geometry = (self.kernel_size, self.stride, self.padding, self.groups)
        return geometry == ((1, 1), (1, 1), (0, 0), 1)

    def narrow(self, x: Tensor, down: Tensor) -> Tensor:
        # stride, padding and dilation are the layer's own; every group gets all of `down`, as ΔW has it
        return self._conv_forward(x, down.expand(self.groups, *down.shape).flatten(0, 1), None)

    def widen(self, x: Tensor, up: Tensor) -> Tensor:
        return F.conv2d(x, up, groups=self.groups)


class LoRAPackedLinear(LoRALinear, PackedLinear):
    pass


class LoRAPackedConv2d(LoRAConv2d, PackedConv2d):
    pass


ADAPTED = {
    nn.Linear: LoRALinear,
    nn.Conv2d: LoRAConv2d,
    PackedLinear: LoRAPackedLinear,
    PackedConv2d: LoRAPackedConv2d,
}
PACKED = {
    nn.Linear: PackedLinear,
    nn.Conv2d: PackedConv2d,
    LoRALinear: LoRAPackedLinear,
    LoRAConv2d: LoRAPackedConv2d,
}
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


def adapt(layer: nn.Module, name: str, pair: Pair, strength: float = 1.0) -> LowRank:
    """Give one layer one more adapter, on the layer's device; an adapter of that name is replaced."""
    if type(layer) in ADAPTED:
        layer.__class__ = ADAPTED[type(layer)]
        layer.adapters = nn.ModuleList()
    adapter = LowRank(name, pair, strength)
    if pair.magnitude is not None:
        adapter.base_squares = dora.squares(layer.weight, dora.axis_of(pair.magnitude, layer.weight))
    adapter.to(layer.weight.device)
    layer.adapters = nn.ModuleList([a for a in layer.adapters if a.name != name] + [adapter])
    return adapter


def inject(
    parts: Mapping[str, nn.Module],
    ranks: Mapping[str, int],
    scale: float | Mapping[str, float],
    *,
    adapter: str = "lora",
    seed: int = 0,
    dropout: Dropout | None = None,
    train_down: bool = True,
    initial: Initial = "random",
    magnitudes: dora.Axis | None = None,
) -> list[nn.Parameter]:
    """A new adapter to train on each layer of `ranks`, with alpha = scale (of all, or by layer) · rank; gives what learns.

    `magnitudes` makes it a DoRA, which begins with those of the base.
    """
    layers = named_layers(parts)
    scales = scale if isinstance(scale, Mapping) else dict.fromkeys(ranks, scale)
    parameters: list[nn.Parameter] = []
    for name, rank in ranks.items():
        pair = initial_pair(layers[name], rank, scales[name] * rank, seed, name, initial)
        if magnitudes:
            squares = dora.squares(layers[name].weight, magnitudes)
            pair = pair._replace(magnitude=dora.root(squares))
        low_rank = adapt(layers[name], adapter, pair)
        if initial == "pissa":
            low_rank.begin_at(principal(layers[name].weight, rank, scales[name], seed, name))
        low_rank.dropout = LayerDropout(dropout, name) if dropout else None
        low_rank.down.requires_grad_(train_down)
        parameters += low_rank.learnt.values()
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
    """One adapter as data. Tensors may be the live ones: clone them to keep a moment."""
    return {name: low_rank.pair for name, low_rank in low_ranks(parts) if low_rank.name == adapter}


def set_strength(parts: Mapping[str, nn.Module], adapter: str, strength: float | Mapping[str, float]) -> None:
    """Of all its layers, or by layer: 1 is as trained, 0 is the base model exactly, negative is the opposite."""
    found = {name: low_rank for name, low_rank in low_ranks(parts) if low_rank.name == adapter}
    if not found:
        raise ValueError(f"There is no LoRA named {adapter!r} on this model; load it first.")
    for name, low_rank in found.items():
        low_rank.strength = strength[name] if isinstance(strength, Mapping) else strength


def pack(model: nn.Module) -> None:
    """Keep the frozen weights of every large layer in 8 bits, adapted or not; one layer after another, in place."""
    for layer in model.modules():
        if packed.worth_packing(layer):
            packed.pack_layer(layer, PACKED[type(layer)])


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
        layer.weight.copy_(layer.weight.float() + sum(dora.change(layer.weight, a) for a in layer.adapters))
        _restore(layer)
