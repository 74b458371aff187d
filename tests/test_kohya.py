"""Settings of sd-scripts and kohya_ss become ours with their meaning: what trains is what would have trained there."""

import contextlib
import inspect
import json
import re
import time
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from real_shapes import real_parts

import lora_sd
from lora_sd import config as cfg
from lora_sd import kohya
from lora_sd.kohya import blocks, command, header, optimizers, prompts, table, values
from lora_sd.lora.layers import named_layers
from lora_sd.lora.names import kohya_name
from lora_sd.lora.targets import resolve, scales
from lora_sd.models.family import FAMILIES
from lora_sd.training import optim

SETTINGS = {setting.name for setting in cfg.settings()}
# What their trainer takes for what a file leaves out, where ours would take something else (options.md of sd-scripts)
THEIRS = {
    "data.buckets": False,
    "lora.rank": 4,
    "lora.alpha": 1.0,
    "lora.targets": "transformer",
    "lora.text_encoders": True,
    "optim.learning_rate": 2e-6,
    "optim.steps": 1600,
    "loss.min_snr": 0.0,
}


def imported(folder: Path, text: str, name: str = "theirs.toml", **options) -> kohya.Imported:
    (folder / name).write_text(text, encoding="utf-8")
    return kohya.load(folder / name, **options)


def differences(folder: Path, text: str, name: str = "theirs.toml", **options) -> dict:
    return cfg.differences(imported(folder, text, name, **options).config)


def said(notes: list[kohya.Note], kind: str) -> dict[str, str]:
    return {note.option: note.words for note in notes if note.kind == kind}


# -- a TOML of arguments -----------------------------------------------------------------------------------------------


def test_what_is_not_set_is_what_their_trainer_takes(tmp_path):
    assert differences(tmp_path, 'network_module = "networks.lora"') == THEIRS


