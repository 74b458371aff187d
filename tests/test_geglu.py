"""GEGLU of the transformers. Its kernels run here in Triton's interpreter, and on a card where there is one."""

import pytest
import torch
from diffusers.models.activations import GEGLU as DiffusersGEGLU
from on_a_card import assert_replayed
from torch import nn
from torch.utils.checkpoint import checkpoint
from without_a_card import every_card, interpret, ptx, triton_only

from lora_sd.models import kernels
from lora_sd.models.geglu import GEGLU, geglu

# (B, tokens, width of the result): SD 1.5 at 512 pixels, SDXL at 1024, a bucket with an odd number of tokens
REAL_SHAPES = [
    (1, 4096, 1280),
    (8, 1024, 2560),
    (4, 256, 5120),
    (8, 64, 5120),
    (1, 4096, 2560),
    (4, 1024, 5120),
    (3, 247, 5120),
]


class Identity(DiffusersGEGLU):
    """diffusers' own arithmetic on a projection that is given."""

    def __init__(self):
        nn.Module.__init__(self)
        self.proj = nn.Identity()


def run(function, x: torch.Tensor, grad_y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """y and the gradient of x."""
    x = x.detach().requires_grad_()
    y = function(x)
    return y.detach(), *torch.autograd.grad(y, x, grad_y)


@triton_only
def test_the_kernels_in_the_interpreter():
    interpret("geglu_interpreted.py")


@triton_only
@every_card
@pytest.mark.parametrize("name", ["multiply", "pull"])
def test_the_kernels_compile_for_cards_that_are_not_here(name, capability, dtype):
    """And read and write 16 bytes at once."""
    from lora_sd.models import geglu_kernels

    kernel = getattr(geglu_kernels, name)
    types = dict.fromkeys(("x", "y", "dx", "dy"), f"*{dtype}")
    constants = {"ROWS": geglu_kernels.ROWS, "COLUMNS": geglu_kernels.COLUMNS}
    found = ptx(kernel, capability, types, constants, width="width", num_warps=4)
    assert "ld.global.v4" in found and "st.global.v4" in found
    assert "ld.global.b16" not in found and "st.global.b16" not in found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 5, 12), (3, 7)])
def test_without_a_card_it_is_diffusers_own_to_the_bit(shape, dtype):
    x, grad_y = torch.randn(*shape[:-1], 2 * shape[-1]).to(dtype), torch.randn(shape).to(dtype)
    assert all(map(torch.equal, run(geglu, x, grad_y), run(Identity(), x, grad_y)))


def test_a_gradient_or_a_projection_that_lies_elsewhere_is_the_same():
    x, grad_y = torch.randn(12, 5).T, torch.randn(5, 1).expand(5, 6)
    torch.testing.assert_close(run(geglu, x, grad_y), run(Identity(), x, grad_y))


def test_only_the_projection_itself_is_kept():
    x, kept = torch.randn(4, 12, requires_grad=True), []
    projection = x * 2
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        geglu(projection)
    assert [tensor.data_ptr() for tensor in kept] == [projection.data_ptr()]


def test_computed_again_for_the_backward_pass_it_is_the_same():
    x, grad_y = torch.randn(4, 12), torch.randn(4, 6)
    again = run(lambda x: checkpoint(geglu, x, use_reentrant=False), x, grad_y)
    assert all(map(torch.equal, again, run(geglu, x, grad_y)))


@pytest.mark.gpu
@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.bfloat16, 2**-7), (torch.float16, 2**-9), (torch.float32, 1e-5)]
)
@pytest.mark.parametrize("fused", [True, False], ids=["kernels", "usual functions"])
@pytest.mark.parametrize("shape", REAL_SHAPES, ids=str)
def test_it_is_geglu_on_a_card(shape, fused, dtype, tolerance):
    """Relative to the largest value, against fp64."""
    *rows, width = shape
    x, grad_y = (torch.randn(size, device="cuda").to(dtype) for size in ((*rows, 2 * width), (*rows, width)))
    assert kernels.run(GEGLU, x.device, dtype)
    expected = run(Identity(), x.double(), grad_y.double())
    for found, exact in zip(run(lambda x: GEGLU.apply(x, fused), x, grad_y), expected, strict=True):
        assert found.dtype == dtype
        assert (found - exact).abs().max() <= tolerance * exact.abs().max()


@pytest.mark.gpu
def test_a_graph_replays_it_bit_for_bit():
    x, grad_y = (torch.randn(4096, n, device="cuda", dtype=torch.bfloat16) for n in (2560, 1280))
    x.requires_grad_()

    def work():
        y = geglu(x)
        return y, *torch.autograd.grad(y, x, grad_y)

    assert_replayed(work)
