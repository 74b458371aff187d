"""LoRA files: kohya's names, whole round trips in both layouts, and diffusers + peft as the independent reader."""

import hashlib
import json
import logging
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import safetensors.torch
import torch
from diffusers import DiffusionPipeline
from real_shapes import real_parts

from lora_sd.lora import formats
from lora_sd.lora.layers import adapters, attach, inject, named_layers
from lora_sd.lora.names import kohya_name, spellings
from lora_sd.lora.pairs import Pair, delta_weight
from lora_sd.lora.targets import resolve
from lora_sd.models.family import FAMILIES, SD2, SD15, SDXL, Models
from lora_sd.models.load import load

families = pytest.mark.parametrize("family", FAMILIES)
layouts = pytest.mark.parametrize("layout", ["kohya", "peft"])

# sha256 over the sorted module names of sd-scripts' own files, first 16 digits: with text encoders, and without
NAME_SETS = {
    ("sd15", "transformer"): ("3b0b58f74c4028ff", "bdfc29d0bf3d9ac6"),
    ("sd15", "full"): ("44edcda39c262433", "620b9a8905915e25"),
    ("sd2", "transformer"): ("1d7e05c4353d4a57", "bdfc29d0bf3d9ac6"),
    ("sd2", "full"): ("22bce914ca3c4d0c", "620b9a8905915e25"),
    ("sdxl", "transformer"): ("1063b91c0a4164d0", "5d819b833e27947d"),
    ("sdxl", "full"): ("231dc80db7c1b20b", "6eaed2d7a4528e0a"),
}
# Shapes (down, up) in sd-scripts' own files, for rank 4
SHAPES = {
    "sd15": {
        "lora_unet_down_blocks_0_attentions_0_proj_in": ((4, 320, 1, 1), (320, 4, 1, 1)),
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": ((4, 768), (320, 4)),
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj": ((4, 1280), (10240, 4)),
        "lora_te_text_model_encoder_layers_11_mlp_fc1": ((4, 768), (3072, 4)),
        "lora_unet_down_blocks_0_resnets_0_conv1": ((4, 320, 3, 3), (320, 4, 1, 1)),
        "lora_unet_down_blocks_0_resnets_0_time_emb_proj": ((4, 1280), (320, 4)),
        "lora_unet_down_blocks_1_resnets_0_conv_shortcut": ((4, 320, 1, 1), (640, 4, 1, 1)),
    },
    "sd2": {
        "lora_unet_down_blocks_0_attentions_0_proj_in": ((4, 320), (320, 4)),
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": ((4, 1024), (320, 4)),
        "lora_te_text_model_encoder_layers_22_mlp_fc2": ((4, 4096), (1024, 4)),
    },
    "sdxl": {
        "lora_unet_input_blocks_4_1_proj_in": ((4, 640), (640, 4)),
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k": ((4, 2048), (640, 4)),
        "lora_unet_middle_block_1_transformer_blocks_9_ff_net_0_proj": ((4, 1280), (10240, 4)),
        "lora_te2_text_model_encoder_layers_31_self_attn_out_proj": ((4, 1280), (1280, 4)),
        "lora_unet_input_blocks_3_0_op": ((4, 320, 3, 3), (320, 4, 1, 1)),
        "lora_unet_middle_block_0_emb_layers_1": ((4, 1280), (1280, 4)),
        "lora_unet_output_blocks_2_2_conv": ((4, 1280, 3, 3), (1280, 4, 1, 1)),
    },
}


@pytest.fixture(scope="module")
def shared_models(tiny_folder):
    """Tiny models loaded once, for tests that put no adapter on them."""
    return cache(lambda family: load(str(tiny_folder(family))))


# -- names -----------------------------------------------------------------------------------------------------------


def name_set(names) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


@pytest.mark.parametrize(("family", "preset"), NAME_SETS)
def test_names_are_those_of_sd_scripts(family, preset):
    with_text, without = NAME_SETS[family, preset]
    for text_encoders, expected in ((True, with_text), (False, without)):
        layers = resolve(real_parts(family), preset, rank=4, text_encoders=text_encoders)
        assert name_set(kohya_name(layer, FAMILIES[family]) for layer in layers) == expected


@families
def test_shapes_are_those_of_sd_scripts(family):
    layers = named_layers(real_parts(family))
    names = {kohya_name(layer, FAMILIES[family]): layer for layer in layers}
    for name, (down, up) in SHAPES[family].items():
        weight = layers[names[name]].weight
        assert (4, *weight.shape[1:]) == down
        assert (weight.shape[0], 4, *(1,) * (weight.dim() - 2)) == up


