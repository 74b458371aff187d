"""Conversions there and back are bit-equal, and diffusers and the model's reader load them; programs' verdicts are what they do."""

import logging
import re

import pytest
import safetensors.torch
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import convert_state_dict_to_kohya
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from test_formats import parts_of
from test_formats import random_pairs as of_model
from workshop_files import deltas, random_pairs, write

from lora_sd import __main__ as cli
from lora_sd.lora import formats
from lora_sd.lora.inspection import inspect
from lora_sd.models.family import FAMILIES
from lora_sd.workshop.convert import convert
from lora_sd.workshop.layouts import LAYOUTS
from lora_sd.workshop.lora_file import open_lora
from lora_sd.workshop.programs import check

families = pytest.mark.parametrize("family", FAMILIES)
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def ours(folder, family: str, scale: float = 0.5, dtype=torch.float16, every: int = 60):
    """A kohya file that our writer wrote, of one alpha."""
    path = folder / "x.safetensors"
    pairs = random_pairs(family, alpha=4 * scale, every=every)
    metadata = {"ss_output_name": "cat", "lora_sd.family": family}
    formats.save(path, pairs, FAMILIES[family], metadata=metadata, dtype=dtype)
    return path


@pytest.mark.parametrize(
    ("family", "dtype"), [("sd15", torch.bfloat16), ("sd2", torch.float32), ("sdxl", torch.float16)]
)
@pytest.mark.parametrize(
    "way", ["comfyui peft kohya-diffusers diffusers", "diffusers kohya-diffusers peft comfyui"]
)
def test_there_and_back_the_file_is_the_same_byte_for_byte(family, dtype, way, tmp_path):
    """Through all layouts, one after the other; alpha / rank is a power of two."""
    path = source = ours(tmp_path, family, dtype=dtype, every=150)
    for layout in [*way.split(), "kohya"]:
        source = convert(source, tmp_path / f"{layout}.safetensors", layout).saved.path
    assert source.read_bytes() == path.read_bytes()


@families
@layouts
def test_every_layout_has_the_same_update(family, layout, tmp_path):
    path = ours(tmp_path, family, scale=0.3, dtype=torch.float32)
    done = convert(path, tmp_path / "y.safetensors", layout)
    new, old = deltas(open_lora(done.saved.path)), deltas(open_lora(path))
    assert new.keys() == old.keys() and done.unknown == []
    for name, delta in old.items():
        torch.testing.assert_close(new[name], delta, rtol=1e-5, atol=1e-5)
    assert inspect(done.saved.path).layout == layout.removesuffix("-diffusers")


@pytest.mark.parametrize("layout", ["peft", "diffusers"])
def test_what_alpha_rounds_is_counted(layout, tmp_path):
    path = ours(tmp_path, "sd15", scale=0.3)
    assert convert(path, tmp_path / "y.safetensors", layout).rounded == len(open_lora(path))
    assert convert(ours(tmp_path, "sd15"), tmp_path / "y.safetensors", layout).rounded == 0


def test_pefts_own_config_in_a_header_is_followed_once(tmp_path):
    pairs = {n: p._replace(alpha=4.0) for n, p in random_pairs("sdxl").items()}
    config = '{"unet.r": 4, "unet.lora_alpha": 8, "text_encoder_2.lora_alpha": 2}'
    path = write(tmp_path / "x.safetensors", pairs, "sdxl", "peft", lora_adapter_metadata=config)
    expected = deltas(open_lora(path))
    for layout in LAYOUTS:
        found = deltas(open_lora(convert(path, tmp_path / "y.safetensors", layout).saved.path))
        assert all(torch.equal(found[name], delta) for name, delta in expected.items())


@pytest.mark.parametrize(
    ("family", "layout"),
    [("sdxl", "kohya-diffusers"), ("sdxl", "comfyui"), ("sd15", "diffusers")],
)
def test_the_models_own_reader_and_diffusers_load_it_as_the_check_says(
    family, layout, tiny_models, tiny_folder, tmp_path, caplog
):
    """diffusers is asked for real: how many layers it has adapted."""
    models, path = tiny_models(family), tmp_path / "x.safetensors"
    formats.save(path, of_model(models, "transformer"), models.family, metadata={"lora_sd.family": family})
    new = convert(path, tmp_path / "y.safetensors", layout).saved.path
    read = formats.load(new, models.parts(), models.family)
    assert read.unused == [] and len(read.pairs) == len(open_lora(path))
    verdict = check(new).verdicts[0]
    pipeline = DiffusionPipeline.from_pretrained(tiny_folder(family), vae=None)
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    try:
        pipeline.load_lora_weights(new)
    except ValueError:  # it finds nothing
        assert not verdict.used
    names = [name for part in parts_of(pipeline).values() for name in part.state_dict()]
    downs = [key for key in verdict.used if "down.weight" in key or "lora_A" in key]
    assert len([name for name in names if ".lora_A." in name]) == len(downs)


