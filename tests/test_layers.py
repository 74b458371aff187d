"""An adapted layer is the layer it replaces, plus strength · (alpha / rank) · up @ down."""

import copy
import math

import pytest
import torch
from torch import nn

from lora_sd.lora.layers import (
    LoRAConv2d,
    LoRALinear,
    adapters,
    adapters_off,
    attach,
    detach,
    inject,
    low_ranks,
    merge,
    named_layers,
    set_strength,
)
from lora_sd.lora.pairs import Factors, Pair, delta_weight
from lora_sd.models.family import Conditioning, Models

LAYERS = {
    "linear": (lambda: nn.Linear(6, 8), (2, 5, 6)),
    "conv1x1": (lambda: nn.Conv2d(6, 8, 1, bias=False), (2, 6, 7, 9)),
    "conv3x3": (lambda: nn.Conv2d(6, 8, 3, padding=1), (2, 6, 7, 9)),
    "strided": (lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1), (2, 6, 7, 9)),
    "dilated": (lambda: nn.Conv2d(6, 8, 3, dilation=2, padding=(2, 1)), (2, 6, 7, 9)),
    "grouped": (lambda: nn.Conv2d(6, 8, 3, groups=2), (2, 6, 7, 9)),
    "reflecting": (lambda: nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"), (2, 6, 7, 9)),
}
kinds = pytest.mark.parametrize("kind", LAYERS)


def one_layer(kind: str) -> tuple[dict[str, nn.Module], torch.Tensor]:
    """A part with one frozen layer, named "unet.0", and an input for it."""
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    return {"unet": nn.Sequential(make()).requires_grad_(False)}, torch.randn(shape)


def random_pair(layer: nn.Module, rank: int = 3, alpha: float = 1.5) -> Pair:
    out, *inputs = layer.weight.shape
    return Pair(torch.randn(rank, *inputs), torch.randn(out, rank, *(1,) * (len(inputs) - 1)), alpha)


@kinds
def test_adapted_output_is_that_of_w_plus_ba(kind):
    parts, x = one_layer(kind)
    pair = random_pair(parts["unet"][0])
    expected = copy.deepcopy(parts["unet"])
    update = 0.7 * (1.5 / 3) * pair.up.flatten(1) @ pair.down.flatten(1)
    expected[0].weight += update.view_as(expected[0].weight)
    attach(parts, {"unet.0": pair}, adapter="a", strength=0.7)
    torch.testing.assert_close(parts["unet"](x), expected(x), rtol=1e-5, atol=1e-5)


@kinds
def test_merge_keeps_the_output_and_leaves_a_plain_layer(kind):
    parts, x = one_layer(kind)
    plain = type(parts["unet"][0])
    for name, strength in (("a", 0.5), ("b", -1.5)):
        attach(parts, {"unet.0": random_pair(parts["unet"][0])}, adapter=name, strength=strength)
    before = parts["unet"](x)
    merge(parts)
    assert type(parts["unet"][0]) is plain
    torch.testing.assert_close(parts["unet"](x), before, rtol=1e-5, atol=2e-5)


@torch.no_grad()
def outputs(models: Models) -> list[torch.Tensor]:
    """Of the U-Net and of every text encoder, for a fixed input."""
    generator = torch.Generator().manual_seed(1)
    pooled = models.text_encoders[-1].config.projection_dim
    tokens = torch.randn(1, 77, models.unet.config.cross_attention_dim, generator=generator)
    conditioning = Conditioning(tokens, torch.randn(1, pooled, generator=generator))
    x, sizes = torch.randn(1, 4, 16, 16, generator=generator), torch.tensor([[128, 128, 0, 0, 128, 128]])
    ids = torch.arange(20, 97)[None]
    return [
        models.predict(x, torch.tensor([500]), conditioning, sizes),
        *(encoder(ids, output_hidden_states=True).hidden_states[-1] for encoder in models.text_encoders),
    ]


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
def test_new_adapters_give_the_base_output_exactly(family, tiny_models):
    models = tiny_models(family)
    before = outputs(models)
    inject(models.parts(), dict.fromkeys(named_layers(models.parts()), 4), 0.5)
    assert all(map(torch.equal, outputs(models), before))
    for _, adapter in low_ranks(models.parts()):
        nn.init.normal_(adapter.up, std=0.1)
    assert not any(map(torch.equal, outputs(models), before))
    with adapters_off(models.parts()):
        assert all(map(torch.equal, outputs(models), before))