@families
def test_no_spelling_is_shared_by_two_layers(family):
    owners: dict[str, str] = {}
    for layer in named_layers(real_parts(family)):
        for keys in spellings(layer, FAMILIES[family]):
            assert owners.setdefault(keys.down, layer) == layer


# -- round trips -------------------------------------------------------------------------------------------------------


def random_pairs(models: Models, preset: str = "full", rank: int = 4, scale: float = 0.5, **options) -> dict:
    """A LoRA of random numbers on every layer of a preset, text encoders too."""
    parts = models.parts()
    ranks = resolve(parts, preset, rank=rank, text_encoders=True, **options)
    torch.manual_seed(0)
    for name, layer in named_layers(parts).items():
        if name in ranks:
            r, (out, *inputs) = ranks[name], layer.weight.shape
            up = 0.3 * torch.randn(out, r, *(1,) * (len(inputs) - 1))
            ranks[name] = Pair(0.3 * torch.randn(r, *inputs), up, scale * r)
    return ranks


def keys_of(path: Path) -> set[str]:
    with safetensors.safe_open(path, "pt") as file:
        return set(file.keys())


@families
@layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_file_holds_what_was_saved(family, layout, dtype, shared_models, tmp_path):
    models, path = shared_models(family), tmp_path / "folder" / "new.safetensors"
    pairs = random_pairs(
        models
    )  # alpha / rank is a power of two: folding it is exact but for fp16's subnormals
    formats.save(path, pairs, models.family, metadata={"ss_output_name": "новый"}, layout=layout, dtype=dtype)
    file = formats.load(path, models.parts(), models.family)
    assert (file.layout, file.unused, file.metadata["ss_output_name"]) == (layout, [], "новый")
    assert file.pairs.keys() == pairs.keys()
    for name, pair in pairs.items():
        rounded = Pair(pair.down.to(dtype), pair.up.to(dtype), pair.alpha)
        atol = 2e-6 if (layout, dtype) == ("peft", torch.float16) else 0
        torch.testing.assert_close(delta_weight(file.pairs[name]), delta_weight(rounded), rtol=0, atol=atol)
    assert [entry.name for entry in path.parent.iterdir()] == ["new.safetensors"]


def test_saving_again_gives_the_same_bytes(shared_models, tmp_path):
    models = shared_models("sd15")
    pairs, metadata = random_pairs(models), {f"ss_{n}": str(n) for n in range(20)}
    for name in ("a", "b"):
        formats.save(tmp_path / name, pairs, models.family, metadata=metadata)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_alpha_is_fp32_without_dimensions(shared_models, tmp_path):
    models, path = shared_models("sd15"), tmp_path / "x.safetensors"
    formats.save(path, random_pairs(models, scale=0.3), models.family, metadata={}, dtype=torch.float16)
    tensors = safetensors.torch.load_file(path)
    alphas = [tensor for key, tensor in tensors.items() if key.endswith(".alpha")]
    assert len(alphas) * 3 == len(tensors)
    assert {(alpha.dtype, alpha.shape, round(alpha.item(), 6)) for alpha in alphas} == {
        (torch.float32, (), 1.2)
    }


@families
def test_hashes_recompute_from_the_file(family, shared_models, tmp_path):
    models, path = shared_models(family), tmp_path / "x.safetensors"
    pairs = random_pairs(models, rank=32)
    formats.save(
        path, pairs, models.family, metadata={"ss_steps": "5", "modelspec.title": "x"}, dtype=torch.float32
    )
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["sshs_model_hash"] == hashlib.sha256(data[8 + size :]).hexdigest()
    only_ss = safetensors.torch.save(safetensors.torch.load_file(path), {"ss_steps": "5"})
    assert len(only_ss) > 0x110000
    assert metadata["sshs_legacy_hash"] == hashlib.sha256(only_ss[0x100000:0x110000]).hexdigest()[:8]


@layouts
def test_file_of_a_trained_model_is_read_by_its_public_function(layout, tiny_models, tmp_path):
    models, path = tiny_models("sdxl"), tmp_path / "mine.safetensors"
    inject(models.parts(), resolve(models.parts(), "attention", rank=2), 1.0)
    assert formats.save_lora(models, path, layout=layout, dtype=torch.float32) == path
    file = formats.load(path, models.parts(), models.family)
    assert all(torch.equal(p.down, file.pairs[name].down) for name, p in adapters(models.parts()).items())
    assert file.metadata["ss_base_model_version"] == "sdxl_base_v1-0"