def test_an_argument_file_becomes_our_settings(tmp_path):
    found = imported(
        tmp_path,
        """
        [model_arguments]
        pretrained_model_name_or_path = "/models/dream.safetensors"
        clip_skip = 2
        [dataset_arguments]
        train_data_dir = "/pictures"
        reg_data_dir = "/priors"
        prior_loss_weight = 0.5
        resolution = "768,768"
        train_batch_size = 3
        enable_bucket = true
        min_bucket_reso = 320
        bucket_no_upscale = true
        caption_extension = ".txt"
        shuffle_caption = true
        keep_tokens = 2
        caption_tag_dropout_rate = 0.1
        caption_dropout_rate = 0.05
        flip_aug = true
        [additional_network_arguments]
        network_module = "networks.lora"
        network_dim = 32
        network_alpha = 16
        network_args = ["conv_dim=8", "conv_alpha=4", "rank_dropout=0.1", "loraplus_lr_ratio=16"]
        scale_weight_norms = 1
        unet_lr = 4e-4
        text_encoder_lr = 8e-5
        [optimizer_arguments]
        optimizer_type = "AdamW8bit"
        optimizer_args = ["weight_decay=0.1", "betas=0.9,0.99"]
        lr_scheduler = "cosine_with_restarts"
        lr_scheduler_num_cycles = 3
        lr_warmup_steps = 0.05
        max_train_steps = 2000
        gradient_accumulation_steps = 2
        max_grad_norm = 0.5
        seed = 7
        [noise_arguments]
        noise_offset = 0.0357
        adaptive_noise_scale = 0.00357
        multires_noise_iterations = 6
        multires_noise_discount = 0.2
        ip_noise_gamma = 0.1
        min_timestep = 100
        max_timestep = 900
        min_snr_gamma = 8
        loss_type = "huber"
        huber_schedule = "exponential"
        huber_c = 0.2
        huber_scale = 2.0
        [saving_arguments]
        output_name = "mycat"
        save_precision = "float"
        mixed_precision = "no"
        save_every_n_epochs = 2
        """,
    )
    assert cfg.differences(found.config) == {
        "model.base": "/models/dream.safetensors",
        "model.clip_skip": 2,
        "data.images": "/pictures",
        "data.regularisation": "/priors",
        "data.regularisation_weight": 0.5,
        "data.resolution": 768,
        "data.bucket_min": 320,
        "data.bucket_max": 1024,
        "data.bucket_step": 64,
        "data.enlarge": False,
        "data.flip": True,
        "captions.shuffle": True,
        "captions.keep": 2,
        "captions.tag_dropout": 0.1,
        "captions.dropout": 0.05,
        "lora.rank": 32,
        "lora.alpha": 16.0,
        "lora.conv_rank": 8,
        "lora.conv_alpha": 4.0,
        "lora.targets": "full",
        "lora.text_encoders": True,
        "lora.rank_dropout": 0.1,
        "lora.plus_ratio": 16.0,
        "lora.max_norm": 1.0,
        "optim.learning_rate": 4e-4,
        "optim.text_encoder_rate": [8e-5],
        "optim.optimizer": "AdamW8bit",
        "optim.weight_decay": 0.1,
        "optim.arguments": {"betas": [0.9, 0.99]},
        "optim.schedule": "cosine_with_restarts",
        "optim.warmup": "5%",
        "optim.steps": 2000,
        "optim.batch_size": 3,
        "optim.accumulation": 2,
        "optim.max_grad_norm": 0.5,
        "seed": 7,
        "noise.offset": 0.0357,
        "noise.offset_adaptive": 0.00357,
        "noise.pyramid": 6,
        "noise.pyramid_discount": 0.2,
        "noise.perturbation": 0.1,
        "noise.min_timestep": 100,
        "noise.max_timestep": 900,
        "loss.min_snr": 8.0,
        "loss.kind": "huber",
        "loss.huber_schedule": "exponential",
        "loss.huber_c": 0.2,
        "loss.huber_scale": 2.0,
        "machine.precision": "fp32",
        "save.dtype": "fp32",
        "save.every": "2 epochs",
        "output.name": "mycat",
    }
    assert not said(found.notes, "ignored") and not said(found.notes, "unknown")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("network_dim = 8\nnetwork_alpha = 0", {"lora.rank": 8, "lora.alpha": 8.0}),
        ("learning_rate = 1e-3", {"optim.learning_rate": 1e-3}),
        ("learning_rate = 1e-3\nnetwork_train_unet_only = true", {"optim.learning_rate": 1e-3, "lora.text_encoders": False}),
        ("unet_lr = 1e-3\ntext_encoder_lr = 0.0", {"optim.learning_rate": 1e-3, "lora.text_encoders": False}),
        ("unet_lr = 0.0\ntext_encoder_lr = 1e-5", {"optim.learning_rate": 1e-5, "lora.ranks": {"unet.*": 0}}),
        ("network_train_text_encoder_only = true", {"lora.ranks": {"unet.*": 0}}),
        ("unet_lr = 1e-3\ntext_encoder_lr = [1e-4, 1e-5]", {"optim.learning_rate": 1e-3, "optim.text_encoder_rate": [1e-4]}),
        ('network_module = "networks.lora_fa"', {"lora.train_down": False}),
        ('network_args = ["conv_dim=8"]', {"lora.targets": "full", "lora.conv_rank": 8, "lora.conv_alpha": 1.0}),
        (
            'network_module = "lycoris.kohya"\nnetwork_args = ["algo=locon", "rs_lora=True"]',
            {"lora.targets": "full", "lora.conv_rank": 4, "lora.conv_alpha": 1.0, "lora.rank_stabilized": True},
        ),
        ('lr_scheduler = "polynomial"', {"optim.schedule": "polynomial", "optim.power": 1.0}),
        ('lr_scheduler = "cosine_with_restarts"', {"optim.schedule": "cosine_with_restarts", "optim.cycles": 1}),
        ('lr_scheduler = "constant_with_warmup"\nlr_warmup_steps = 50', {"optim.warmup": 50}),
        ("lr_warmup_steps = 50", {}),  # which constant does not have there
        ("debiased_estimation_loss = true", {"loss.weighting": "debiased"}),
        ('loss_type = "huber"\nhuber_scale = 3.0', {"loss.kind": "huber"}),  # for the schedule snr it does nothing there
        ("adaptive_noise_scale = 0.01", {}),  # nor does this without noise_offset
        ("v_parameterization = true", {"model.prediction": "v_prediction"}),
        ("resolution = 512", {"data.resolution": 512}),
        ('resolution = "512,768"', {"data.resolution": 627}),
        ("enable_wildcard = true", {"captions.wildcards": True, "captions.lines": True}),
        ("no_metadata = true", {"output.metadata": "minimal"}),
        ("use_8bit_adam = true", {"optim.optimizer": "AdamW8bit"}),
        ("network_dropout = 0.1", {"lora.dropout": 0.1}),
        ('optimizer_type = "prodigy"\nunet_lr = 1.0\ntext_encoder_lr = 0.5', {
            "optim.optimizer": "Prodigy", "optim.learning_rate": 1.0, "optim.weight_decay": 0.0,
            "optim.arguments": {"use_bias_correction": False, "safeguard_warmup": False},
        }),
    ],
)  # fmt: skip
def test_an_option_has_its_meaning_there(text, expected, tmp_path):
    usual = THEIRS | {"optim.learning_rate": 2e-6}
    found = differences(tmp_path, text)
    wanted = {
        name: value for name, value in (usual | expected).items() if value != cfg.get(cfg.TrainConfig(), name)
    }
    assert found == wanted


