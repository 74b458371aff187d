"""LoRA files are read by names alone: the table has every layer of every model, and finds what the model's own reader finds."""

import pytest
import safetensors.torch
import torch
from real_shapes import real_parts
from workshop_files import random_pairs, write

from lora_sd.lora.formats import load
from lora_sd.lora.inspection import inspect
from lora_sd.lora.layers import named_layers
from lora_sd.models.family import FAMILIES
from lora_sd.workshop.lora_file import open_lora
from lora_sd.workshop.table import kernel, layer_names, spelled

families = pytest.mark.parametrize("family", FAMILIES)


@families
def test_the_table_has_every_layer_of_the_released_models(family, starter):
    names = set(layer_names(FAMILIES[family]))
    parts = real_parts(family) if family != "sd15" else real_parts(family) | starter.parts()
    assert {*named_layers(real_parts(family)), *named_layers(parts)} - names <= {
        "text_encoder_2.text_projection"
    }


@families
def test_kernels_are_those_of_the_released_models(family):
    for name, layer in named_layers(real_parts(family)).items():
        assert kernel(name, FAMILIES[family]) == tuple(layer.weight.shape[2:]), name


@families
def test_no_spelling_in_the_table_is_shared_by_two_layers(family):
    owners: dict[str, str] = {}
    for layer, ways in spelled(FAMILIES[family]).items():
        for keys in ways:
            assert owners.setdefault(keys.down, layer) == layer


@families
@pytest.mark.parametrize("way", [*range(8), -1])
def test_every_way_to_spell_a_file_is_read(family, way, tmp_path):
    pairs = random_pairs(family, every=60)
    tensors, layouts = {}, set()
    for layer, pair in pairs.items():
        keys = spelled(FAMILIES[family])[layer][way]
        layouts.add(keys.layout)
        tensors |= {keys.down: pair.down, keys.up: pair.up, keys.alpha: torch.tensor(pair.alpha)}
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(tensors, path)
    file = open_lora(path)
    assert file.family is FAMILIES[family] and file.unused == [] and file.layout in layouts
    assert set(file) == set(pairs) == {*pairs}
    for layer, pair in pairs.items():
        assert torch.equal(file[layer].down, pair.down) and torch.equal(file[layer].up, pair.up)
        assert file[layer].alpha == pair.alpha


def test_it_reads_what_the_models_own_reader_does(tiny_models, tmp_path):
    from test_formats import random_pairs as for_models

    from lora_sd.lora import formats

    models, path = tiny_models("sdxl"), tmp_path / "x.safetensors"
    formats.save(path, for_models(models), models.family, metadata={"lora_sd.family": "sdxl"}, layout="peft")
    theirs, ours = load(path, models.parts(), models.family).pairs, open_lora(path)
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[n].up, ours[n].up) and theirs[n].alpha == ours[n].alpha for n in ours)


def test_comfyuis_names_are_told_apart(tmp_path):
    pair = next(iter(random_pairs("sdxl").values()))
    stem = "text_encoders.clip_g.transformer.text_model.encoder.layers.0.self_attn.q_proj"
    tensors = {f"{stem}.lora_down.weight": pair.down, f"{stem}.lora_up.weight": pair.up}
    safetensors.torch.save_file(tensors, tmp_path / "x.safetensors")
    found = inspect(tmp_path / "x.safetensors")
    assert found.layout == "comfyui" and found.modules == {"text_encoder_2": 1}


def test_a_file_that_does_not_tell_its_family_needs_it_said(tmp_path):
    pairs = {n: p for n, p in random_pairs("sd15").items() if "attn2" not in n}
    path = write(tmp_path / "x.safetensors", pairs, "sd15")
    with pytest.raises(ValueError, match="say it with --family: sd15, sd2, sdxl"):
        open_lora(path)
    assert len(open_lora(path, "sd2")) == len(pairs)
    with pytest.raises(ValueError, match="must be one of"):
        open_lora(path, "flux")


def test_a_file_of_another_family_than_said_is_refused(tmp_path):
    path = write(tmp_path / "x.safetensors", random_pairs("sd15"), "sd15")
    with pytest.raises(ValueError, match=r"was made for Stable Diffusion 1\.x, not for Stable Diffusion XL"):
        open_lora(path, "sdxl")


def test_numbers_that_are_not_finite_and_factors_that_do_not_fit_are_told(tmp_path):
    pairs = random_pairs("sd15")
    name = next(iter(pairs))
    pairs[name].up[0, 0] = float("nan")
    file = open_lora(write(tmp_path / "x.safetensors", pairs, "sd15"))
    with pytest.raises(ValueError, match="not finite"):
        file[name]
    pairs[name] = pairs[name]._replace(up=pairs[name].up[:, :2])
    with pytest.raises(ValueError, match="do not fit together"):
        open_lora(write(tmp_path / "x.safetensors", pairs, "sd15"))
