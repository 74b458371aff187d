"""LoHa, LoKr and LoCon with a core are plain LoRAs of another rank; peft and the convolutions themselves as oracles."""

import json

import pytest
import safetensors.torch
import torch
from peft import LoHaConfig, LoKrConfig, get_peft_model
from torch import nn
from torch.nn.functional import conv2d

from lora_sd.lora import formats
from lora_sd.lora.inspection import inspect
from lora_sd.lora.layers import named_layers
from lora_sd.lora.names import kohya_name
from lora_sd.lora.pairs import delta_weight
from lora_sd.models.family import SD15, SDXL
from lora_sd.workshop.analysis import analyse_file
from lora_sd.workshop.lora_file import open_lora
from lora_sd.workshop.resize import resize

BLOCK = "unet.down_blocks.1.attentions.0.transformer_blocks.0"
LINEAR, TEXT = f"{BLOCK}.ff.net.2", f"{BLOCK}.attn2.to_k"
CONV, ONE = "unet.mid_block.resnets.0.conv1", "unet.up_blocks.0.resnets.0.conv_shortcut"
LAYERS = (LINEAR, TEXT, CONV, ONE)
CONFIGS = {
    "LoHa": LoHaConfig(r=3, alpha=2, init_weights=False),
    "LoHa with cores": LoHaConfig(r=3, alpha=2, init_weights=False, use_effective_conv2d=True),
    "LoHa of more rank than a layer has": LoHaConfig(r=16, alpha=2, init_weights=False),
    "LoKr": LoKrConfig(r=2, alpha=1, init_weights=False),
    "LoKr with a core": LoKrConfig(r=2, alpha=1, init_weights=False, use_effective_conv2d=True),
    "LoKr, both split": LoKrConfig(r=1, alpha=1, init_weights=False, decompose_both=True),
    "LoKr of whole matrices": LoKrConfig(r=64, alpha=64, init_weights=False),
}


@pytest.fixture
def made(request, tiny_models, tmp_path):
    """A file with the tensors that peft makes for layers of a small model, and the updates that it says they are."""
    own = named_layers(tiny_models("sd15").parts())
    plain = {name.replace(".", "_"): _like(own[name].weight.shape) for name in LAYERS}
    config = CONFIGS[request.param]
    config.target_modules = list(plain)
    torch.manual_seed(3)
    model = get_peft_model(nn.ModuleDict(plain), config)
    tensors, updates = {}, {}
    for name in LAYERS:
        layer = model.get_submodule(f"base_model.model.{name.replace('.', '_')}")
        stem = kohya_name(name, SD15)
        for ending in layer.adapter_layer_names:
            if "default" in getattr(layer, ending, {}):
                tensor = nn.init.normal_(getattr(layer, ending)["default"], std=0.3)
                tensors[f"{stem}.{ending}"] = tensor.detach().contiguous()
        tensors[f"{stem}.alpha"] = torch.tensor(float(config.alpha))
        updates[name] = layer.get_delta_weight("default").detach().flatten(1)
    path = tmp_path / "made.safetensors"
    args = {"ss_network_module": "lycoris.kohya", "ss_network_args": '{"algo": "lo", "factor": "4"}'}
    safetensors.torch.save_file(tensors, path, args)
    return path, updates