def test_a_layer_keeps_its_keys_its_class_tree_and_its_weight():
    parts, _ = one_layer("conv3x3")
    weight, keys = parts["unet"][0].weight, list(parts["unet"].state_dict())
    inject(parts, {"unet.0": 2}, 1.0)
    layer = parts["unet"][0]
    assert isinstance(layer, nn.Conv2d) and type(layer) is LoRAConv2d and layer.weight is weight
    assert list(parts["unet"].state_dict())[: len(keys)] == keys


def test_detach_leaves_what_was_there():
    parts, x = one_layer("linear")
    before, keys = parts["unet"](x), list(parts["unet"].state_dict())
    for name in ("a", "b"):
        attach(parts, {"unet.0": random_pair(parts["unet"][0])}, adapter=name)
    detach(parts, "a")
    assert type(parts["unet"][0]) is LoRALinear and list(adapters(parts, "b")) == ["unet.0"]
    detach(parts, "b")
    assert type(parts["unet"][0]) is nn.Linear and list(parts["unet"].state_dict()) == keys
    assert torch.equal(parts["unet"](x), before)


def test_several_adapters_add_up():
    parts, x = one_layer("linear")
    base = parts["unet"](x)
    pairs = {name: random_pair(parts["unet"][0]) for name in ("file v1.5.safetensors", "items")}
    for name, pair in pairs.items():
        attach(parts, {"unet.0": pair}, adapter=name)
    set_strength(parts, "items", -0.5)
    first, second = (x @ delta_weight(pair).T for pair in pairs.values())
    torch.testing.assert_close(parts["unet"](x), base + first - 0.5 * second, rtol=1e-5, atol=1e-5)


def test_attaching_again_replaces():
    parts, _ = one_layer("linear")
    first, second = random_pair(parts["unet"][0]), random_pair(parts["unet"][0])
    attach(parts, {"unet.0": first}, adapter="a")
    attach(parts, {"unet.0": second}, adapter="a")
    assert len(parts["unet"][0].adapters) == 1
    assert torch.equal(adapters(parts, "a")["unet.0"].down, second.down)


@kinds
def test_strength_0_is_the_base_exactly(kind):
    parts, x = one_layer(kind)
    before = parts["unet"](x)
    attach(parts, {"unet.0": random_pair(parts["unet"][0])}, adapter="a")
    assert not torch.equal(parts["unet"](x), before)
    set_strength(parts, "a", 0)
    assert torch.equal(parts["unet"](x), before)


def test_adapters_off_puts_strengths_back_even_after_an_error():
    parts, x = one_layer("linear")
    before = parts["unet"](x)
    attach(parts, {"unet.0": random_pair(parts["unet"][0])}, adapter="a", strength=0.3)
    with pytest.raises(KeyError), adapters_off(parts):
        assert torch.equal(parts["unet"](x), before)
        raise KeyError
    assert [adapter.strength for _, adapter in low_ranks(parts)] == [0.3]


def test_strength_of_an_unknown_adapter_is_an_error():
    parts, _ = one_layer("linear")
    with pytest.raises(ValueError, match="no LoRA named 'b'"):
        set_strength(parts, "b", 1)


@kinds
def test_start_values_are_kaiming_uniform_and_zero(kind):
    parts, _ = one_layer(kind)
    inject(parts, {"unet.0": 64}, 0.5)
    pair = adapters(parts)["unet.0"]
    bound = 1 / math.sqrt(parts["unet"][0].weight[0].numel())
    assert bound * 0.98 < pair.down.abs().max() <= bound
    assert pair.down.mean().abs() < bound / 10
    assert not pair.up.any() and pair.alpha == 32.0


def test_start_values_depend_on_seed_and_name_alone():
    def start(ranks: dict[str, int], seed: int) -> torch.Tensor:
        parts = {"unet": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))}
        torch.manual_seed(len(ranks))
        inject(parts, ranks, 1.0, seed=seed)
        return adapters(parts)["unet.1"].down

    alone = start({"unet.1": 2}, seed=7)
    assert torch.equal(start({"unet.0": 2, "unet.1": 2}, seed=7), alone)
    assert not torch.equal(start({"unet.1": 2}, seed=8), alone)


