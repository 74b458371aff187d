"""Models are told from their headers alone, real shapes included, and found where programs keep them."""

import json
import os
import subprocess
import sys

import pytest
import torch
from ldm import to_ldm, write_header
from test_family import PARAMETERS, real

from app import models
from lora_sd.models import find, header
from lora_sd.models.find import describe, installed

NORM = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
WIDE = {NORM: torch.linspace(-1, 1, 320)}


@pytest.fixture(scope="session")
def real_weights():
    """`real_weights("sdxl")`: every name and shape of a released checkpoint, on the meta device."""
    made = {}

    def weights(folder):
        if folder not in made:
            parts = {part: real(folder, part) for part in PARAMETERS[folder]}
            made[folder] = to_ldm(parts.pop("unet"), parts.pop("vae"), list(parts.values()))
        return made[folder]

    return weights


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch, tmp_path):
    """No model folder of this computer's owner is looked at."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "user"))
    monkeypatch.setattr(find, "_parents", lambda: [tmp_path / "user"])
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "LORA_SD_MODELS", "COMFYUI_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("folder, extra, values, metadata, prediction, zero_snr", [
    ("sd15", {}, {}, {}, "epsilon", False),
    ("sd15", {"v_pred": torch.empty(0)}, {}, {}, "v_prediction", False),
    ("sd2", {}, WIDE, {}, "v_prediction", False),
    ("sd2-base", {}, {}, {}, "epsilon", False),
    ("sdxl", {}, {}, {}, "epsilon", False),
    ("sdxl", {"ztsnr": torch.empty(0)}, {}, {}, "epsilon", False),
    ("sdxl", {"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}, {}, {}, "v_prediction", True),
    ("sdxl", {}, {}, {"modelspec.prediction_type": "v"}, "v_prediction", False),
    ("sdxl", {}, {}, {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
])  # fmt: skip
def test_released_shapes_are_told(
    real_weights, tmp_path, folder, extra, values, metadata, prediction, zero_snr
):
    path = tmp_path / "model.safetensors"
    write_header(path, real_weights(folder) | extra, values, **metadata)
    found = describe(path)
    assert (found.family, found.kind) == (folder.removesuffix("-base"), "checkpoint")
    assert (found.prediction, found.zero_snr) == (prediction, zero_snr)


@pytest.mark.parametrize("folder", ["sd15", "sd2-base", "sdxl"])
def test_inpainting_models_are_told_and_none_of_them_predicts_v(real_weights, tmp_path, folder):
    path, nine = tmp_path / "model.safetensors", torch.empty(320, 9, 3, 3, device="meta")
    write_header(path, real_weights(folder) | {header.FIRST_CONV: nine}, WIDE if folder == "sd2-base" else {})
    found = describe(path)
    assert found.inpainting and found.prediction == "epsilon"
    assert (found.family, found.kind) == (folder.removesuffix("-base"), "checkpoint")


def test_the_menu_says_that_a_model_is_for_inpainting(tiny_folder):
    labels = [models.label(describe(tiny_folder(name))) for name in ("sd15", "sd15-inpainting")]
    assert [label.split(" · ")[1] for label in labels] == [
        "Stable Diffusion 1.x",
        "Stable Diffusion 1.x inpainting",
    ]


def test_an_inpainting_folder_is_told(tiny_folder):
    assert (
        describe(tiny_folder("sdxl-inpainting")).inpainting and not describe(tiny_folder("sdxl")).inpainting
    )


@pytest.mark.parametrize(
    "name, family", [("sd15", "sd15"), ("sd2", "sd2"), ("sd2-v", "sd2"), ("sdxl", "sdxl")]
)
def test_folders_are_told(tiny_folder, name, family):
    found = describe(tiny_folder(name))
    assert (found.kind, found.family) == ("folder", family)
    assert found.prediction == ("v_prediction" if name == "sd2-v" else "epsilon")


def test_the_starter_is_there():
    found = describe("starter")
    assert (found.family, found.where, found.title) == ("sd15", "starter", "Starter model")


UNET = {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)}
CROSS = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


@pytest.mark.parametrize("shapes, words", [
    ({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (16, 1280)}, "is a LoRA, not a base model"),
    ({"unet.mid_block.attentions.0.proj_in.lora_A.weight": (16, 1280)}, "is a LoRA, not a base model"),
    ({"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a": (16, 1280)}, "is a LoRA, not a base model"),
    ({"model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale": (128,)}, "is a Flux model"),
    ({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (9, 3)}, "is a Stable Diffusion 3 model"),
    ({"control_model.time_embed.0.weight": (3, 3)}, "is a ControlNet"),
    ({"emb_params": (4, 768)}, "is a textual-inversion embedding"),
    ({"model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (768, 1280)}, "SDXL refiner"),
    ({CROSS: (320, 768), "model.diffusion_model.input_blocks.0.0.weight": (320, 8, 3, 3)}, "instruct-pix2pix"),
    ({CROSS: (320, 768), **UNET}, "has no VAE and no text encoders"),
    ({"some.weight": (3,)}, "is not a model that this program knows"),
])  # fmt: skip
def test_what_is_no_base_model_is_named(tmp_path, shapes, words):
    path = tmp_path / "file.safetensors"
    write_header(path, {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, {})
    with pytest.raises(ValueError, match=words) as caught:
        describe(path)
    assert str(caught.value).startswith("file.safetensors ") and str(caught.value).count(". ") == 0


def test_broken_and_missing_models_are_refused(tmp_path, tiny_folder):
    import shutil

    def refusal(source):
        with pytest.raises(ValueError) as caught:
            describe(source)
        return str(caught.value)

    def write(name, data):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    def broken(name, change):
        folder = shutil.copytree(tiny_folder("sd15"), tmp_path / name)
        change(folder)
        return folder

    whole = next(tiny_folder("sd15").glob("unet/*.safetensors")).read_bytes()
    assert "is cut short: it has 1,000,000 of" in refusal(write("half.safetensors", whole[:1_000_000]))
    assert "is damaged" in refusal(write("tenth.safetensors", whole[:1000]))
    assert "is not a safetensors file" in refusal(write("empty.safetensors", b""))
    assert "is not a safetensors file" in refusal(write("page.safetensors", b"<!DOCTYPE html><html>"))
    assert "is not a model" in refusal(write("picture.png", b"PNG"))
    assert "There is no model at" in refusal("/no/such/model.safetensors")
    assert "python -m lora_sd download owner/model" in refusal("owner/model")
    assert "no model_index.json" in refusal(tmp_path)

    half = "unet/diffusion_pytorch_model.safetensors"
    assert "is cut short" in refusal(broken("a", lambda f: (f / half).write_bytes(whole[:1_000_000])))
    assert "has no weights" in refusal(broken("b", lambda f: (f / half).unlink()))
    assert "has no config.json" in refusal(broken("c", lambda f: (f / "vae" / "config.json").unlink()))
    flux = json.dumps({"_class_name": "FluxPipeline"})
    assert "is a Flux model" in refusal(broken("d", lambda f: (f / "model_index.json").write_text(flux)))


def test_models_of_other_programs_are_listed_once(tiny_folder, real_weights, tmp_path, home):
    import shutil

    user = tmp_path / "user"
    comfy = user / "ComfyUI" / "models" / "checkpoints" / "mine"
    forge = user / "stable-diffusion-webui-forge" / "models" / "Stable-diffusion"
    for folder in (comfy, forge, home / "models"):
        folder.mkdir(parents=True)
    write_header(comfy / "anime.safetensors", real_weights("sdxl"), {})
    (forge / "same.safetensors").symlink_to(comfy / "anime.safetensors")
    write_header(forge / "photo.safetensors", real_weights("sd15"), {})
    write_header(forge / "flux.safetensors", {"double_blocks.0.img_attn.qkv": torch.empty(3)}, {})
    (forge / "broken.safetensors").write_bytes(b"<html>")
    shutil.copytree(tiny_folder("sd2"), home / "models" / "sd2")
    hub = user / ".cache" / "huggingface" / "hub" / "models--owner--tiny-xl"
    shutil.copytree(tiny_folder("sdxl"), hub / "snapshots" / "abc")
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("abc")

    found = installed()
    assert found[0].source == "starter"
    assert {(model.title, model.family, model.where) for model in found[1:]} == {
        ("sd2", "sd2", "Our models"),
        ("photo.safetensors", "sd15", "Forge"),
        ("same.safetensors", "sdxl", "Forge"),
        ("owner/tiny-xl", "sdxl", "Hugging Face cache"),
    }
    assert describe("owner/tiny-xl").path == hub / "snapshots" / "abc"
    assert describe(comfy / "anime.safetensors").where == "ComfyUI"


def test_a_second_look_reads_no_headers(real_weights, home, monkeypatch):
    (home / "models").mkdir()
    path = home / "models" / "photo.safetensors"
    write_header(path, real_weights("sd15"), {})
    first = installed()
    monkeypatch.setattr(find, "look", lambda path, **_: pytest.fail(f"{path} was read again"))
    monkeypatch.setattr(find, "describe", lambda _: first[0])
    assert installed() == first


def test_a_changed_file_is_looked_at_again(real_weights, home):
    (home / "models").mkdir()
    path = home / "models" / "model.safetensors"
    write_header(path, real_weights("sd15"), {})
    installed()
    write_header(path, real_weights("sdxl"), {})
    assert installed()[1].family == "sdxl"


def test_finding_models_does_not_import_torch():
    code = (
        "import sys; from lora_sd.models import find; find.describe('starter'); print('torch' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
    )


@pytest.mark.parametrize(
    "memory", ["[]", "5", "{", '{"%s": 5}', '{"%s": {"stamp": "x", "found": 3}}', "[" * 100_000]
)
def test_a_damaged_memory_of_models_is_only_forgotten(tmp_path, home, memory):
    (tmp_path / "a.safetensors").write_bytes(b"x")
    (home / "cache").mkdir()
    (home / "cache" / "models.json").write_text(memory.replace("%s", str(tmp_path / "a.safetensors")))
    assert [found.title for found in find.installed([tmp_path])] == ["Starter model"]
    assert str(tmp_path / "a.safetensors") in (home / "cache" / "models.json").read_text()


def test_links_that_lead_back_up_and_names_that_are_no_text_are_passed_over(tmp_path):
    for name in ("one", "two", "three"):
        (tmp_path / name).symlink_to(tmp_path)
    with open(os.fsencode(tmp_path) + b"/caf\xe9.safetensors", "wb"):
        pass
    (tmp_path / "a.safetensors").touch()
    assert list(find._models_in(tmp_path)) == [tmp_path / "a.safetensors"]
