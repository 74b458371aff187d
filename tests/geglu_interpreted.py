"""The kernels of GEGLU in Triton's interpreter, on the CPU: test_geglu.py runs this file with TRITON_INTERPRET=1."""

import pytest
import torch
import torch.nn.functional as F

from lora_sd.models.geglu import GEGLU

# rows and width of the result: whole tiles, parts of tiles, one number, three dimensions
SHAPES = [(8, 512), (5, 1280), (3, 300), (1, 1), (7, 16), (2, 3, 257)]


def errors(shape, *, dtype=torch.float32, scale=2.0):
    """The largest errors of y and of the gradient of x beside PyTorch's in fp64."""
    generator = torch.Generator().manual_seed(shape[-1])
    *rows, width = shape
    x = (scale * torch.randn(*rows, 2 * width, generator=generator)).to(dtype).requires_grad_()
    grad_y = torch.randn(shape, generator=generator).to(dtype)

    exact_x = x.detach().double().requires_grad_()
    value, gate = exact_x.chunk(2, -1)
    exact_y = value * F.gelu(gate)
    exact_y.backward(grad_y.double())

    y = GEGLU.apply(x, True)
    y.backward(grad_y)
    assert y.shape == shape and y.dtype == x.grad.dtype == dtype
    return max((y - exact_y).abs().max().item(), (x.grad - exact_x.grad).abs().max().item())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_geglu(shape):
    assert errors(shape) < 1e-5


@pytest.mark.parametrize("dtype, unit", [(torch.bfloat16, 2**-4), (torch.float16, 2**-7)])
def test_half_precision_is_rounded_once_at_the_end(dtype, unit):
    """By less than the step between numbers of 8 to 16; the interpreter cuts off where a card rounds."""
    assert errors((4, 512), dtype=dtype, scale=1.0) < unit


def test_far_from_zero_the_gate_is_open_or_shut():
    x = torch.tensor([[3.0, 3.0, 3.0, 200.0, -200.0, 0.0]], requires_grad=True)
    y = GEGLU.apply(x, True)
    y.sum().backward()
    assert y.tolist() == [[600.0, 0.0, 0.0]]
    assert x.grad.tolist() == [[200.0, 0.0, 0.0, 3.0, 0.0, 1.5]]