def test_each_option_is_told_what_became_of_it(tmp_path):
    notes = imported(
        tmp_path,
        'netwrok_dim = 8\ncolour = "red"\ncache_latents = true\nnetwork_dim = 9999\nnetwork_alpha = "high"\n'
        'caption_extension = ".tags"\ncaption_prefix = "a photo of"',
    ).notes
    assert said(notes, "unknown") == {
        "netwrok_dim": "did you mean network_dim?",
        "colour": "sd-scripts has no such option.",
    }
    ignored = said(notes, "ignored")
    assert ignored["cache_latents"].startswith("latents are always cached here")
    assert ignored["network_dim"] == "lora.rank is 9999; it must be at most 1024."
    assert ignored["network_alpha"] == "it must be a number."
    assert "rename yours" in ignored["caption_extension"]
    assert "stays in front" in said(notes, "differs")["caption_prefix"]
    assert said(notes, "assumed")["min_snr_gamma"] == "loss.min_snr = 0.0."
    assert all(note.words[-1] in ".?" and "\n" not in str(note) for note in notes)
    assert len(kohya.report(notes).splitlines()) >= len(notes)


def test_epochs_go_before_steps(tmp_path):
    optim = imported(tmp_path, "max_train_epochs = 10\nmax_train_steps = 500").config.optim
    assert (optim.epochs, optim.steps) == (10, None)


def test_relative_paths_are_those_beside_the_file(tmp_path):
    found = imported(
        tmp_path, 'train_data_dir = "cats"\npretrained_model_name_or_path = "owner/model"'
    ).config
    assert found.data.images == str(tmp_path / "cats") and found.model.base == "owner/model"


def test_a_path_of_windows_is_told_elsewhere(tmp_path):
    found = imported(tmp_path, r"train_data_dir = 'C:\cats'")
    assert found.config.data.images == r"C:\cats"
    assert ("data.images" in said(found.notes, "differs")) == (not Path(r"C:\cats").is_absolute())


def test_a_file_of_ours_is_taken_as_it_is(tmp_path):
    found = imported(tmp_path, "seed = 42\n[lora]\nrank = 8\n[data]\nresolution = 640")
    assert cfg.differences(found.config) == {"data.resolution": 640, "lora.rank": 8}
    assert [note.setting for note in found.notes] == ["seed", "data.resolution", "lora.rank"]
    with pytest.raises(ValueError, match=r"did you mean 'lora\.rank'"):
        imported(tmp_path, "[lora]\nrank = 8\nalpha = 4.0\nrnak = 8")


# -- data sets ---------------------------------------------------------------------------------------------------------

DATASETS = """
[general]
shuffle_caption = true
keep_tokens = 1
[[datasets]]
resolution = 640
batch_size = 4
enable_bucket = true
  [[datasets.subsets]]
  image_dir = "/a"
  class_tokens = "mycat"
  num_repeats = 3
  [[datasets.subsets]]
  image_dir = "/b"
  flip_aug = true
  caption_extension = ".txt"
  class_tokens = "mydog"
  conditioning_data_dir = "/masks"
  [[datasets.subsets]]
  image_dir = "/reg"
  is_reg = true
  class_tokens = "cat"
"""


def test_data_sets_inherit_and_become_folders(tmp_path):
    found = imported(tmp_path, DATASETS)
    assert cfg.differences(found.config) == {
        "data.folders": found.config.data.folders,
        "data.resolution": 640,
        "data.regularisation": "/reg",
        "data.regularisation_caption": "cat",
        "captions.shuffle": True,
        "captions.keep": 1,
        "optim.batch_size": 4,
    }
    assert [folder.model_dump(exclude_defaults=True) for folder in found.config.data.folders] == [
        {"path": "/a", "repeats": 3, "trigger": "mycat"},
        {"path": "/b", "flip": True, "masks": "/masks"},
    ]


def test_what_only_a_data_set_has_is_told(tmp_path):
    text = DATASETS + "custom_attributes = { diff_output_preservation = true }\n[[datasets]]\ncolour = 3\n"
    notes = imported(tmp_path, text.replace("is_reg = true", "")).notes
    assert "loss.keep_base" in said(notes, "ignored")["custom_attributes"]
    assert "colour" in said(notes, "unknown")


def test_the_narrower_place_counts(tmp_path):
    found = differences(
        tmp_path,
        """
        [general]
        keep_tokens = 1
        flip_aug = false
        [[datasets]]
        keep_tokens = 2
          [[datasets.subsets]]
          image_dir = "/a"
          keep_tokens = 3
          flip_aug = true
        """,
    )
    assert found == {"data.images": "/a", "data.flip": True, "captions.keep": 3}


def test_a_data_set_that_an_argument_file_names_goes_over_it(tmp_path):
    (tmp_path / "sets.toml").write_text(DATASETS)
    text = 'dataset_config = "C:\\\\somewhere\\\\sets.toml"\nresolution = "512,512"\ntrain_batch_size = 1'
    found = imported(tmp_path, text).config
    assert (found.data.resolution, found.optim.batch_size, len(found.data.folders)) == (640, 4, 2)
    unread = imported(tmp_path, text, beside=False)
    assert unread.config.data.folders == [] and "by itself" in said(unread.notes, "ignored")["dataset_config"]


