"""The header tells other programs, and people, what a LoRA is; reading it needs no torch."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from lora_sd.lora import formats
from lora_sd.lora.inspection import inspect, read_header
from lora_sd.lora.metadata import Training, base_hashes, build, minimal
from lora_sd.lora.pairs import Pair
from lora_sd.models.family import FAMILIES, SD2, SD15, SDXL

QUERY = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
CONVOLUTION = "unet.mid_block.resnets.0.conv1"
ENCODER = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
TRAINING = Training(
    base="starter",
    output_name="my cat",
    trigger="mycat",
    resolution=512,
    seed=7,
    started_at=1_700_000_000.5,
    finished_at=1_700_000_900.5,
    step=25,
    steps=100,
    batches_per_epoch=10,
    batch_size=4,
    devices=2,
    learning_rate=1e-4,
    optimizer="torch.optim.adamw.AdamW(weight_decay=0.01)",
    schedule="cosine",
    min_snr=5.0,
    precision="bf16",
    examples=[("5_cat", 5, "mycat, Sofa"), ("5_cat", 5, "mycat, , sun"), ("rest", 1, "mycat")],
    buckets={(576, 448): 5, (512, 512): 6},
)


def pairs(width: int = 768, rank: int = 4) -> dict[str, Pair]:
    """One cross-attention, one 3×3 convolution and one text-encoder layer."""
    return {
        QUERY: Pair(torch.ones(rank, width), torch.ones(8, rank), rank / 2),
        CONVOLUTION: Pair(torch.ones(2, 8, 3, 3), torch.ones(8, 2, 1, 1), 1.0),
        ENCODER: Pair(torch.ones(rank, 16), torch.ones(64, rank), rank / 2),
    }


def a1111_base(metadata: dict[str, str]) -> str:
    """How A1111 and its kin tell the base model."""
    if metadata.get("ss_base_model_version", "").startswith("sdxl_"):
        return "sdxl"
    return "sd2" if metadata.get("ss_v2") == "True" else "sd15"


# -- what is written ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["full", "minimal"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a1111_finds_the_base(family, prediction, level):
    assert a1111_base(build(FAMILIES[family], prediction, pairs(), TRAINING, level=level)) == family


@pytest.mark.parametrize(
    ("family", "prediction", "version", "architecture"),
    [
        (SD15, "epsilon", "sd_v1", "stable-diffusion-v1/lora"),
        (SD15, "v_prediction", "sd_v1_v", "stable-diffusion-v1/lora"),
        (SD2, "epsilon", "sd_v2", "stable-diffusion-v2-512/lora"),
        (SD2, "v_prediction", "sd_v2_v", "stable-diffusion-v2-768-v/lora"),
        (SDXL, "epsilon", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
        (SDXL, "v_prediction", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
    ],
)
def test_version_and_architecture_are_those_of_sd_scripts(family, prediction, version, architecture):
    metadata = build(family, prediction, pairs())
    assert metadata["ss_base_model_version"] == version
    assert metadata["modelspec.architecture"] == architecture
    assert metadata["modelspec.prediction_type"] == {"epsilon": "epsilon"}.get(prediction, "v")


@pytest.mark.parametrize(
    ("family", "architecture"),
    [
        (SD15, "stable-diffusion-v1-inpainting/lora"),
        (SD2, "stable-diffusion-v2-inpainting/lora"),
        (SDXL, "stable-diffusion-xl-v1-base-inpainting/lora"),
    ],
)
def test_an_inpainting_base_is_said_where_others_say_it(family, architecture):
    """OneTrainer's words; kohya has none, so there it is the family, for which such a LoRA works, too."""
    metadata = build(family, "epsilon", pairs(), Training(inpainting=True), level="minimal")
    assert metadata["modelspec.architecture"] == architecture and a1111_base(metadata) == family.name
    assert metadata["lora_sd.inpainting"] == "True"
    assert "lora_sd.inpainting" not in build(family, "epsilon", pairs())


def test_every_key_of_a_folder_run_of_sd_scripts_is_there_as_text():
    metadata = build(SD15, "epsilon", pairs(), TRAINING)
    assert sum(key.startswith("ss_") for key in metadata) == 84
    assert sum(key.startswith("modelspec.") for key in metadata) == 9  # eight, and the trigger phrase
    assert all(isinstance(value, str) for value in metadata.values())


