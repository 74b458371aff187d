"""Frozen weights in 8 bits: W ≈ scale · packed, int8 with one fp32 scale for each output row, symmetric about 0.

Half the memory of half precision. The dense weight is made where it is needed, in the forward and again in the backward
pass, and kept by neither; nor is the input, for a frozen layer has no weight gradient.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..models.frozen import FrozenConv

LEVELS = 127  # -128 is left out, so that a row and its negative pack alike
SMALLEST = 2**14  # weights; the first and the last convolution of every U-Net here have fewer


class Packed(nn.Module):
    """What PackedLinear and PackedConv2d share. Made from a plain layer by `pack_layer`, which changes its class in place."""

    packed: Tensor  # int8, shaped and laid out like the weight
    scale: Tensor  # (out, 1, …) fp32
    dense_dtype: torch.dtype

    @property
    def weight(self) -> Tensor:
        """The dense weight, made anew at each access: in one pass, multiplied in fp32 and rounded once."""
        return torch.mul(self.packed, self.scale, out=torch.empty_like(self.packed, dtype=self.dense_dtype))


class PackedLinear(Packed, nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return _FrozenLinear.apply(x, self)


class PackedConv2d(Packed, nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return FrozenConv.apply(x, self, self.bias)


class _FrozenLinear(torch.autograd.Function):
    """A Linear that only x learns through: all it keeps for the backward pass is which layer it was."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.weight, layer.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None]:
        return grad_y @ ctx.layer.weight, None


@torch.no_grad()
def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(packed, scale) such that scale · packed is within scale / 2 of every weight; scale is max |row| / 127."""
    rows = weight.float()
    scale = rows.flatten(1).abs().amax(1) / LEVELS
    scale[scale == 0] = 1.0  # a row of zeros
    scale = scale.view(-1, *(1,) * (weight.dim() - 1))
    return (rows / scale).round_().to(torch.int8), scale


def worth_packing(layer: nn.Module) -> bool:
    """Whether a Linear or Conv2d, adapted or not, is large and not in 8 bits yet."""
    dense = isinstance(layer, nn.Linear | nn.Conv2d) and not isinstance(layer, Packed)
    return dense and layer.weight.numel() >= SMALLEST


def pack_layer(layer: nn.Module, kind: type[Packed]) -> None:
    """Turn a plain frozen layer into `kind`, a PackedLinear or PackedConv2d, on the layer's device; its weight is freed."""
    packed, scale = quantize(layer.weight)
    layer.dense_dtype = layer.weight.dtype
    del layer.weight
    layer.register_buffer("packed", packed)
    layer.register_buffer("scale", scale)
    layer.__class__ = kind