@pytest.mark.parametrize("projections", ["linear", "conv"])
def test_sd2s_two_shapes_of_projections_are_exact(projections, tmp_path):
    path = ours(tmp_path, "sd2", every=3)
    done = convert(path, tmp_path / "y.safetensors", "kohya", projections=projections)
    tensors, before = safetensors.torch.load_file(done.saved.path), safetensors.torch.load_file(path)
    found = {t.dim() for key, t in tensors.items() if "_proj_in." in key and not key.endswith("alpha")}
    assert found == {2 if projections == "linear" else 4}
    assert all(torch.equal(tensors[key].flatten(), before[key].flatten()) for key in before)
    back = convert(done.saved.path, tmp_path / "z.safetensors", "kohya", projections="linear")
    assert back.saved.path.read_bytes() == path.read_bytes()


# -- other kinds ---------------------------------------------------------------------------------------------------------

STEM = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
OTHER = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
KINDS = {
    "LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha"),
    "LoKr": ("lokr_w1", "lokr_w2_a", "lokr_w2_b", "alpha"),
    "DoRA": ("lora_down.weight", "lora_up.weight", "dora_scale", "alpha"),
    "LoCon": ("lora_down.weight", "lora_up.weight", "lora_mid.weight", "alpha"),
}


def of_kind(path, kind: str, stem: str = STEM) -> dict[str, torch.Tensor]:
    tensors = {f"{stem}.{end}": torch.randn(3, 2048 if "down" in end else 3) for end in KINDS[kind]}
    tensors[f"{stem}.alpha"] = torch.tensor(1.0)
    safetensors.torch.save_file(tensors, path, {"ss_base_model_version": "sdxl_base_v1-0"})
    return tensors


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_are_renamed_with_their_bytes(kind, tmp_path):
    tensors = of_kind(tmp_path / "x.safetensors", kind)
    convert(tmp_path / "x.safetensors", tmp_path / "y.safetensors", "kohya-diffusers")
    found = safetensors.torch.load_file(tmp_path / "y.safetensors")
    assert found.keys() == {key.replace(STEM, OTHER) for key in tensors}
    assert all(torch.equal(found[key.replace(STEM, OTHER)], tensor) for key, tensor in tensors.items())
    with pytest.raises(ValueError, match="which peft has no names for"):
        convert(tmp_path / "x.safetensors", tmp_path / "z.safetensors", "peft")


@pytest.mark.parametrize(
    ("kind", "users"),
    [
        ("LoHa", ["A1111", "Forge", "ComfyUI", "InvokeAI"]),
        ("LoKr", ["A1111", "Forge", "ComfyUI", "InvokeAI"]),
        ("DoRA", ["A1111", "Forge", "ComfyUI", "InvokeAI"]),
    ],
)
def test_who_uses_which_kind(kind, users, tmp_path):
    of_kind(tmp_path / "x.safetensors", kind)
    verdicts = check(tmp_path / "x.safetensors").verdicts
    assert [verdict.program for verdict in verdicts if not verdict.ignored] == users
    if kind == "DoRA":
        assert verdicts[0].why == verdicts[-1].why == "without its DoRA scales it is another LoRA"


# -- programs ------------------------------------------------------------------------------------------------------------

ALL = ["diffusers", "A1111", "Forge", "ComfyUI", "InvokeAI", "sd-scripts"]
USERS = {
    "kohya": ALL,
    "kohya-diffusers": [name for name in ALL if name != "sd-scripts"],
    "peft": ["diffusers"],
    "diffusers": ["diffusers"],
    "comfyui": ["ComfyUI"],
}


@layouts
def test_who_uses_all_of_an_sdxl_file(layout, tmp_path):
    pairs = {n: p for n, p in random_pairs("sdxl", every=20).items() if ".upsamplers." not in n}
    path = tmp_path / "x.safetensors"
    formats.save(path, pairs, FAMILIES["sdxl"], metadata={"lora_sd.family": "sdxl"})
    found = check(convert(path, tmp_path / "y.safetensors", layout).saved.path).verdicts
    assert [verdict.program for verdict in found if not verdict.ignored] == USERS[layout]


def test_what_comfyui_leaves_out_of_a_peft_file_is_the_attention(tmp_path):
    pairs = {n: p for n, p in random_pairs("sd15", every=7).items() if n.startswith("unet")}
    path = write(tmp_path / "x.safetensors", pairs, "sd15", "peft")
    verdict = check(path).verdicts[3]
    assert verdict.program == "ComfyUI" and verdict.used and all(".to_" in key for key in verdict.ignored)
    assert not any(".to_" in key for key in verdict.used)