def test_values_read_as_sd_scripts_writes_them():
    metadata = build(SD15, "epsilon", pairs(), TRAINING)
    expected = {
        "ss_resolution": "(512, 512)",
        "ss_learning_rate": "0.0001",
        "ss_text_encoder_lr": "0.0001",
        "ss_clip_skip": "None",
        "ss_mixed_precision": "bf16",
        "ss_network_dim": "4",
        "ss_network_alpha": "2.0",
        "ss_network_module": "networks.lora",
        "ss_num_train_images": "11",
        "ss_batch_size_per_device": "2",
        "ss_total_batch_size": "4",
        "ss_steps": "25",
        "ss_epoch": "3",
        "ss_num_epochs": "10",
        "ss_min_bucket_reso": "448",
        "ss_max_bucket_reso": "576",
        "modelspec.date": "2023-11-14T22:28:20",
        "modelspec.resolution": "512x512",
        "modelspec.trigger_phrase": "mycat",
        "lora_sd.base": "starter",
    }
    assert {key: metadata[key] for key in expected} == expected
    assert json.loads(metadata["ss_network_args"]) == {"dropout": None, "conv_dim": "2", "conv_alpha": "1.0"}


def test_noise_reads_as_sd_scripts_writes_it():
    plain = build(SD15, "epsilon", pairs(), TRAINING)
    off = {
        "ss_noise_offset": "None",
        "ss_noise_offset_random_strength": "False",
        "ss_adaptive_noise_scale": "None",
        "ss_multires_noise_iterations": "None",
        "ss_multires_noise_discount": "0.3",
        "ss_ip_noise_gamma": "None",
        "ss_ip_noise_gamma_random_strength": "False",
    }
    assert {key: plain[key] for key in off} == off
    noisy = replace(
        TRAINING,
        noise_offset=0.05,
        noise_offset_random=True,
        noise_offset_adaptive=0.00357,
        pyramid=6,
        pyramid_discount=0.2,
        perturbation=0.1,
        perturbation_random=True,
    )
    on = dict(zip(off, ["0.05", "True", "0.00357", "6", "0.2", "0.1", "True"], strict=True))
    metadata = build(SD15, "epsilon", pairs(), noisy)
    assert {key: metadata[key] for key in on} == on


def test_a_weighting_reads_as_sd_scripts_writes_it():
    sharp = build(SD15, "epsilon", pairs(), TRAINING)
    assert (sharp["ss_min_snr_gamma"], sharp["ss_debiased_estimation"]) == ("5.0", "False")
    debiased = build(SD15, "epsilon", pairs(), replace(TRAINING, min_snr=0.0, debiased=True))
    assert (debiased["ss_min_snr_gamma"], debiased["ss_debiased_estimation"]) == ("None", "True")


def test_the_kind_of_loss_reads_as_sd_scripts_writes_it():
    plain, huber = (
        build(SD15, "epsilon", pairs(), training)
        for training in (
            TRAINING,
            replace(TRAINING, loss_kind="huber", huber_schedule="constant", huber_c=0.2),
        )
    )
    keys = ("ss_loss_type", "ss_huber_schedule", "ss_huber_scale", "ss_huber_c")
    assert [plain[key] for key in keys] == ["l2", "snr", "1.0", "0.1"]
    assert [huber[key] for key in keys] == ["huber", "constant", "1.0", "0.2"]


def test_a_range_of_timesteps_is_told_where_it_is_not_all_of_them():
    assert "modelspec.timestep_range" not in build(SD15, "epsilon", pairs(), TRAINING)
    early = replace(TRAINING, timestep_range=(0, 500))
    assert build(SD15, "epsilon", pairs(), early)["modelspec.timestep_range"] == "0,500"


def test_tables_count_pictures_and_tags():
    metadata = build(SD15, "epsilon", pairs(), TRAINING)
    tags = {"5_cat": {"mycat": 2, "sofa": 1, "sun": 1}, "rest": {"mycat": 1}}
    assert json.loads(metadata["ss_tag_frequency"]) == tags
    folders = {"5_cat": {"n_repeats": 5, "img_count": 2}, "rest": {"n_repeats": 1, "img_count": 1}}
    assert json.loads(metadata["ss_dataset_dirs"]) == folders
    assert json.loads(metadata["ss_bucket_info"])["buckets"] == {
        "0": {"resolution": [512, 512], "count": 6},
        "1": {"resolution": [576, 448], "count": 5},
    }


def test_minimal_has_no_captions_folders_or_settings():
    metadata = build(SD15, "epsilon", pairs(), TRAINING, level="minimal")
    assert metadata == minimal(build(SD15, "epsilon", pairs(), TRAINING))
    assert not any(word in "".join(metadata.values()) for word in ("sofa", "5_cat", "cosine"))
    assert metadata["ss_output_name"] == "my cat"