# -- the header of a LoRA ----------------------------------------------------------------------------------------------

HEADER = {
    "ss_learning_rate": "0.0001",
    "ss_unet_lr": "None",
    "ss_text_encoder_lr": "5e-05",
    "ss_optimizer": "bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1,betas=(0.9, 0.99))",
    "ss_lr_scheduler": "cosine",
    "ss_lr_warmup_steps": "50",
    "ss_max_train_steps": "1500",
    "ss_max_grad_norm": "1.0",
    "ss_gradient_accumulation_steps": "1",
    "ss_mixed_precision": "fp16",
    "ss_seed": "42",
    "ss_network_module": "networks.lora",
    "ss_network_dim": "32",
    "ss_network_alpha": "16.0",
    "ss_network_args": '{"conv_dim": "8", "conv_alpha": "4", "dropout": null}',
    "ss_network_dropout": "None",
    "ss_min_snr_gamma": "None",
    "ss_noise_offset": "0.0357",
    "ss_noise_offset_random_strength": "False",
    "ss_adaptive_noise_scale": "None",
    "ss_debiased_estimation": "False",
    "ss_loss_type": "l2",
    "ss_huber_c": "0.1",
    "ss_huber_schedule": "snr",
    "ss_prior_loss_weight": "1.0",
    "ss_clip_skip": "2",
    "ss_output_name": "mycat",
    "ss_sd_model_name": "dream.safetensors",
    "ss_base_model_version": "sd_v1",
    "ss_color_aug": "False",
    "modelspec.timestep_range": "0,900",
}
OF_A_FOLDER = {
    "ss_total_batch_size": "2",
    "ss_resolution": "(768, 512)",
    "ss_enable_bucket": "True",
    "ss_min_bucket_reso": "256",
    "ss_max_bucket_reso": "1024",
    "ss_bucket_no_upscale": "False",
    "ss_shuffle_caption": "True",
    "ss_keep_tokens": "1",
    "ss_flip_aug": "True",
    "ss_caption_tag_dropout_rate": "0.1",
}
OF_DATASETS = {
    "ss_datasets": json.dumps(
        [
            {
                "is_dreambooth": True, "batch_size_per_device": 2, "resolution": [768, 512], "enable_bucket": True,
                "min_bucket_reso": 256, "max_bucket_reso": 1024, "tag_frequency": {"a": {"b": 1}}, "bucket_info": {},
                "subsets": [{"img_count": 9, "num_repeats": 1, "flip_aug": True, "shuffle_caption": True, "keep_tokens": 1}],
            }
        ]
    ),
    "ss_caption_tag_dropout_rate": "0.1",
}  # fmt: skip


@pytest.mark.parametrize("data", [OF_A_FOLDER, OF_DATASETS])
@pytest.mark.parametrize("encoder", [True, False])
def test_the_header_of_their_lora_tells_how_it_was_made(data, encoder, tmp_path):
    keys = ["lora_unet_mid_block_attentions_0_proj_in"] + [
        "lora_te_text_model_encoder_layers_0_mlp_fc1"
    ] * encoder
    tensors = {f"{key}.lora_down.weight": torch.ones(2, 3) for key in keys}
    safetensors.torch.save_file(tensors, tmp_path / "x.safetensors", metadata=HEADER | data)
    found = kohya.load(tmp_path / "x.safetensors")
    expected = {
        "model.base": "dream.safetensors",
        "model.clip_skip": 2,
        "data.resolution": 627,
        "data.bucket_min": 256,
        "data.bucket_max": 1024,
        "data.flip": True,
        "captions.shuffle": True,
        "captions.keep": 1,
        "captions.tag_dropout": 0.1,
        "lora.rank": 32,
        "lora.alpha": 16.0,
        "lora.conv_rank": 8,
        "lora.conv_alpha": 4.0,
        "lora.targets": "full",
        "lora.text_encoders": True,
        "optim.text_encoder_rate": [5e-5],
        "optim.optimizer": "AdamW8bit",
        "optim.arguments": {"betas": [0.9, 0.99]},
        "optim.weight_decay": 0.1,
        "optim.steps": 1500,
        "optim.schedule": "cosine",
        "optim.warmup": 50,
        "optim.batch_size": 2,
        "noise.offset": 0.0357,
        "noise.max_timestep": 900,
        "loss.min_snr": 0.0,
        "machine.precision": "fp16",
        "output.name": "mycat",
    }
    without = () if encoder else ("lora.text_encoders", "optim.text_encoder_rate")
    assert cfg.differences(found.config) == {k: v for k, v in expected.items() if k not in without}
    assert not said(found.notes, "unknown")


# -- kohya_ss ----------------------------------------------------------------------------------------------------------

