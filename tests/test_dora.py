"""DoRA against the formula W' = m · (W + ΔW) / ‖W + ΔW‖, peft and diffusers, from the layer to the file."""

import copy
import json

import pytest
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from small_runs import body, config_for, stop_at
from test_formats import parts_of, text_output, unet_output
from test_layers import LAYERS, kinds, one_layer, random_pair
from torch import nn

from lora_sd import run
from lora_sd.lora import dora, formats, layers, warm
from lora_sd.lora.dropout import Dropout
from lora_sd.lora.inspection import inspect
from lora_sd.lora.pairs import delta_weight
from lora_sd.lora.targets import resolve
from lora_sd.models.load import load
from lora_sd.settings import LoraSettings
from lora_sd.training import adapter
from lora_sd.training.train import train
from lora_sd.training.vector import Vector

axes = pytest.mark.parametrize("axis", ["output", "input"])
SMALL = {"lora.ranks": {"unet.mid_block.*": 2, "unet.up_blocks.*": 0, "unet.down_blocks.*": 0}}


def random_dora(layer, axis, rank=3):
    pair = random_pair(layer, rank)
    norms = dora.squares(layer.weight, axis).sqrt()
    return pair._replace(magnitude=norms * (1 + 0.2 * torch.rand_like(norms)))


def whole(weight, pair, axis):
    """W', by the formula."""
    total = weight + delta_weight(pair).view_as(weight)
    rest = [dim for dim in range(weight.dim()) if dim != (0 if axis == "output" else 1)]
    return pair.magnitude * total / total.pow(2).sum(rest, keepdim=True).sqrt()


# -- the layer ---------------------------------------------------------------------------------------------------------


@kinds
@axes
@pytest.mark.parametrize("strength", [1, 0.6, -0.5])
def test_output_is_that_of_the_formula_at_any_strength(kind, axis, strength):
    """Strength is on all of W' − W, so that 0 is the base and 1 what was trained."""
    parts, x = one_layer(kind)
    layer = parts["unet"][0]
    pair, plain = random_dora(layer, axis), random_pair(layer)
    expected = copy.deepcopy(parts["unet"])
    change = strength * (whole(layer.weight, pair, axis) - layer.weight)
    expected[0].weight += change
    layers.attach(parts, {"unet.0": pair}, adapter="a", strength=strength)
    torch.testing.assert_close(parts["unet"](x), expected(x), rtol=1e-4, atol=1e-4)
    expected[0].weight += delta_weight(plain).view_as(layer.weight) + change
    for name, other, at in (("b", plain, 1), ("c", pair, strength)):
        layers.attach(parts, {"unet.0": other}, adapter=name, strength=at)
    torch.testing.assert_close(parts["unet"](x), expected(x), rtol=1e-4, atol=1e-4)
    layers.merge(parts)
    torch.testing.assert_close(layer.weight, expected[0].weight, rtol=1e-4, atol=1e-4)


@kinds
@axes
def test_a_new_one_is_the_base_bit_for_bit(kind, axis):
    parts, x = one_layer(kind)
    before = parts["unet"](x)
    layers.inject(parts, {"unet.0": 2}, 1.0, magnitudes=axis)
    assert torch.equal(parts["unet"](x), before)