def test_only_the_name_of_a_base_file_is_published(tmp_path):
    base = tmp_path / "private" / "dream.safetensors"
    base.parent.mkdir()
    base.write_bytes(b"")
    metadata = build(SD15, "epsilon", pairs(), Training(base=str(base)))
    assert metadata["lora_sd.base"] == metadata["ss_sd_model_name"] == "dream.safetensors"
    assert not any("private" in value for value in metadata.values())
    hub = build(SD15, "epsilon", pairs(), Training(base="someone/model"))
    assert hub["lora_sd.base"] == "someone/model"


def test_base_hashes_are_a1111s_and_sha256(tmp_path):
    path, data = tmp_path / "base.safetensors", bytes(range(256)) * 5000
    path.write_bytes(data)
    old = hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]
    assert base_hashes(path) == (old, hashlib.sha256(data).hexdigest())
    assert base_hashes(tmp_path) == ("IsADirectory", "IsADirectory")
    assert base_hashes(None) == base_hashes(tmp_path / "none") == ("NOFILE", "NOFILE")


def test_base_hashes_are_remembered_until_the_file_changes(tmp_path, monkeypatch):
    path, memory = tmp_path / "model.safetensors", tmp_path / "cache" / "models.json"
    path.write_bytes(b"x" * 100)
    found = base_hashes(path, memory)
    assert found == base_hashes(path)
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", None)
        assert base_hashes(path, memory) == found
    path.write_bytes(b"y" * 101)
    assert base_hashes(path, memory) == base_hashes(path) != found


# -- what is read ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["kohya", "peft"])
@pytest.mark.parametrize(("family", "width"), [(SD15, 768), (SD2, 1024), (SDXL, 2048), (SD15, 192)])
def test_inspect_tells_what_was_saved(family, width, layout, tmp_path):
    path = tmp_path / "x.safetensors"
    metadata = build(family, "epsilon", pairs(), TRAINING)
    formats.save(path, pairs(width), family, metadata=metadata, layout=layout)
    found = inspect(path)
    assert (found.family, found.layout, found.kinds) == (family.name, layout, ["LoRA"])
    assert (found.base, found.trigger) == ("starter", "mycat")
    assert found.modules == {"unet": 2, "text_encoder": 1}
    assert found.ranks == {4: 2, 2: 1}
    assert found.settings["steps"] == "25" and found.settings["learning rate"] == "0.0001"


def test_inspect_shows_strength_and_a_line_for_each_fact(tmp_path):
    path = tmp_path / "x.safetensors"
    formats.save(path, {QUERY: pairs()[QUERY]}, SD15, metadata=build(SD15, "epsilon", pairs(), TRAINING))
    found = inspect(path)
    assert found.strengths == {0.5: 1}
    assert str(found).splitlines() == found.lines()
    facts = [line.strip() for line in found.lines()]
    assert facts[0] == "x.safetensors"
    for words in ("made for", "trigger", "layers", "rank", "alpha / rank", "seed"):
        assert any(fact.startswith(words) for fact in facts)


@pytest.mark.parametrize(("width", "family"), [(768, "sd15"), (1024, "sd2"), (2048, "sdxl"), (192, None)])
def test_file_without_metadata_is_told_by_its_width(width, family, tmp_path):
    path = tmp_path / "x.safetensors"
    key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {f"{key}.lora_down.weight": torch.ones(4, width), f"{key}.lora_up.weight": torch.ones(8, 4)}
    safetensors.torch.save_file(tensors, path)
    found = inspect(path)
    assert (found.family, found.base, found.trigger) == (family, "", "")
    assert found.strengths == {1.0: 1}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_alphas_are_read_in_every_dtype(dtype, tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"lora_unet_x.alpha": torch.tensor(12, dtype=dtype)}, path)
    assert read_header(path).alphas == {"lora_unet_x.alpha": 12}


def test_another_kind_of_adapter_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"lora_unet_x.on_input": torch.ones(2)}, path)
    assert inspect(path).kinds == ["IA3"]
    assert "IA3, which can't be loaded here" in str(inspect(path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "There is no file at"),
        (b"", "not a safetensors file"),
        (b"a text file, renamed", "not a safetensors file"),
        (safetensors.torch.save({"x": torch.ones(9)}), "is not a LoRA file: none of its 1 tensors"),
        (safetensors.torch.save({"x": torch.ones(9)})[:-9], "cut short"),
    ],
)
def test_what_is_not_a_lora_is_one_sentence(content, words, tmp_path):
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        inspect(path)


def test_reading_needs_no_torch(tmp_path):
    path = tmp_path / "x.safetensors"
    formats.save(path, pairs(), SD15, metadata={})
    code = "import sys; from lora_sd.lora.metadata import inspect; inspect(sys.argv[1]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