PRESET = {
    "LoRA_type": "Kohya LoCon",
    "block_dims": "",
    "bucket_reso_steps": 32,
    "cache_latents": True,
    "caption_extension": ".txt",
    "clip_skip": "1",
    "conv_alpha": 2,
    "conv_dim": 4,
    "enable_bucket": True,
    "epoch": 5,
    "flip_aug": False,
    "keep_tokens": "0",
    "learning_rate": 0.0001,
    "lr_scheduler": "cosine",
    "lr_scheduler_num_cycles": "",
    "lr_warmup": 10,
    "max_bucket_reso": 2048,
    "max_resolution": "1024,1024",
    "max_train_epochs": "",
    "max_train_steps": "2400",
    "min_bucket_reso": 256,
    "min_snr_gamma": 0,
    "mixed_precision": "bf16",
    "multires_noise_iterations": 6,
    "multires_noise_discount": 0.2,
    "network_alpha": 16,
    "network_dim": 32,
    "network_dropout": 0,
    "noise_offset": 0.05,
    "noise_offset_type": "Multires",
    "optimizer": "Adafactor",
    "optimizer_args": "scale_parameter=False relative_step=False warmup_init=False",
    "rank_dropout": 0,
    "sample_prompts": "a cat --n blurry --d 7\n# a comment\na dog --w 512",
    "save_every_n_epochs": 1,
    "sdxl": True,
    "seed": "",
    "text_encoder_lr": 0,
    "train_batch_size": 2,
    "train_data_dir": "/cats",
    "unet_lr": 0.0003,
    "xformers": "xformers",
}


def test_a_preset_becomes_our_settings(tmp_path):
    found = imported(tmp_path, json.dumps(PRESET), "preset.json")
    assert cfg.differences(found.config) == {
        "data.images": "/cats",
        "data.resolution": 1024,
        "data.bucket_min": 256,
        "data.bucket_max": 2048,
        "data.bucket_step": 32,
        "lora.rank": 32,
        "lora.alpha": 16.0,
        "lora.conv_rank": 4,
        "lora.conv_alpha": 2.0,
        "lora.targets": "full",
        "optim.learning_rate": 3e-4,
        "optim.optimizer": "Adafactor",
        "optim.arguments": {"scale_parameter": False, "warmup_init": False},
        "optim.schedule": "cosine",
        "optim.warmup": "10%",
        "optim.weight_decay": 0.0,
        "optim.steps": 2400,
        "optim.batch_size": 2,
        "noise.pyramid": 6,
        "noise.pyramid_discount": 0.2,
        "loss.min_snr": 0.0,
        "machine.precision": "bf16",
        "save.every": "1 epoch",
        "preview.prompts": ["a cat", "a dog"],
        "preview.negative": "blurry",
        "preview.seed": 7,
    }
    assert said(found.notes, "taken")["max_resolution"] == "data.resolution = 1024."
    assert not said(found.notes, "unknown")


def test_a_preset_says_epochs_warmup_and_restarts_its_own_way(tmp_path):
    preset = PRESET | {"max_train_steps": 0, "lr_scheduler": "cosine_with_restarts", "LoRA_type": "Standard"}
    found = imported(tmp_path, json.dumps(preset), "preset.json")
    assert found.config.optim.cycles == 5  # as many as epochs, where the field is empty
    assert found.config.lora.targets == "transformer"  # Standard leaves conv_dim aside
    assert any(note.option == "epoch" and note.value == 5 for note in found.notes)


@pytest.mark.parametrize("rates", [(0, 0), (1e-3, 0), (0, 1e-5)])
def test_a_rate_of_0_leaves_a_part_out_in_a_preset(rates, tmp_path):
    preset = PRESET | {"unet_lr": rates[0], "text_encoder_lr": rates[1]}
    found = imported(tmp_path, json.dumps(preset), "preset.json").config
    assert found.lora.text_encoders == (rates[1] > 0 or rates == (0, 0))
    assert found.lora.ranks == ({"unet.*": 0} if rates == (0, 1e-5) else {})
    assert found.optim.learning_rate == (max(rates) or 1e-4)


# -- a command line ----------------------------------------------------------------------------------------------------

SHELL = r"""#!/bin/sh
# --network_dim 99
MODEL="/models/dream one.safetensors"
accelerate launch --num_processes 2 sd-scripts/train_network.py \
  --pretrained_model_name_or_path "$MODEL" --network_module=networks.lora --network_dim 16 \
  --network_args conv_dim=4 "conv_alpha=2" --network_train_unet_only --learning_rate=3e-4 \
  --output_name my-cat && echo done --network_dim 5
"""
BATCH = r"""@echo off
set MODEL=C:\models\dream one.safetensors
REM --network_dim 99
accelerate launch "C:\kohya\sdxl_train_network.py" ^
 --pretrained_model_name_or_path "%MODEL%" ^
 --network_dim 16 --output_name my-cat --learning_rate 3e-4 --network_train_unet_only
pause
"""