def test_only_injected_adapters_train():
    parts, x = one_layer("linear")
    attach(parts, {"unet.0": random_pair(parts["unet"][0])}, adapter="finished")
    parameters = inject(parts, {"unet.0": 2}, 1.0)
    parts["unet"](x).square().sum().backward()
    assert {id(p) for p in parts["unet"].parameters() if p.requires_grad} == {id(p) for p in parameters}
    assert all(p.grad is not None for p in parameters)


def test_a_channels_last_picture_gives_the_same_and_keeps_its_layout():
    parts, x = one_layer("conv1x1")
    attach(parts, {"unet.0": random_pair(parts["unet"][0])}, adapter="a", strength=0.7)
    results = []
    for picture in (x, x.to(memory_format=torch.channels_last)):
        picture = picture.detach().requires_grad_()
        y = parts["unet"](picture)
        y.square().sum().backward()
        results.append((y, picture.grad))
    torch.testing.assert_close(results[1], results[0])
    assert y.is_contiguous(memory_format=torch.channels_last)


@kinds
@pytest.mark.parametrize("others", [0, 1])
def test_gradients_are_the_derivative(kind, others):
    """Of the output by the input and by both matrices, against finite differences in fp64."""
    parts, x = one_layer(kind)
    layer = parts["unet"][0].double()
    for name in range(1 + others):
        attach(parts, {"unet.0": random_pair(layer)}, adapter=str(name), strength=0.7)
    last = layer.adapters[-1]
    down, up = (p.detach().double().requires_grad_() for p in (last.down, last.up))

    def run(x, down, up):
        last.copies = Factors(down, up)
        return layer(x)

    assert torch.autograd.gradcheck(run, (x[:1].double().requires_grad_(), down, up), fast_mode=True)


def test_a_frozen_adapter_below_a_trained_one_passes_the_gradient_on():
    parts, x = one_layer("linear")
    parts["unet"].append(nn.Linear(8, 3).requires_grad_(False))
    pair = random_pair(parts["unet"][0])
    inject(parts, {"unet.0": 2}, 1.0, adapter="trained")
    attach(parts, {"unet.1": random_pair(parts["unet"][1])}, adapter="frozen")
    attach(parts, {"unet.0": pair}, adapter="also frozen")
    parts["unet"](x).square().sum().backward()
    grads = {adapter.name: adapter.up.grad for _, adapter in low_ranks(parts)}
    assert grads["trained"].abs().sum() > 0 and grads["frozen"] is None and grads["also frozen"] is None


@kinds
def test_half_base_has_fp32_adapters_and_half_output(kind):
    parts, x = one_layer(kind)
    exact = copy.deepcopy(parts)
    pair = random_pair(parts["unet"][0])
    attach(exact, {"unet.0": pair}, adapter="a")
    parts["unet"].to(torch.bfloat16)
    attach(parts, {"unet.0": pair}, adapter="a")
    y = parts["unet"](x.to(torch.bfloat16))
    assert y.dtype == torch.bfloat16
    assert adapters(parts, "a")["unet.0"].down.dtype == torch.float32
    torch.testing.assert_close(y.float(), exact["unet"](x), rtol=0.05, atol=0.1)


def test_merge_into_half_rounds_once():
    parts, _ = one_layer("linear")
    parts["unet"].to(torch.bfloat16)
    weight = parts["unet"][0].weight.clone()
    pairs = [random_pair(parts["unet"][0]) for _ in range(2)]
    for name, pair in zip("ab", pairs, strict=True):
        attach(parts, {"unet.0": pair}, adapter=name)
    merge(parts)
    expected = weight.float() + (delta_weight(pairs[0]) + delta_weight(pairs[1]))
    assert torch.equal(parts["unet"][0].weight, expected.to(torch.bfloat16))


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_text_encoder_names_have_the_text_model_level(family, tiny_models):
    names = named_layers(tiny_models(family).parts())
    encoder_layers = [name for name in names if name.startswith("text_encoder") and "self_attn" in name]
    assert all(name.split(".")[1:4] == ["text_model", "encoder", "layers"] for name in encoder_layers)
    assert family != "sdxl" or "text_encoder_2.text_projection" in names
