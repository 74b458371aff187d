"""The U-Net's GroupNorm. Its kernels run here in Triton's interpreter, and on a card where there is one."""

import pytest
import torch
import torch.nn.functional as F
from on_a_card import assert_replayed
from torch import nn
from without_a_card import every_card, interpret, ptx, triton_only

from lora_sd.models import kernels, norm

# (B, C, H, W): SD 1.5 at 512 pixels, SDXL at 1024, and a bucket whose deepest level is odd
REAL_SHAPES = [
    (1, 320, 64, 64),
    (8, 320, 64, 64),
    (4, 960, 64, 64),
    (4, 640, 32, 32),
    (1, 1920, 32, 32),
    (4, 1280, 16, 16),
    (1, 2560, 16, 16),
    (8, 2560, 8, 8),
    (1, 320, 128, 128),
    (4, 640, 128, 128),
    (4, 960, 128, 128),
    (2, 1920, 32, 32),
    (2, 1280, 13, 19),
    (2, 640, 52, 76),
]


def layer(channels: int, groups: int, **options) -> nn.GroupNorm:
    """A frozen norm with weights of its own."""
    made = nn.GroupNorm(groups, channels, **options).requires_grad_(False)
    nn.init.normal_(made.weight, 1.0, 0.2)
    nn.init.normal_(made.bias)
    return made


@triton_only
def test_the_kernels_in_the_interpreter():
    interpret("norm_interpreted.py")


@triton_only
@every_card
@pytest.mark.parametrize("rows", [256, 4096])
def test_the_kernels_compile_for_cards_that_are_not_here(capability, dtype, rows):
    """And read 16 bytes at once."""
    from lora_sd.models import norm_kernels

    passes, plan = [norm_kernels.normalise, norm_kernels.pull], norm.plan(1, rows, 320, 32)
    constants = {"SILU": True, "PARTS": norm.MOST_PARTS, **plan.options}
    if plan.grid[0] == 1:
        constants["partial"] = None
    else:
        passes += [norm_kernels.moments, norm_kernels.pull_sums]
    types = dict.fromkeys(("x", "y", "dx", "dy", "shift", "weight", "bias"), f"*{dtype}")
    types |= {"partial": "*fp32", "stats": "*fp32", "eps": "fp32"}
    for kernel in passes:
        assert "ld.global.v4" in ptx(kernel, capability, types, constants, width="C", num_warps=8)


@pytest.mark.parametrize("groups, channels", [(32, 320), (32, 2560), (32, 1920), (7, 21), (2, 16), (2, 2048)])
@pytest.mark.parametrize("images, rows", [(1, 1), (8, 64), (1, 257), (1, 4096), (4, 16384), (300, 4096)])
def test_a_plan_covers_every_number_once(images, rows, channels, groups):
    (parts, chunks, _), (_, _, width, span, stretch), options = norm.plan(images, rows, channels, groups)
    assert (parts - 1) * stretch < rows <= parts * stretch
    assert (chunks - 1) * span < channels <= chunks * span
    assert span % width == span % options["ALIGN"] == channels % options["ALIGN"] == 0
    assert span <= options["LANES"] and span // width <= options["GROUPS"] and parts <= norm.MOST_PARTS


@pytest.mark.parametrize("silu", [True, False])
def test_without_a_card_it_is_the_usual_functions(silu):
    x, shift, base = torch.randn(2, 16, 6, 6), torch.randn(2, 16), layer(16, 8)
    expected = base(x + shift[:, :, None, None])
    found = norm.group_norm(x, base, silu=silu, shift=shift)
    assert torch.equal(found, F.silu(expected) if silu else expected)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.bfloat16, 2**-7), (torch.float16, 2**-9), (torch.float32, 2e-5)]
)
@pytest.mark.parametrize("shape", REAL_SHAPES, ids=str)
def test_it_is_group_norm_on_a_card(shape, dtype, tolerance):
    """Relative to the largest value, against fp64."""
    base = layer(shape[1], 32).to("cuda", dtype)
    x = (
        (2 * torch.randn(shape, device="cuda") + 1)
        .to(dtype, memory_format=torch.channels_last)
        .requires_grad_()
    )
    shift, grad_y = (torch.randn(size, device="cuda", dtype=dtype) for size in (shape[:2], shape))
    assert kernels.run(norm.GroupNorm, x.device, dtype)
    y = norm.group_norm(x, base, silu=True, shift=shift)
    y.backward(grad_y)
    exact_x = x.detach().double().requires_grad_()
    exact_y = F.silu(
        F.group_norm(
            exact_x + shift.double()[:, :, None, None], 32, base.weight.double(), base.bias.double(), base.eps
        )
    )
    exact_y.backward(grad_y.double())
    for found, exact in ((y, exact_y), (x.grad, exact_x.grad)):
        assert (found - exact).abs().max() <= tolerance * exact.abs().max()


@pytest.mark.gpu
def test_a_shift_that_learns_gets_its_gradient():
    base = layer(320, 32).cuda()
    x = torch.randn(2, 320, 32, 32, device="cuda").to(memory_format=torch.channels_last)
    fused, plain = (torch.zeros(2, 320, device="cuda", requires_grad=True) for _ in range(2))
    norm.group_norm(x, base, silu=True, shift=fused).square().sum().backward()
    F.silu(base(x + plain[:, :, None, None])).square().sum().backward()
    torch.testing.assert_close(fused.grad, plain.grad, rtol=1e-3, atol=1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(1, 320, 64, 64), (4, 1280, 16, 16)], ids=str)
def test_a_graph_replays_it_bit_for_bit(shape):
    base = layer(shape[1], 32).to("cuda", torch.bfloat16)
    x, grad_y = (
        torch.randn(shape, device="cuda", dtype=torch.bfloat16).to(memory_format=torch.channels_last)
        for _ in "xy"
    )
    x.requires_grad_()

    def work():
        y = norm.group_norm(x, base, silu=True)
        return y, *torch.autograd.grad(y, x, grad_y)

    assert_replayed(work)
