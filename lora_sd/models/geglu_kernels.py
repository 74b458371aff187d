"""GEGLU as Triton kernels: one pass each over rows [value, gate] of 2F numbers, in fp32 inside; geglu.py calls them.

A program takes a few rows by as many columns as a warp reads at once with 16 bytes a thread.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS = 4, 256  # of a tile; the widths of the real models are multiples of 256

INV_SQRT2 = tl.constexpr(0.7071067811865476)
INV_SQRT_2PI = tl.constexpr(0.3989422804014327)


def forward(x: Tensor) -> Tensor:
    """(…, 2F), contiguous, to (…, F)."""
    width = x.shape[-1] // 2
    y = x.new_empty(*x.shape[:-1], width)
    _launch(multiply, y, x, y)
    return y


def backward(x: Tensor, dy: Tensor) -> Tensor:
    """The gradient of x from that of y, both contiguous."""
    dx = torch.empty_like(x)
    _launch(pull, dy, x, dy, dx)
    return dx


def _launch(kernel: triton.JITFunction, y: Tensor, *tensors: Tensor) -> None:
    """One program for each tile of y."""
    width = y.shape[-1]
    rows = y.numel() // width
    tiles = triton.cdiv(rows, ROWS) * triton.cdiv(width, COLUMNS)
    kernel[(tiles,)](*tensors, rows, width, ROWS=ROWS, COLUMNS=COLUMNS)


@triton.jit
def _tile(rows, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Offsets of this program's numbers in y and of their values in x, and which exist; gates lie `width` further."""
    across = tl.cdiv(width, COLUMNS)  # neighbours in memory belong to programs that run together
    row = tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)
    there = (row < rows)[:, None] & (column < width)[None, :]
    start = row.to(tl.int64)[:, None] * width
    return start + column[None, :], 2 * start + column[None, :], there


@triton.jit
def _normal(gate):
    """Φ(gate): gelu(gate) = gate · Φ(gate)."""
    return 0.5 + 0.5 * tl.erf(gate * INV_SQRT2)


@triton.jit(do_not_specialize=["rows"])
def multiply(x, y, rows, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """y = value · gelu(gate)"""
    at, pair, there = _tile(rows, width, ROWS, COLUMNS)
    value = tl.load(x + pair, there, 0.0).to(tl.float32)
    gate = tl.load(x + pair + width, there, 0.0).to(tl.float32)
    tl.store(y + at, value * gate * _normal(gate), there)


@triton.jit(do_not_specialize=["rows"])
def pull(x, dy, dx, rows, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """dx = [dy · gelu(gate), dy · value · (Φ + gate · φ)], φ the density of Φ."""
    at, pair, there = _tile(rows, width, ROWS, COLUMNS)
    value = tl.load(x + pair, there, 0.0).to(tl.float32)
    gate = tl.load(x + pair + width, there, 0.0).to(tl.float32)
    grad = tl.load(dy + at, there, 0.0).to(tl.float32)
    normal = _normal(gate)
    density = INV_SQRT_2PI * tl.exp(-0.5 * gate * gate)
    tl.store(dx + pair, grad * gate * normal, there)
    tl.store(dx + pair + width, grad * value * (normal + gate * density), there)
