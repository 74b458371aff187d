"""GroupNorm for the frozen U-Net, with what stands around it: an addend per image and channel before, SiLU after.

PyTorch's own works on NCHW: with channels-last pictures each one costs two changes of layout and a pass for SiLU, and
keeps what each of them made. On a card the kernels of norm_kernels.py read the picture twice, write it once, and keep
x and two numbers a group for the backward pass. Elsewhere it is the usual functions.
"""

import math
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from . import kernels

PROGRAMS = 1024  # enough of them to fill a card
MOST_PARTS = 64  # stretches of rows a picture is divided into; each program of the second pass reads them all
ONE_PASS_ROWS = 256  # up to 16 × 16 positions a second launch costs more than it gains


def group_norm(x: Tensor, norm: nn.GroupNorm, *, silu: bool = False, shift: Tensor | None = None) -> Tensor:
    """norm(x + shift), then SiLU if asked; x (B, C, H, W), shift (B, C) the same for a whole picture.

    The kernels give x a gradient, nothing else: a shift that learns is added before.
    """
    fused = kernels.run(GroupNorm, x.device, x.dtype)
    if shift is not None and (shift.requires_grad or not fused):
        x, shift = x + shift[:, :, None, None], None
    if fused:
        return GroupNorm.apply(x, shift, norm.weight, norm.bias, norm.num_groups, norm.eps, silu)
    y = F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
    return F.silu(y) if silu else y


class Plan(NamedTuple):
    """How a batch of pictures is shared out among programs."""

    grid: tuple[int, int, int]  # stretches of rows, chunks of channels, pictures
    sizes: tuple[int, ...]  # rows, channels, and of these a group's, a chunk's and a stretch's
    options: dict[str, int]  # what the kernels are compiled for


@cache
def plan(images: int, rows: int, channels: int, groups: int) -> Plan:
    one_pass = rows <= ONE_PASS_ROWS
    width = channels // groups
    # tall tiles have all loads of a small picture on their way at once; wide ones leave fewer lanes idle
    tile_rows, lanes = (128, 64) if one_pass else (32, 128)
    lanes = max(lanes, _power_of_two(width))
    span = _span(width, lanes)
    chunks = math.ceil(channels / span)
    parts = 1 if one_pass else min(MOST_PARTS, _power_of_two(PROGRAMS // (images * chunks)))
    stretch = tile_rows * math.ceil(rows / (tile_rows * parts))
    options = {
        "ALIGN": math.gcd(span, channels, 8),
        "ROWS": tile_rows,
        "LANES": lanes,
        "GROUPS": max(16, _power_of_two(span // width)),
        "num_warps": 8,
    }
    return Plan((math.ceil(rows / stretch), chunks, images), (rows, channels, width, span, stretch), options)


def _span(width: int, lanes: int) -> int:
    """Channels of as many whole groups as fit the lanes, in multiples of 8 if possible: as many are read at once."""
    step = 8 // math.gcd(width, 8)
    num_groups = lanes // width
    return width * (num_groups // step * step or num_groups)


def _power_of_two(number: int) -> int:
    """The least that is not below `number`."""
    return 1 << max(number - 1, 0).bit_length()


class GroupNorm(torch.autograd.Function):
    """The kernels as one function of x; shift (B, C) or None, weight and bias (C,) stand still."""

    @staticmethod
    def trial(device: torch.device, dtype: torch.dtype) -> None:
        x, one = (torch.full(size, 1.0, device=device, dtype=dtype) for size in ((1, 8, 2, 2), (8,)))
        with torch.enable_grad():
            GroupNorm.apply(x.requires_grad_(), None, one, one, 2, 1e-5, True).sum().backward()

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shift: Tensor | None, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
    ) -> Tensor:  # fmt: skip
        from . import norm_kernels

        x = x.contiguous(memory_format=torch.channels_last)
        shift = None if shift is None else shift.contiguous()
        y = torch.empty_like(x)
        grid, sizes, options = shared = plan(x.shape[0], x.shape[2] * x.shape[3], x.shape[1], groups)
        stats = x.new_empty(x.shape[0], groups, 2, dtype=torch.float32)
        partial = _partial(stats, shared)
        if partial is not None:
            norm_kernels.moments[grid](x, shift, partial, *sizes, **options)
        norm_kernels.normalise[grid](
            x, shift, weight, bias, y, partial, stats, *sizes, eps, SILU=silu, PARTS=MOST_PARTS, **options
        )
        ctx.save_for_backward(x, shift, weight, bias, stats)
        ctx.plan, ctx.silu = shared, silu
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from . import norm_kernels

        x, shift, weight, bias, stats = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = torch.empty_like(x)
        grid, sizes, options = ctx.plan
        partial = _partial(stats, ctx.plan)
        saved = (x, shift, weight, bias, dy)
        if partial is not None:
            norm_kernels.pull_sums[grid](*saved, partial, stats, *sizes, SILU=ctx.silu, **options)
        norm_kernels.pull[grid](
            *saved, dx, partial, stats, *sizes, SILU=ctx.silu, PARTS=MOST_PARTS, **options
        )
        return dx, *[None] * 6


def _partial(stats: Tensor, plan: Plan) -> Tensor | None:
    """Room for two sums of each group and stretch, where there is more than one stretch."""
    parts = plan.grid[0]
    return None if parts == 1 else stats.new_empty(*stats.shape, parts)