def test_a_shell_script_is_read(tmp_path):
    found = differences(tmp_path, SHELL, "train.sh")
    assert found == {
        "model.base": "/models/dream one.safetensors",
        "data.buckets": False,
        "lora.alpha": 1.0,
        "lora.conv_rank": 4,
        "lora.conv_alpha": 2.0,
        "lora.targets": "full",
        "optim.learning_rate": 3e-4,
        "optim.steps": 1600,
        "loss.min_snr": 0.0,
        "output.name": "my-cat",
    }


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_batch_file_is_read(ending, tmp_path):
    options, sdxl = command.options(BATCH.replace("\n", ending), "train.bat")
    assert sdxl is True
    assert options == {
        "pretrained_model_name_or_path": r"C:\models\dream one.safetensors",
        "network_dim": "16",
        "output_name": "my-cat",
        "learning_rate": "3e-4",
        "network_train_unet_only": True,
    }


def test_pasted_options_without_a_program_are_read(tmp_path):
    assert command.options("--network_dim 8\n--network_args a=1 b=2", "x.txt")[0] == {
        "network_dim": "8",
        "network_args": ["a=1", "b=2"],
    }


# -- optimizers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", optimizers.NAMED)
def test_an_optimizer_by_name_is_what_it_is_there_unless_set(name):
    """The class's own defaults are the oracle, where the package is installed."""
    found = optimizers.found(name)
    assert cfg.changed(cfg.TrainConfig(), {"optim.optimizer": found.ours})
    try:
        kind = optim.find(found.ours)
    except ValueError:
        pytest.skip("is not installed here")
    usual = {k: p.default for k, p in inspect.signature(kind).parameters.items() if p.default is not p.empty}
    assert usual["weight_decay"] == found.weight_decay
    ours = {**optim.kind_of(found.ours).arguments, **found.arguments}
    sgd = {"momentum": 0.9, "nesterov": True} if "sgdnesterov" in name else {}  # which sd-scripts adds
    relative = {"relative_step": False} if name == "adafactor" else {}  # which is not here, and told
    assert all(value == {**usual, **sgd, **relative}[key] for key, value in ours.items())


def test_a_class_of_a_package_is_the_optimizer_of_that_name():
    assert optimizers.found("torch.optim.adamw.AdamW").ours == "AdamW"
    assert optimizers.found("prodigyopt.prodigy.Prodigy").ours == "Prodigy"
    assert optimizers.found("transformers.optimization.Adafactor").ours == "Adafactor"
    assert optimizers.found("my.package.Adam").ours == "my.package.Adam"
    assert optimizers.found("RAdam").ours == "torch.optim.RAdam"


# -- blocks ------------------------------------------------------------------------------------------------------------


def index_of(name: str) -> int:
    """The number of a layer's block, from its name in a kohya file (kohya's own numbering)."""
    if found := re.match(r"lora_unet_(input|middle|output)_blocks?_(\d+)", name):
        return {"input": 1, "middle": 10, "output": 13}[found[1]] + int(found[2])
    if "mid_block" in name:
        return 12
    side, i, kind, j = re.match(r"lora_unet_(down|up)_blocks_(\d)_(\w+?)_(\d)", name).groups()
    place = int(j) if kind in ("resnets", "attentions") else 2
    return {"down": 1, "up": 13}[side] + 3 * int(i) + place


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_ranks_by_block_are_those_of_kohyas_numbering(family, tmp_path):
    count = blocks.XL if family == "sdxl" else blocks.SD
    dims, conv_dims = [i + 1 for i in range(count)], [0 if i % 5 == 0 else 40 + i for i in range(count)]
    text = (
        f'network_dim = 64\nnetwork_args = ["block_dims={",".join(map(str, dims))}", "conv_dim=32", '
        f'"conv_block_dims={",".join(map(str, conv_dims))}"]\nnetwork_train_unet_only = true'
    )
    lora = imported(tmp_path, text).config.lora
    parts = real_parts(family)
    layers = named_layers(parts)
    ranks = resolve(parts, lora.targets, rank=lora.rank, conv_rank=lora.conv_rank, patterns=lora.ranks)
    scope = resolve(parts, "full", rank=1)
    for name in scope:
        wide = layers[name].weight[0, 0].numel() > 1
        index = index_of(kohya_name(name, FAMILIES[family]))
        assert ranks.get(name, 0) == (conv_dims if wide else dims)[index], name


@pytest.mark.parametrize("count", [blocks.SD, blocks.XL])
def test_each_layer_is_in_one_block(count):
    family = "sdxl" if count == blocks.XL else "sd15"
    tables = [blocks.block(index, count).patterns(1, 1) for index in range(count)]
    for name in resolve(real_parts(family), "full", rank=1):
        assert sum(any(fnmatchcase(name, pattern) for pattern in table) for table in tables) == 1


