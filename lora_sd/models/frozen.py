"""A convolution that does not learn."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class FrozenConv(torch.autograd.Function):
    """A convolution that only x learns through, and so keeps nothing: PyTorch's own keeps x in any case."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: nn.Conv2d, bias: Tensor | None) -> Tensor:
        ctx.conv, ctx.shape = conv, x.shape
        return F.conv2d(x, conv.weight, bias, *_geometry(conv))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None, None]:
        return nn.grad.conv2d_input(ctx.shape, ctx.conv.weight, grad_y, *_geometry(ctx.conv)), None, None


def _geometry(conv: nn.Conv2d) -> tuple:
    return conv.stride, conv.padding, conv.dilation, conv.groups
