"""Frozen layers in 8 bits: how far from the dense ones, how small, and that they run and learn through like them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lora_sd.lora import packed
from lora_sd.lora.layers import LoRALinear
from lora_sd.lora.packed import PackedConv2d, PackedLinear, pack_layer, quantize, worth_packing

LAYERS = {
    "linear": (lambda: nn.Linear(48, 32), PackedLinear, (5, 7, 48)),
    "linear, no bias": (lambda: nn.Linear(48, 32, bias=False), PackedLinear, (5, 48)),
    "conv": (lambda: nn.Conv2d(16, 32, 3, padding=1), PackedConv2d, (2, 16, 9, 11)),
    "strided conv": (lambda: nn.Conv2d(16, 32, 3, stride=2, padding=1), PackedConv2d, (2, 16, 9, 11)),
    "grouped conv": (lambda: nn.Conv2d(16, 32, 3, groups=4), PackedConv2d, (2, 16, 9, 11)),
}


@pytest.fixture(params=LAYERS)
def layers(request):
    """(the packed layer, a plain one with the same dense weight, an input)."""
    torch.manual_seed(0)
    make, kind, shape = LAYERS[request.param]
    plain = make().requires_grad_(False)
    pack_layer(layer := copy.deepcopy(plain), kind)
    plain.weight.copy_(layer.weight)
    return layer, plain, torch.randn(shape)


@pytest.mark.parametrize("shape", [(32, 48), (32, 16, 3, 3)])
def test_every_weight_is_within_half_a_level_of_its_row(shape):
    weight = torch.randn(shape) * torch.logspace(-6, 3, 32).view(-1, *(1,) * (len(shape) - 1))
    levels, scale = quantize(weight)
    assert levels.dtype == torch.int8
    assert torch.equal(scale.flatten(), weight.flatten(1).abs().amax(1) / 127)
    assert ((levels * scale - weight).abs() <= 0.5001 * scale).all()


def test_a_row_of_zeros_stays_zero_and_a_negative_packs_alike():
    weight = torch.randn(4, 8)
    weight[1] = 0
    levels, scale = quantize(weight)
    assert (levels[1] == 0).all() and scale.isfinite().all()
    assert torch.equal(quantize(-weight)[0], -levels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_dense_weight_is_rounded_once(dtype):
    layer = nn.Linear(64, 64).to(dtype).requires_grad_(False)
    levels, scale = quantize(layer.weight)
    pack_layer(layer, PackedLinear)
    assert layer.weight.dtype == dtype
    assert torch.equal(layer.weight, (levels.float() * scale).to(dtype))


def test_forward_and_input_gradient_are_the_dense_layers(layers):
    layer, plain, x = layers
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = layer(ours), plain(theirs)
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-6)


def test_nothing_is_kept_for_the_backward_pass(layers):
    layer, _, x = layers
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda tensor: tensor):
        layer(x.requires_grad_())
    assert kept == []


def test_the_layer_is_half_as_large_as_in_bf16():
    layer = nn.Conv2d(64, 64, 3).bfloat16().requires_grad_(False)
    before = layer.weight.nbytes
    pack_layer(layer, PackedConv2d)
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    assert before / 2 <= sum(buffer.nbytes for buffer in layer.buffers()) < 0.51 * before


def test_channels_last_stays_channels_last_and_may_come_later(layers):
    layer, _, _ = layers
    if isinstance(layer, PackedConv2d):
        assert layer.weight.is_contiguous()
        layer.to(memory_format=torch.channels_last)
        assert layer.weight.is_contiguous(memory_format=torch.channels_last)
        plain = nn.Conv2d(16, 32, 3).to(memory_format=torch.channels_last).requires_grad_(False)
        pack_layer(plain, PackedConv2d)
        assert plain.weight.is_contiguous(memory_format=torch.channels_last)


def test_it_moves_with_its_model(layers):
    layer, _, _ = layers
    assert nn.Sequential(layer).to("meta")[0].weight.is_meta


def test_an_adapted_layer_may_be_packed_too():
    class LoRAPackedLinear(LoRALinear, PackedLinear):
        pass

    pack_layer(layer := nn.Linear(8, 8).requires_grad_(False), LoRAPackedLinear)
    layer.adapters = nn.ModuleList()
    x = torch.randn(3, 8, requires_grad=True)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=0, atol=0)


def test_gradient_checkpointing_gives_the_same_gradients(layers):
    layer, _, x = layers
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.utils.checkpoint.checkpoint(layer, ours, use_reentrant=False).sum().backward()
    layer(theirs).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
def test_packing_leaves_the_small_layers_and_takes_nearly_all_weights(family):
    from real_shapes import real_parts

    unet = real_parts(family)["unet"]
    small = {n for n, m in unet.named_modules() if type(m) in (nn.Linear, nn.Conv2d) and not worth_packing(m)}
    taken = sum(m.weight.numel() for m in unet.modules() if worth_packing(m))
    assert small == {"conv_in", "conv_out"}
    assert taken > 0.998 * sum(p.numel() for p in unet.parameters())


def test_the_starter_in_8_bits_predicts_nearly_as_in_fp32(starter):
    """0.4 % of the prediction's size, where bf16 weights alone make 0.26 %."""
    torch.manual_seed(0)
    x, t, tokens = torch.randn(4, 4, 16, 16), torch.tensor([100, 300, 600, 900]), torch.randn(4, 77, 192)
    with torch.no_grad():
        dense = starter.unet(x, t, tokens).sample
        for layer in [m for m in starter.unet.modules() if worth_packing(m)]:
            pack_layer(layer, {nn.Linear: PackedLinear, nn.Conv2d: PackedConv2d}[type(layer)])
        error = starter.unet(x, t, tokens).sample - dense
    assert error.norm() < 0.01 * dense.norm()
    assert packed.SMALLEST > starter.unet.conv_in.weight.numel()