def test_a_weight_of_0_leaves_a_block_out_and_others_are_told(tmp_path):
    text = 'network_args = ["down_lr_weight=0,0,0,0,0,0,0,0,0,0,0,0", "block_lr_zero_threshold=0.1", "up_lr_weight=1,1,1,1,1,1,1,1,1,1,1,0.1"]'
    lora = imported(tmp_path, text).config.lora
    assert (
        lora.ranks["unet.down_blocks.0.attentions.0.*"] == 0 == lora.ranks["unet.up_blocks.3.attentions.2.*"]
    )
    assert not any(pattern.startswith("unet.mid") for pattern in lora.ranks)
    notes = imported(tmp_path, 'network_args = ["mid_lr_weight=0.5"]').notes
    assert "one rate" in said(notes, "differs")["mid_lr_weight"]
    notes = imported(tmp_path, 'network_args = ["up_lr_weight=sine+.5", "block_dims=1,2"]').notes
    assert "numbers each" in said(notes, "ignored")["block_dims, up_lr_weight"]


def test_blocks_that_are_all_as_strong_are_exact(tmp_path):
    text = (
        f'network_dim = 8\nnetwork_args = ["block_dims={",".join(["4", "8"] * 12)},4", '
        f'"block_alphas={",".join(["2", "4"] * 12)},2"]\nnetwork_train_unet_only = true'
    )
    found = imported(tmp_path, text)
    lora, parts = found.config.lora, real_parts("sd15")
    assert not said(found.notes, "differs")
    ranks = resolve(parts, lora.targets, rank=lora.rank, patterns=lora.ranks)
    strengths = scales(parts, ranks, rank=lora.rank, alpha=lora.alpha, patterns=lora.alphas)
    assert set(strengths.values()) == {0.5}


def test_alphas_by_block_are_those_of_kohyas_numbering(tmp_path):
    alphas, conv_alphas = [i + 1 for i in range(25)], [i + 30 for i in range(25)]
    text = (
        'network_dim = 64\nnetwork_alpha = 32\nnetwork_args = ["conv_dim=32", '
        f'"block_dims={",".join(["8"] * 25)}", "block_alphas={",".join(map(str, alphas))}", '
        f'"conv_block_alphas={",".join(map(str, conv_alphas))}"]\nnetwork_train_unet_only = true'
    )
    lora, parts = imported(tmp_path, text).config.lora, real_parts("sd15")
    options = {"rank": lora.rank, "conv_rank": lora.conv_rank}
    ranks = resolve(parts, lora.targets, patterns=lora.ranks, **options)
    strengths = scales(
        parts, ranks, alpha=lora.alpha, conv_alpha=lora.conv_alpha, patterns=lora.alphas, **options
    )
    layers = named_layers(parts)
    for name, strength in strengths.items():
        wide = layers[name].weight[0, 0].numel() > 1
        index = index_of(kohya_name(name, FAMILIES["sd15"]))
        assert strength == (conv_alphas[index] / 32 if wide else alphas[index] / 8), name


@pytest.mark.parametrize(
    "of, kind", [("", "output"), ("wd_on_output=True", "output"), ("wd_on_output=False", "input")]
)
def test_dora_is_that_of_lycoris(tmp_path, of, kind):
    args = ", ".join(f'"{arg}"' for arg in ("dora_wd=True", of) if arg)
    found = imported(tmp_path, f'network_module = "lycoris.kohya"\nnetwork_args = [{args}]')
    assert found.config.lora.dora == kind


# -- previews ----------------------------------------------------------------------------------------------------------


def test_prompts_of_a_file_are_read(tmp_path):
    (tmp_path / "prompts.txt").write_text(
        "# mine\na cat --n blurry, grey --w 512 --h 768 --s 28 --l 7.5 --d 3\n\n"
    )
    found = imported(
        tmp_path, 'sample_prompts = "prompts.txt"\nsample_every_n_steps = 50\nsample_sampler = "k_euler_a"'
    )
    preview = found.config.preview
    assert (preview.prompts, preview.negative, preview.seed) == (["a cat"], "blurry, grey", 3)
    assert (preview.steps, preview.guidance, preview.every, preview.sampler) == (28, 7.5, 50, "euler_a")
    assert "512x768" in [note.value for note in found.notes]
    unread = imported(tmp_path, 'sample_prompts = "prompts.txt"', beside=False)
    assert (
        unread.config.preview.prompts == []
        and "was not read" in said(unread.notes, "ignored")["sample_prompts"]
    )


