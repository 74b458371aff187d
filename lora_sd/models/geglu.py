"""GEGLU, value · gelu(gate) (arXiv:2002.05202), keeping nothing but the projection [value, gate] that it is made of.

Separate operations keep gelu(gate) besides, and glue the gradients of the two halves together in one more pass. On a
card the kernels of geglu_kernels.py read each number once and write once, forward and backward.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import kernels


def geglu(x: Tensor) -> Tensor:
    """value · gelu(gate) of x = [value, gate]: (…, 2F) gives (…, F)."""
    return GEGLU.apply(x, kernels.run(GEGLU, x.device, x.dtype))


class GEGLU(torch.autograd.Function):
    """The kernels, or the usual functions in their place, as one function of x."""

    @staticmethod
    def trial(device: torch.device, dtype: torch.dtype) -> None:
        with torch.enable_grad():
            GEGLU.apply(
                torch.zeros(1, 16, device=device, dtype=dtype, requires_grad=True), True
            ).sum().backward()

    @staticmethod
    def forward(ctx: Any, x: Tensor, fused: bool) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x)
        ctx.fused = fused
        if fused:
            from . import geglu_kernels

            return geglu_kernels.forward(x)
        value, gate = x.chunk(2, -1)
        return value * F.gelu(gate)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        if ctx.fused:
            from . import geglu_kernels

            return geglu_kernels.backward(x, dy.contiguous()), None
        value, gate = x.chunk(2, -1)
        dx = torch.empty_like(x)
        d_value, d_gate = dx.chunk(2, -1)
        torch.mul(dy, F.gelu(gate), out=d_value)
        torch.ops.aten.gelu_backward.grad_input(dy * value, gate, grad_input=d_gate)
        return dx, None