@pytest.mark.parametrize("kind", ["linear", "conv1x1", "conv3x3", "strided"])
def test_outputs_gradients_and_steps_are_pefts(kind):
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    base, x = nn.Sequential(make()), torch.randn(shape)
    config = LoraConfig(r=3, lora_alpha=1.5, target_modules=["0"], use_dora=True)
    theirs = get_peft_model(copy.deepcopy(base), config).base_model.model
    parts = {"unet": base.requires_grad_(False)}
    layers.inject(parts, {"unet.0": 3}, 0.5, magnitudes="output")
    [ours] = base[0].adapters
    peft = theirs[0]
    down, up = peft.lora_A["default"].weight, peft.lora_B["default"].weight
    magnitude = peft.lora_magnitude_vector["default"].weight
    torch.testing.assert_close(ours.magnitude.flatten(), magnitude.flatten())
    with torch.no_grad():
        ours.down.copy_(down)
        up.normal_()
        ours.up.copy_(up)
    pairs = [(ours.down, down), (ours.up, up), (ours.magnitude, magnitude)]
    optimizers = [torch.optim.Adam(p, lr=0.01) for p in ([a for a, _ in pairs], [b for _, b in pairs])]
    for _ in range(3):
        target = torch.randn_like(base(x))
        for model, optimizer in zip((base, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            (model(x) - target).square().mean().backward()
        torch.testing.assert_close(base(x), theirs(x), rtol=1e-4, atol=1e-5)
        for mine, other in pairs:
            torch.testing.assert_close(mine.grad.flatten(), other.grad.flatten(), rtol=1e-3, atol=1e-5)
        for optimizer in optimizers:
            optimizer.step()


@axes
def test_a_channel_of_zeros_stays_one(axis):
    parts, x = one_layer("linear")
    weight = parts["unet"][0].weight
    (weight[2] if axis == "output" else weight[:, 2]).zero_()
    layers.inject(parts, {"unet.0": 2}, 1.0, magnitudes=axis)
    [adapter] = parts["unet"][0].adapters
    parts["unet"](x).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in adapter.parameters())
    nn.init.normal_(adapter.up)
    assert parts["unet"](x).isfinite().all()


@axes
@pytest.mark.parametrize("kind", ["linear", "conv3x3"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_round_a_magnitude_near_the_bases(axis, kind, dtype):
    parts, x = one_layer(kind)
    parts["unet"].to(dtype)
    x = x.to(dtype)
    layer = parts["unet"][0]
    layer.bias = None
    layers.inject(parts, {"unet.0": 2}, 1.0, magnitudes=axis)
    before, [adapter] = parts["unet"](x), layer.adapters
    Vector([adapter], dtype)  # the copies that layers multiply with in training
    with torch.no_grad():
        adapter.magnitude.mul_(1.01)
    after = parts["unet"](x)
    assert after.dtype == dtype
    ratio = (after.double() * before.double()).sum() / before.double().square().sum()
    assert ratio.item() == pytest.approx(1.01, abs=1e-3)  # bf16 would make 1.0078 of it
    after.float().square().sum().backward()
    assert adapter.magnitude.grad.dtype == torch.float32 and adapter.magnitude.grad.abs().min() > 0


@axes
def test_in_8_bits_it_begins_as_the_packed_base(axis):
    torch.manual_seed(0)
    parts, x = {"unet": nn.Sequential(nn.Linear(128, 160)).requires_grad_(False)}, torch.randn(4, 128)
    layers.inject(parts, {"unet.0": 2}, 1.0, magnitudes=axis)
    layers.pack(parts["unet"])
    with layers.adapters_off(parts):
        base = parts["unet"](x)
    torch.testing.assert_close(parts["unet"](x), base, rtol=1e-6, atol=1e-6)


@axes
@pytest.mark.parametrize("kind", ["linear", "conv3x3"])
def test_a_dropped_layer_is_the_base(axis, kind):
    parts, x = one_layer(kind)
    base, shared, found = parts["unet"](x), Dropout(layers=0.5), []
    layers.inject(parts, {"unet.0": 2}, 1.0, magnitudes=axis, dropout=shared)
    [adapter] = parts["unet"][0].adapters
    with torch.no_grad():
        adapter.up.normal_()
        adapter.magnitude.mul_(1.5)
    learnt = parts["unet"](x)
    for _ in range(20):
        shared.renew()
        shared.acting(lambda x: found.append(parts["unet"](x)))(x)
    off = [torch.allclose(y, base, atol=1e-6) for y in found]
    assert 0 < sum(off) < 20
    assert all(o or torch.allclose(y, learnt, atol=1e-5) for o, y in zip(off, found, strict=True))


# -- a run -------------------------------------------------------------------------------------------------------------


DROPOUTS = {"lora.dropout": 0.2, "lora.rank_dropout": 0.2, "lora.module_dropout": 0.1}
KINDS = {
    "bf16 with dropout": ("output", {"machine.precision": "bf16", **DROPOUTS}),
    "8 bits with max-norm": (
        "input",
        {"machine.memory": "lowest", "lora.max_norm": 0.5, "lora.targets": "full"},
    ),
}


@pytest.mark.parametrize(("axis", "more"), KINDS.values(), ids=KINDS)
def test_a_run_stopped_and_resumed_is_the_undisturbed_one(axis, more, tiny_folder, pictures):
    config = config_for(
        tiny_folder("sd15"), pictures, **SMALL, **{"lora.dora": axis, "optim.steps": 2}, **more
    )
    path = train(config)
    train(config, stop_at(1))
    assert body(train(config, folder=run.list_runs()[0].folder)) == body(path)
    found, weights = load_file(path), layers.named_layers(load(str(tiny_folder("sd15"))).parts())
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    scale = found[f"lora_unet_{name.replace('.', '_')}.dora_scale"]
    norms = dora.squares(weights[f"unet.{name}"].weight, axis).sqrt()
    assert scale.shape == norms.shape and scale.dtype == torch.float32
    assert 0 < (scale / norms - 1).abs().max() < 0.2
    told = inspect(path)
    assert told.kinds == ["DoRA"] and "can't be loaded" not in str(told)
    given = json.loads(told.metadata["ss_network_args"])
    assert (given["dora_wd"], given["wd_on_output"]) == ("True", str(axis == "output"))


def test_settings_that_no_file_can_hold_are_refused_before_anything_is_loaded(tiny_folder, pictures):
    config = config_for(tiny_folder("sd15"), pictures, **{"lora.dora": "input", "save.layout": "peft"})
    with pytest.raises(ValueError, match=r"set save\.layout to kohya, or lora\.dora to output"):
        train(config)


# -- files -------------------------------------------------------------------------------------------------------------


def random_doras(models, axis, preset="full"):
    torch.manual_seed(0)
    ranks = resolve(models.parts(), preset, rank=2, text_encoders=True)
    named = layers.named_layers(models.parts())
    return {name: random_dora(named[name], axis, rank) for name, rank in ranks.items()}


def same(pair, other):
    return all(map(torch.equal, pair.tensors, other.tensors)) and pair.alpha == other.alpha


@pytest.mark.parametrize(("axis", "family"), [("output", "sd15"), ("input", "sd15"), ("input", "sdxl")])
def test_a_file_holds_what_was_saved(axis, family, tiny_models, tmp_path):
    models, path = tiny_models(family), tmp_path / "x.safetensors"
    pairs = random_doras(models, axis)
    formats.save(path, pairs, models.family, metadata={}, dtype=torch.float32)
    file = formats.load(path, models.parts(), models.family)
    assert not file.unused and all(same(pair, file.pairs[name]) for name, pair in pairs.items())


def test_magnitudes_stay_in_fp32_in_a_file_of_fp16(tiny_models, tmp_path):
    models, path = tiny_models("sd15"), tmp_path / "x.safetensors"
    pairs = random_doras(models, "output", "attention")
    formats.save(path, pairs, models.family, metadata={}, dtype=torch.float16)
    read = formats.load(path, models.parts(), models.family).pairs
    assert all(torch.equal(pair.magnitude, read[name].magnitude) for name, pair in pairs.items())


def test_diffusers_draws_the_same_from_the_peft_layout(tiny_models, tiny_folder, tmp_path):
    models, path = tiny_models("sdxl"), tmp_path / "x.safetensors"
    pairs = random_doras(models, "output")
    formats.save(path, pairs, models.family, metadata={}, layout="peft", dtype=torch.float32)
    pipeline = DiffusionPipeline.from_pretrained(tiny_folder("sdxl"), vae=None)
    pipeline.load_lora_weights(path)
    pooled = models.text_encoders[-1].config.projection_dim
    before = unet_output(models.unet, pooled)
    layers.attach(models.parts(), formats.load(path, models.parts(), models.family).pairs, adapter="x")
    ours = unet_output(models.unet, pooled)
    assert (ours - before).abs().max() > 0.01
    torch.testing.assert_close(ours, unet_output(pipeline.unet, pooled), rtol=1e-3, atol=1e-4)
    for part, encoder in parts_of(pipeline).items():
        if part != "unet":
            mine = models.parts()[part]
            torch.testing.assert_close(text_output(mine), text_output(encoder), rtol=1e-3, atol=1e-4)


def test_a_dora_written_by_diffusers_is_read(tiny_models, tiny_folder, tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(tiny_folder("sd15"), vae=None)
    config = LoraConfig(
        r=4, lora_alpha=4, target_modules=["to_q", "conv1"], init_lora_weights=False, use_dora=True
    )
    pipeline.unet.add_adapter(config)
    state = get_peft_model_state_dict(pipeline.unet)
    pipeline.save_lora_weights(tmp_path, unet_lora_layers=state)
    models = tiny_models("sd15")
    file = formats.load(tmp_path / "pytorch_lora_weights.safetensors", models.parts(), models.family)
    assert not file.unused and len(file.pairs) == len(state) // 3
    layers.attach(models.parts(), file.pairs, adapter="theirs")
    theirs = unet_output(pipeline.unet, 32)
    torch.testing.assert_close(unet_output(models.unet, 32), theirs, rtol=1e-3, atol=1e-4)


def test_magnitudes_of_another_model_are_a_sentence(tiny_models, tmp_path):
    models, path = tiny_models("sd15"), tmp_path / "x.safetensors"
    pairs = random_doras(models, "output", "attention")
    formats.save(path, pairs, models.family, metadata={})
    key = next(key for key in load_file(path) if key.endswith("dora_scale"))
    save_file(load_file(path) | {key: torch.ones(5, 1)}, path)
    with pytest.raises(ValueError, match=r"magnitudes of the shape \(5, 1\)"):
        formats.load(path, models.parts(), models.family)


# -- going on from a file ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("axis", "magnitudes"), [("output", True), ("input", True), ("input", False)])
def test_a_dora_goes_on_at_the_strength_of_its_file(axis, magnitudes, tiny_models):
    models = tiny_models("sd15")
    pairs, named = random_doras(models, axis, "attention"), layers.named_layers(models.parts())
    if not magnitudes:
        pairs = {name: pair._replace(magnitude=None) for name, pair in pairs.items()}
    layers.inject(models.parts(), dict.fromkeys(pairs, 3), 0.7, magnitudes=axis)
    warm.fill(models.parts(), pairs)
    for name, pair in layers.adapters(models.parts()).items():
        weight, file = named[name].weight, pairs[name]
        expected = whole(weight, file, axis) if magnitudes else weight + delta_weight(file).view_as(weight)
        torch.testing.assert_close(whole(weight, pair, axis), expected, rtol=1e-4, atol=1e-5)


def test_a_dora_of_another_kind_is_a_sentence(tiny_models, tmp_path):
    models, path = tiny_models("sd15"), tmp_path / "x.safetensors"
    formats.save(path, random_doras(models, "input", "attention"), models.family, metadata={})
    for other in ("off", "output"):
        settings = LoraSettings(start=str(path), dora=other)
        with pytest.raises(
            ValueError, match=f"magnitudes of inputs, and lora.dora is {other}; set it to input"
        ):
            adapter.inject(models, settings, 0, {}, print)
    adapter.inject(models, LoraSettings(start=str(path), dora="input"), 0, {}, print)