def test_prompts_in_toml_and_json_are_read(tmp_path):
    (tmp_path / "p.toml").write_text(
        '[prompt]\nsample_steps = 9\n[[prompt.subset]]\nprompt = "a"\n[[prompt.subset]]\nprompt = "b"\n'
    )
    (tmp_path / "p.json").write_text(json.dumps([{"prompt": "c", "scale": 4}]))
    first = imported(tmp_path, 'sample_prompts = "p.toml"').config.preview
    assert (first.prompts, first.steps) == (["a", "b"], 9)
    second = imported(tmp_path, 'sample_prompts = "p.json"').config.preview
    assert (second.prompts, second.guidance) == (["c"], 4.0)


def test_a_line_without_options_is_a_prompt():
    assert prompts._of_line("a cat -- asleep") == {"prompt": "a cat -- asleep"}


# -- the table ---------------------------------------------------------------------------------------------------------


def test_the_table_names_our_settings():
    for options in (table.OPTIONS, table.NETWORK, table.DATASET):
        for name, option in options.items():
            assert set(option.ours) <= SETTINGS, name
            assert option.ours or option.but, name


def test_it_has_all_that_people_ask_for():
    asked = """network_dim network_alpha unet_lr text_encoder_lr optimizer_type lr_scheduler lr_warmup_steps max_train_steps
    max_train_epochs train_batch_size resolution enable_bucket min_snr_gamma noise_offset clip_skip seed mixed_precision
    save_every_n_epochs sample_prompts shuffle_caption keep_tokens flip_aug network_weights output_name""".split()
    assert {name for name in asked if not table.OPTIONS[name].ours} == set()


def test_it_is_in_python_too(tmp_path):
    (tmp_path / "theirs.toml").write_text("network_dim = 8")
    config, notes, _ = lora_sd.import_config(tmp_path / "theirs.toml")
    assert config.lora.rank == 8 and notes


# -- anything ----------------------------------------------------------------------------------------------------------

SIMPLE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
OPTION = st.sampled_from([*table.OPTIONS, *table.NETWORK, *table.DATASET, *PRESET])
VALUES = st.recursive(
    SIMPLE | st.sampled_from(["0.5", "1,2", "a=1 b=2", "x=(", "--n", "cosine", "Prodigy"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(OPTION, inner, max_size=3),
    max_leaves=6,
)


def taken(path: Path) -> None:
    """Whatever is in it becomes a config that can be written, or one sentence."""
    try:
        found = kohya.load(path)
    except ValueError as error:
        assert type(error) is ValueError and "\n" not in str(error) and str(error)[-1] in ".?"
    else:
        assert cfg.dumps(found.config, brief=True) is not None
        assert all("\n" not in str(note) for note in found.notes)


@given(st.dictionaries(OPTION | st.text(max_size=8), VALUES, max_size=6))
@settings(max_examples=60)
def test_any_JSON_is_settings_or_a_sentence(tmp_path_factory, table):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(table), "utf-8")
    taken(path)
    path.write_text(
        json.dumps({"datasets": [table, {"subsets": [table]}, {"subsets": next(iter(table.values()), 1)}]}),
        "utf-8",
    )
    taken(path)


@given(
    st.lists(OPTION.map(lambda name: f"--{name}") | st.text(max_size=12), max_size=8),
    st.sampled_from([".txt", ".bat"]),
)
@settings(max_examples=40)
def test_any_command_is_settings_or_a_sentence(tmp_path_factory, words, suffix):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_text("train_network.py " + " ".join(words), "utf-8", "replace")
    taken(path)


SS = st.sampled_from([f"ss_{name}" for name in header.TAKEN])
TEXTS = (
    st.text(max_size=12)
    | VALUES.map(json.dumps)
    | st.sampled_from(["a.B(c={[]: 1})", "X(", "(1, 2)", "None", "True"])
)


@given(
    st.dictionaries(
        SS | st.sampled_from(["ss_datasets", "modelspec.timestep_range", "lora_sd.settings"]), TEXTS
    )
)
@settings(max_examples=60)
def test_any_header_is_settings_or_a_sentence(tmp_path_factory, metadata):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    told = {"ss_network_dim": "4"} | metadata
    safetensors.torch.save_file({"lora_unet_a.lora_down.weight": torch.ones(2, 3)}, path, metadata=told)
    taken(path)


@given(st.text("ab=,.()[]{}'\" 0123456789-e", max_size=40))
def test_any_arguments_are_read_or_refused(text):
    try:
        assert isinstance(values.pairs(text), dict)
    except ValueError as error:
        assert "name=value" in str(error)


def test_a_file_made_to_keep_it_busy_is_read_at_once(tmp_path):
    started = time.monotonic()
    imported(tmp_path, json.dumps({f"network_dom{i}": 1 for i in range(990)} | {"network_dim": 8}), "x.json")
    for text in ("train" * 30_000, "$x " * 60_000, "'\"" * 90_000, "a" * 60 + " " * 190_000, "^ " * 90_000):
        with contextlib.suppress(ValueError):
            imported(tmp_path, f"x={'y' * 900}\n--network_dim 8 {text}", "x.txt")
    assert time.monotonic() - started < 15