def test_saving_an_adapter_that_is_not_there_is_an_error(shared_models, tmp_path):
    with pytest.raises(ValueError, match="no LoRA named 'lora'"):
        formats.save_lora(shared_models("sd15"), tmp_path / "x.safetensors")


# -- diffusers and peft read it the same --------------------------------------------------------------------------------


@torch.no_grad()
def unet_output(unet, pooled: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(2, 77, unet.config.cross_attention_dim, generator=generator)
    added = {"text_embeds": torch.randn(2, pooled, generator=generator), "time_ids": torch.ones(2, 6)}
    x = torch.randn(2, 4, 16, 16, generator=generator)
    return unet(x, torch.tensor([10, 700]), tokens, added_cond_kwargs=added, return_dict=False)[0]


@torch.no_grad()
def text_output(encoder) -> torch.Tensor:
    return encoder(torch.arange(20, 97)[None], output_hidden_states=True).hidden_states[-1]


def parts_of(pipeline: DiffusionPipeline) -> dict[str, torch.nn.Module]:
    return {
        n: m for n, m in pipeline.components.items() if n in ("unet", "text_encoder", "text_encoder_2") and m
    }


@families
@layouts
def test_diffusers_uses_every_key_and_gives_our_output(
    family, layout, tiny_models, tiny_folder, tmp_path, caplog
):
    models, path = tiny_models(family), tmp_path / "x.safetensors"
    pairs = random_pairs(models, patterns={"unet.mid_block.attentions.*": 8, "*.mlp.*": 2})
    formats.save(path, pairs, models.family, metadata={}, layout=layout, dtype=torch.float32)
    pipeline = DiffusionPipeline.from_pretrained(tiny_folder(family), vae=None)
    pooled = models.text_encoders[-1].config.projection_dim
    before = unet_output(pipeline.unet, pooled)
    logging.getLogger("diffusers").propagate = True
    pipeline.load_lora_weights(path)
    assert not [record for record in caplog.records if "key" in record.message.lower()]

    loaded = {
        f"{part}.{name}": tensor
        for part, model in parts_of(pipeline).items()
        for name, tensor in model.state_dict().items()
        if ".lora_" in name
    }
    assert len(loaded) == 2 * len(pairs)
    for name, pair in pairs.items():
        names = (
            name,
            name.replace(".text_model.", "."),
        )  # with and without the level that transformers 5 dropped
        [down] = {loaded[key] for n in names if (key := f"{n}.lora_A.default_0.weight") in loaded}
        assert torch.equal(down, pair.down)

    attach(models.parts(), formats.load(path, models.parts(), models.family).pairs, adapter="x")
    theirs, ours = unet_output(pipeline.unet, pooled), unet_output(models.unet, pooled)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert (ours - before).abs().max() > 0.01
    for part, encoder in parts_of(pipeline).items():
        if part != "unet":
            torch.testing.assert_close(
                text_output(models.parts()[part]), text_output(encoder), rtol=1e-4, atol=1e-5
            )


@families
def test_a_file_written_by_diffusers_is_read(family, tiny_models, tiny_folder, tmp_path):
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = DiffusionPipeline.from_pretrained(tiny_folder(family), vae=None)
    states = {}
    for part, model in parts_of(pipeline).items():
        targets = ["to_q", "to_k", "to_v", "to_out.0"] if part == "unet" else ["q_proj", "out_proj"]
        model.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False))
        states[f"{part}_lora_layers"] = get_peft_model_state_dict(model)
        states[f"{part}_lora_adapter_metadata"] = model.peft_config["default"].to_dict()
    pipeline.save_lora_weights(tmp_path, **states)
    models = tiny_models(family)
    file = formats.load(tmp_path / "pytorch_lora_weights.safetensors", models.parts(), models.family)
    assert (file.layout, file.unused) == ("peft", [])
    assert (
        len(file.pairs) == sum(len(state) for name, state in states.items() if name.endswith("layers")) // 2
    )
    attach(models.parts(), file.pairs, adapter="theirs")
    pooled = models.text_encoders[-1].config.projection_dim
    torch.testing.assert_close(
        unet_output(models.unet, pooled), unet_output(pipeline.unet, pooled), rtol=1e-4, atol=1e-5
    )
    for part, encoder in parts_of(pipeline).items():
        if part != "unet":
            torch.testing.assert_close(
                text_output(models.parts()[part]), text_output(encoder), rtol=1e-4, atol=1e-5
            )