def test_two_numberings_in_one_file_and_two_alphas_are_told(tmp_path):
    first, second, *_ = (n for n in random_pairs("sdxl", every=20) if n.startswith("unet.") and "attn" in n)
    both = random_pairs("sdxl", every=20)
    one = write(tmp_path / "1.safetensors", {first: both[first]}, "sdxl", **{"lora_sd.family": "sdxl"})
    two = write(
        tmp_path / "2.safetensors",
        {second: both[second]._replace(alpha=1.0)},
        "sdxl",
        **{"lora_sd.family": "sdxl"},
    )
    two = convert(two, tmp_path / "3.safetensors", "kohya-diffusers").saved.path
    tensors = safetensors.torch.load_file(one) | safetensors.torch.load_file(two)
    safetensors.torch.save_file(tensors, tmp_path / "x.safetensors", {"lora_sd.family": "sdxl"})
    verdict = check(tmp_path / "x.safetensors").verdicts[0]
    assert len(verdict.ignored) == 3 and verdict.why == "it takes one of two numberings of blocks"
    pairs = {first: both[first], second: both[second]._replace(alpha=1.0)}
    verdict = check(write(tmp_path / "z.safetensors", pairs, "sdxl", **{"lora_sd.family": "sdxl"})).verdicts[
        0
    ]
    assert verdict.why == "layers of another alpha than most come out at another strength"


def test_the_commands(tmp_path, capsys):
    path, out = ours(tmp_path, "sdxl"), tmp_path / "y.safetensors"
    assert cli.main(["convert", str(path), str(out), "--layout", "peft"]) == 0
    assert "layers, " in capsys.readouterr().out
    assert cli.main(["check", str(out)]) == 0
    told = capsys.readouterr().out
    assert "diffusers   uses all" in told and "A1111       uses none" in told


def test_bad_inputs_are_sentences(tmp_path, capsys):
    path = ours(tmp_path, "sd15")
    out = str(tmp_path / "y.safetensors")
    twice = tmp_path / "twice.safetensors"
    name = next(n for n in random_pairs("sd15") if n.startswith("text_encoder"))
    pair = random_pairs("sd15")[name]
    tensors = {}
    for stem in ("lora_te", "lora_te1"):
        stem = f"{stem}_{name.split('.', 1)[1].replace('.', '_')}"
        tensors |= {f"{stem}.lora_down.weight": pair.down.clone(), f"{stem}.lora_up.weight": pair.up.clone()}
    safetensors.torch.save_file(tensors, twice, {"ss_base_model_version": "sd_v1"})
    for words, sentence in [
        ([str(path), out, "--layout", "webui"], "The layout is 'webui'; it must be one of kohya"),
        ([str(path), out, "--layout", "kohya", "--projections", "conv"], "is for Stable Diffusion 2.x"),
        ([str(twice), out, "--layout", "kohya"], "has a layer twice"),
        ([str(path), str(path), "--layout", "kohya"], "would replace what it is made from"),
    ]:
        assert cli.main(["convert", *words]) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_file_of_diffusers_and_its_own_kohya_version_of_it_are_one_and_the_same(
    family, tiny_models, tiny_folder, tmp_path
):
    """Made by peft and diffusers alone: their PEFT layout, and what their converter makes of it under kohya's names."""
    pipeline = DiffusionPipeline.from_pretrained(tiny_folder(family), vae=None)
    states = {}
    for part, model in parts_of(pipeline).items():
        targets = ["to_q", "to_out.0", "ff.net.2"] if part == "unet" else ["q_proj", "fc1"]
        model.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=targets, init_lora_weights=False))
        states[f"{part}_lora_layers"] = get_peft_model_state_dict(model)
    pipeline.save_lora_weights(tmp_path, **states)
    theirs = tmp_path / "pytorch_lora_weights.safetensors"
    by_peft = safetensors.torch.load_file(theirs)
    # beside transformers 5 their text encoders have one level less, and their kohya's names, too
    levelled = {
        re.sub(r"^(text_encoder(_2)?)\.encoder", r"\1.text_model.encoder", k): t for k, t in by_peft.items()
    }
    kohya, flat = tmp_path / "kohya.safetensors", tmp_path / "flat.safetensors"
    for path, tensors in ((kohya, levelled), (flat, by_peft)):
        by_kohya = convert_state_dict_to_kohya(tensors)
        safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in by_kohya.items()}, path)

    read = open_lora(theirs, family)
    assert len(read) == len(by_peft) // 2 and not read.unused
    for told in (open_lora(path, family) for path in (kohya, flat)):
        assert told.keys() == read.keys() and not told.unused
        for name, pair in read.items():
            assert all(map(torch.equal, pair.tensors, told[name].tensors)) and pair.alpha == told[name].alpha
    # ours of theirs, and back: each tensor is the one they wrote
    there = convert(theirs, tmp_path / "there.safetensors", "kohya", family=family).saved.path
    back = convert(there, tmp_path / "back.safetensors", "peft", family=family).saved.path
    found = {key.replace(".text_model.", "."): t for key, t in safetensors.torch.load_file(back).items()}
    wanted = {key.replace(".text_model.", "."): t for key, t in by_peft.items()}
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], t) for key, t in wanted.items())
    # ours is read by the model's own reader as theirs is
    models = tiny_models(family)
    ours, own = (formats.load(path, models.parts(), models.family).pairs for path in (there, kohya))
    assert ours.keys() == own.keys()
    assert all(all(map(torch.equal, pair.tensors, own[name].tensors)) for name, pair in ours.items())