def _like(shape: torch.Size) -> nn.Module:
    out, inputs, *kernel = shape
    return nn.Conv2d(inputs, out, kernel[0], padding=kernel[0] // 2) if kernel else nn.Linear(inputs, out)


by_kind = pytest.mark.parametrize("made", CONFIGS, indirect=True)


@by_kind
def test_the_update_is_what_peft_says_in_a_model_and_without_one(made, tiny_models):
    path, updates = made
    models = tiny_models("sd15")
    loaded, opened = formats.load(path, models.parts(), SD15), open_lora(path, "sd15")
    assert not loaded.unused and not opened.unused
    assert loaded.pairs.keys() == opened.keys() == updates.keys()
    for name, update in updates.items():
        weight = models.parts()["unet"].get_submodule(name.removeprefix("unet.")).weight
        for pair in (loaded.pairs[name], opened[name]):
            close(delta_weight(pair), update)
            assert pair.rank <= min(update.shape)
            assert pair.down.shape == (pair.rank, *weight.shape[1:])
            assert pair.up.shape == (len(weight), pair.rank, *(1,) * (weight.dim() - 2))
        assert opened.rank(name) == opened[name].rank and opened.alpha(name) == opened[name].alpha


@by_kind
def test_it_becomes_a_plain_lora_that_does_the_same(made, tiny_models, tmp_path):
    path, updates = made
    done = resize(path, tmp_path / "plain.safetensors", family="sd15", energy=1.0, dtype=torch.float32)
    models = tiny_models("sd15")
    told = inspect(done.saved.path)
    assert told.kinds == ["LoRA"] and told.metadata["ss_network_module"] == "networks.lora"
    assert json.loads(told.metadata["ss_network_args"]).keys() <= {"conv_dim", "conv_alpha"}
    for name, pair in formats.load(done.saved.path, models.parts(), SD15).pairs.items():
        close(delta_weight(pair), updates[name])


@pytest.mark.parametrize("made", ["LoHa", "LoKr of whole matrices"], indirect=True)
def test_the_size_at_a_rank_is_that_of_the_plain_lora(made, tmp_path):
    path, _ = made
    report = analyse_file(path, family="sd15")
    for rank in (1, 4, 9):
        done = resize(path, tmp_path / "plain.safetensors", family="sd15", rank=rank)
        assert report.size_at(rank) == pytest.approx(done.saved.size, abs=3000)  # headers differ


@by_kind
def test_the_header_alone_tells_kind_and_layers(made):
    path, _ = made
    found = inspect(path)
    assert found.kinds == [("LoHa" if "hada" in str(safetensors.torch.load_file(path).keys()) else "LoKr")]
    assert (found.layout, found.modules) == ("kohya", {"unet": len(LAYERS)})
    assert "can't be loaded" not in str(found)


@pytest.mark.parametrize(
    ("shapes", "family", "rank"),
    [
        (
            {"hada_w1_a": (8, 2), "hada_w1_b": (2, 2048), "hada_w2_a": (8, 2), "hada_w2_b": (2, 2048)},
            "sdxl",
            2,
        ),
        ({"lokr_w1": (4, 16), "lokr_w2_a": (2, 3), "lokr_w2_b": (3, 48)}, "sd15", 3),
        ({"lokr_w1_a": (4, 5), "lokr_w1_b": (5, 16), "lokr_w2": (2, 64)}, "sd2", 5),
        ({"lokr_w1": (4, 16), "lokr_w2": (2, 48)}, "sd15", 4 * 2),
    ],
)
def test_the_header_alone_tells_rank_and_base(shapes, family, rank, tmp_path):
    path, stem = (
        tmp_path / "x.safetensors",
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k",
    )
    safetensors.torch.save_file({f"{stem}.{end}": torch.ones(s) for end, s in shapes.items()}, path)
    found = inspect(path)
    assert (found.family, found.ranks, found.strengths) == (family, {rank: 1}, {1.0: 1})


def test_a_locon_with_a_core_is_its_three_convolutions(tiny_models, tmp_path):
    models, stem, generator = tiny_models("sd15"), kohya_name(CONV, SD15), torch.Generator().manual_seed(0)
    out, inputs = models.parts()["unet"].mid_block.resnets[0].conv1.weight.shape[:2]
    shapes = {"down": (4, inputs, 1, 1), "mid": (4, 4, 3, 3), "up": (out, 4, 1, 1)}
    factors = {name: torch.randn(shape, generator=generator) / 3 for name, shape in shapes.items()}
    tensors = {f"{stem}.lora_{name}.weight": factor for name, factor in factors.items()}
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({**tensors, f"{stem}.alpha": torch.tensor(2.0)}, path)

    x = torch.randn(1, inputs, 8, 8, generator=generator)
    middle = conv2d(conv2d(x, factors["down"]), factors["mid"], padding=1)
    wanted = 2 / 4 * conv2d(middle, factors["up"])
    for pair in (formats.load(path, models.parts(), SD15).pairs[CONV], open_lora(path, "sd15")[CONV]):
        assert pair.rank == 4
        close(conv2d(x, delta_weight(pair).view(out, inputs, 3, 3), padding=1), wanted)


def test_alpha_stands_for_nothing_in_a_lokr_of_whole_matrices(tiny_models, tmp_path):
    """Trainers write any number there, such as 10¹⁰."""
    path, stem = tmp_path / "x.safetensors", kohya_name(TEXT, SD15)
    out, inputs = tiny_models("sd15").parts()["unet"].get_submodule(TEXT.removeprefix("unet.")).weight.shape
    first, second = torch.randn(4, 8), torch.randn(out // 4, inputs // 8)
    tensors = {"lokr_w1": first, "lokr_w2": second, "alpha": torch.tensor(1e10)}
    safetensors.torch.save_file({f"{stem}.{end}": tensor for end, tensor in tensors.items()}, path)
    close(delta_weight(open_lora(path, "sd15")[TEXT]), torch.kron(first, second))


@pytest.mark.parametrize("made", ["LoHa", "LoKr"], indirect=True)
def test_with_scales_it_is_a_dora(made, tiny_models):
    path, _ = made
    tensors = safetensors.torch.load_file(path)
    weight = tiny_models("sd15").parts()["unet"].get_submodule(ONE.removeprefix("unet.")).weight
    scales = torch.rand(len(weight), 1, 1, 1)
    safetensors.torch.save_file({**tensors, f"{kohya_name(ONE, SD15)}.dora_scale": scales}, path)
    pair = formats.load(path, tiny_models("sd15").parts(), SD15).pairs[ONE]
    assert torch.equal(pair.magnitude, scales)
    assert torch.equal(open_lora(path, "sd15", dora=True)[ONE].magnitude, scales)
    assert inspect(path).kinds[0] == "DoRA"


@pytest.mark.parametrize(
    "shapes",
    [
        {"hada_w1_a": (8, 2), "hada_w1_b": (3, 8), "hada_w2_a": (8, 2), "hada_w2_b": (2, 8)},
        {"hada_w1_a": (8, 2), "hada_w1_b": (2, 8), "hada_w2_a": (6, 2), "hada_w2_b": (2, 8)},
        {"lokr_w1": (3000, 3000), "lokr_w2": (3000, 3000)},  # an update of 300 TB
        {"lokr_w1": (4, 4), "lokr_w2_a": (4, 2), "lokr_w2_b": (3, 4)},
    ],
)
def test_tensors_that_do_not_fit_together_are_told(shapes, tiny_models, tmp_path):
    path, stem = tmp_path / "x.safetensors", kohya_name(LINEAR, SD15)
    safetensors.torch.save_file({f"{stem}.{end}": torch.ones(s) for end, s in shapes.items()}, path)
    with pytest.raises(ValueError, match=r"x\.safetensors is damaged: unet.*do not fit together"):
        formats.load(path, tiny_models("sd15").parts(), SD15)
    with pytest.raises(ValueError, match=r"x\.safetensors is damaged: unet.*do not fit together"):
        open_lora(path, "sd15")[LINEAR]


@pytest.mark.parametrize("shape", [(), (8,), (0, 8), (8, 0)])
@pytest.mark.parametrize("end", ["hada_w1_b", "hada_t1", "lokr_w1", "lokr_w2_b", "lora_mid.weight"])
def test_a_shape_that_no_matrix_has_is_told_of_the_header(end, shape, tmp_path):
    path, stem = tmp_path / "x.safetensors", kohya_name(LINEAR, SD15)
    safetensors.torch.save_file({f"{stem}.{end}": torch.ones(shape)}, path)
    with pytest.raises(ValueError, match=r"x\.safetensors is damaged: .* which no LoRA has"):
        inspect(path)


def test_what_is_incomplete_is_of_no_layer(tmp_path):
    path, stem = tmp_path / "x.safetensors", kohya_name(LINEAR, SDXL)
    safetensors.torch.save_file(
        {f"{stem}.hada_w1_a": torch.ones(8, 2), f"{stem}.hada_w1_b": torch.ones(2, 8)}, path
    )
    with pytest.raises(ValueError, match="holds no LoRA"):
        open_lora(path, "sdxl")


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())
