"""The kernels of GroupNorm in Triton's interpreter, on the CPU: test_norm.py runs this file with TRITON_INTERPRET=1."""

import pytest
import torch
import torch.nn.functional as F

from lora_sd.models import norm

# (height, width), groups, channels of a group: the widths of SD 1.x and SDXL and odd ones; small pictures take one
# pass, those above 256 positions two; 14 groups of 10 are more than one chunk
SHAPES = [
    ((4, 4), 14, 10),
    ((17, 19), 14, 10),
    ((20, 16), 7, 20),
    ((17, 17), 5, 30),
    ((12, 9), 3, 40),
    ((17, 16), 4, 40),
    ((17, 16), 2, 80),
    ((1, 1), 8, 2),
    ((18, 18), 7, 3),
    ((17, 16), 2, 144),
]


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """The interpreter takes the time of each program."""
    monkeypatch.setattr(norm, "PROGRAMS", 16)


def errors(picture, groups, width, *, dtype=torch.float32, silu=True, shifted=False, mean=0.0):
    """The largest errors of y and of the gradient of x beside PyTorch's in fp64."""
    generator, channels = torch.Generator().manual_seed(width), groups * width

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    x = (draw(2, channels, *picture) + mean).to(dtype, memory_format=torch.channels_last).requires_grad_()
    weight, bias = (1 + draw(channels) / 4).to(dtype), draw(channels).to(dtype)
    shift = draw(2, channels).to(dtype) if shifted else None
    grad_y = draw(2, channels, *picture).to(dtype)

    exact_x = x.detach().double().requires_grad_()
    shifted_x = exact_x + shift.double()[:, :, None, None] if shifted else exact_x
    exact_y = F.group_norm(shifted_x, groups, weight.double(), bias.double(), 1e-5)
    exact_y = F.silu(exact_y) if silu else exact_y
    exact_y.backward(grad_y.double())

    y = norm.GroupNorm.apply(x, shift, weight, bias, groups, 1e-5, silu)
    y.backward(grad_y)
    assert y.dtype == x.grad.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    return max((y - exact_y).abs().max().item(), (x.grad - exact_x.grad).abs().max().item())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_group_norm_and_silu(shape):
    assert errors(*shape) < 1e-5


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("picture", [(8, 8), (24, 16)])
def test_a_shift_is_added_before(picture, silu):
    assert errors(picture, 4, 10, silu=silu, shifted=True) < 1e-5


@pytest.mark.parametrize("dtype, unit", [(torch.bfloat16, 2**-5), (torch.float16, 2**-8)])
def test_half_precision_is_rounded_once_at_the_end(dtype, unit):
    """By less than the step between numbers of 4 to 8; the interpreter cuts off where a card rounds."""
    assert errors((18, 18), 4, 20, dtype=dtype) < unit


@pytest.mark.parametrize("picture", [(8, 8), (24, 16)])
def test_a_mean_far_from_zero_costs_no_digits(picture):
    """In fp32, numbers near 100 are 7.6e-6 apart."""
    assert errors(picture, 4, 10, mean=100.0) < 5e-5