# -- other spellings ----------------------------------------------------------------------------------------------------

ATTENTION = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
ENCODER = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
SPELLINGS = [
    (SDXL, ATTENTION, f"lora_{ATTENTION.replace('.', '_')}", "lora_down.weight", "lora_up.weight"),
    (
        SD15,
        ENCODER,
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
        "lora_down.weight",
        "lora_up.weight",
    ),
    (SD15, ENCODER, "text_encoder.encoder.layers.0.self_attn.q_proj", "lora_A.weight", "lora_B.weight"),
    (SD15, ENCODER, ENCODER, "lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
    (SD15, ATTENTION, ATTENTION, "lora.down.weight", "lora.up.weight"),
    (SD15, ATTENTION, ATTENTION.removeprefix("unet."), "lora.down.weight", "lora.up.weight"),
    (SD15, ATTENTION, ATTENTION.replace("to_out.0", "processor.to_out_lora"), "down.weight", "up.weight"),
    (SD15, ATTENTION, ATTENTION.replace("to_out.0", "to_out_lora"), "down.weight", "up.weight"),
]


@pytest.mark.parametrize(
    ("family", "layer", "stem", "down", "up"), SPELLINGS, ids=[f"{s[2][:30]}-{s[3]}" for s in SPELLINGS]
)
def test_other_spellings_are_read(family, layer, stem, down, up, shared_models, tmp_path):
    models, path = shared_models(family.name), tmp_path / "x.safetensors"
    pair = random_pairs(models)[layer]
    safetensors.torch.save_file({f"{stem}.{down}": pair.down, f"{stem}.{up}": pair.up}, path)
    file = formats.load(path, models.parts(), family)
    assert list(file.pairs) == [layer] and not file.unused
    assert torch.equal(file.pairs[layer].up, pair.up) and file.pairs[layer].alpha == pair.rank


@pytest.mark.parametrize("family", ["sd15", "sd2"])
def test_projections_are_read_with_2_or_4_dimensions(family, shared_models, tmp_path):
    models, path = shared_models(family), tmp_path / "x.safetensors"
    name = "unet.mid_block.attentions.0.proj_in"
    pair = random_pairs(models)[name]
    other = (lambda t: t[:, :, None, None]) if family == "sd2" else (lambda t: t[:, :, 0, 0].contiguous())
    key = kohya_name(name, models.family)
    tensors = {f"{key}.lora_down.weight": other(pair.down), f"{key}.lora_up.weight": other(pair.up)}
    safetensors.torch.save_file(tensors, path)
    [read] = formats.load(path, models.parts(), models.family).pairs.values()
    assert torch.equal(read.down, pair.down) and torch.equal(read.up, pair.up)


def test_alpha_of_an_unfolded_peft_file_is_in_its_header(shared_models, tmp_path):
    models, path = shared_models("sd15"), tmp_path / "x.safetensors"
    pair = random_pairs(models)[ATTENTION]
    config = {
        "unet.r": 4,
        "unet.lora_alpha": 16,
        "unet.alpha_pattern": {"attn1.to_out.0": 2},
        "unet.use_rslora": True,
    }
    tensors = {f"{ATTENTION}.lora_A.weight": pair.down, f"{ATTENTION}.lora_B.weight": pair.up}
    safetensors.torch.save_file(tensors, path, {"lora_adapter_metadata": json.dumps(config)})
    assert formats.load(path, models.parts(), SD15).pairs[ATTENTION].alpha == 2 * 4**0.5


def test_unknown_keys_are_listed(shared_models, tmp_path):
    models, path = shared_models("sd15"), tmp_path / "x.safetensors"
    formats.save(path, random_pairs(models), models.family, metadata={})
    tensors = safetensors.torch.load_file(path) | {"lora_unet_other.lora_down.weight": torch.zeros(4, 8)}
    safetensors.torch.save_file(tensors, path)
    assert formats.load(path, models.parts(), SD15).unused == ["lora_unet_other.lora_down.weight"]


# -- what can't be loaded -----------------------------------------------------------------------------------------------

FOREIGN = {
    "IA3": "lora_unet_mid_block_attentions_0_proj_in.on_input",
    "OFT": "lora_unet_mid_block_attentions_0_proj_in.oft_blocks",
    "full weight differences": "lora_unet_mid_block_attentions_0_norm.diff",
    "norm layers": "lora_unet_mid_block_attentions_0_norm.w_norm",
    "GLoRA": "lora_unet_mid_block_attentions_0_proj_in.bm.weight",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_adapters_are_refused_by_name(kind, shared_models, tmp_path):
    models, path = shared_models("sd15"), tmp_path / "x.safetensors"
    formats.save(path, random_pairs(models), models.family, metadata={})
    safetensors.torch.save_file(safetensors.torch.load_file(path) | {FOREIGN[kind]: torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=f"parts of {kind}, which is no LoRA; these can't be loaded"):
        formats.load(path, models.parts(), SD15)


@pytest.mark.parametrize(("made_for", "used_on"), [("sdxl", "sd15"), ("sd15", "sdxl")])
def test_lora_for_another_base_is_refused(made_for, used_on, shared_models, tmp_path):
    models, other, path = shared_models(made_for), shared_models(used_on), tmp_path / "x.safetensors"
    formats.save(path, random_pairs(models), models.family, metadata={})
    with pytest.raises(ValueError, match="was made for another base model"):
        formats.load(path, other.parts(), other.family)


def test_lora_of_other_widths_is_refused(shared_models, starter, tmp_path):
    path, name = tmp_path / "x.safetensors", "unet.mid_block.attentions.0.proj_in"
    pair = random_pairs(shared_models("sd15"))[name]
    formats.save(path, {name: pair}, SD15, metadata={})
    with pytest.raises(
        ValueError,
        match=r"does not fit this model: unet\.mid_block\.attentions\.0\.proj_in is \(192, 192, 1, 1\)",
    ):
        formats.load(path, starter.parts(), SD15)


def test_file_without_a_lora_is_refused(shared_models, tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)
    models = shared_models("sd2")
    with pytest.raises(ValueError, match=r"holds no LoRA for Stable Diffusion 2\.x"):
        formats.load(path, models.parts(), SD2)


def test_cut_and_missing_files_are_refused(shared_models, tmp_path):
    models, path = shared_models("sd15"), tmp_path / "x.safetensors"
    formats.save(path, random_pairs(models), models.family, metadata={})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut short"):
        formats.load(path, models.parts(), SD15)
    with pytest.raises(ValueError, match="There is no file"):
        formats.load(tmp_path / "none.safetensors", models.parts(), SD15)


# -- what can't be saved ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "words"), [(float("nan"), "not finite"), (1e6, "too large for fp16")])
def test_weights_that_a_file_can_not_hold_are_named(value, words, shared_models, tmp_path):
    models, path = shared_models("sd15"), tmp_path / "x.safetensors"
    pairs = random_pairs(models)
    formats.save(path, pairs, models.family, metadata={})
    before = path.read_bytes()
    pairs[ATTENTION].up[0, 0] = value
    with pytest.raises(ValueError, match=words) as error:
        formats.save(path, pairs, models.family, metadata={})
    assert ATTENTION in str(error.value)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


FULL_DISK = """
import resource, signal, sys, torch
from lora_sd.lora import formats
from lora_sd.lora.pairs import Pair
from lora_sd.models.family import SD15

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
pair = Pair(torch.ones(8, 1000), torch.ones(1000, 8), 8.0)
try:
    formats.save(sys.argv[1], {"unet.x": pair}, SD15, metadata={})
except OSError as error:
    print(error)
"""


def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    # A disk can't be filled here: the process may write files of 10 kB at most, which fails in the same place.
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    assert "was not saved: File too large. It needs 0.0 MB; make room" in done.stdout
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_file_that_reads_back_differently_is_not_kept(shared_models, tmp_path, monkeypatch):
    models, path = shared_models("sd15"), tmp_path / "x.safetensors"
    read = safetensors.torch.load_file
    monkeypatch.setattr(
        safetensors.torch,
        "load_file",
        lambda p: {key: t.clone().flatten().fill_(0).view_as(t) for key, t in read(p).items()},
    )
    with pytest.raises(OSError, match="what was read back is not what was written"):
        formats.save(path, random_pairs(models), models.family, metadata={})
    assert not list(tmp_path.iterdir())


def test_folder_that_is_a_file_is_one_sentence(shared_models, tmp_path):
    models = shared_models("sd15")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="was not saved: "):
        formats.save(tmp_path / "file" / "x.safetensors", random_pairs(models), models.family, metadata={})
