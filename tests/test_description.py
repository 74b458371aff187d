"""The header of a LoRA tells the truth about its run in sd-scripts' keys and format, and its settings come back from it."""

import json
from types import SimpleNamespace

import pytest
import torch
from small_runs import config_for

from lora_sd import config as cfg
from lora_sd import kohya
from lora_sd.data.buckets import Fit
from lora_sd.data.folder import Example
from lora_sd.kohya import reading
from lora_sd.lora.inspection import read_header
from lora_sd.lora.pairs import Pair
from lora_sd.models.family import SD15
from lora_sd.training import description, examples, optim
from lora_sd.training.prepare import Dataset
from lora_sd.training.train import train
from lora_sd.training.world import World

QUERY = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


def described(monkeypatch, tmp_path, **changes) -> dict[str, str]:
    """The header that a run of these settings would write, without one."""
    config = cfg.changed(cfg.TrainConfig(), changes)
    pairs = {QUERY: Pair(torch.ones(4, 768), torch.ones(8, 4), 2.0)}
    monkeypatch.setattr(description.layers, "adapters", lambda parts: pairs)
    unet = SimpleNamespace(is_gradient_checkpointing=config.machine.memory == "low")
    models = SimpleNamespace(
        family=SD15, zero_snr=False, extra_channels=0, resolution=512, clip_skip=config.model.clip_skip, scheduler_config={}, dtype=torch.bfloat16,
        prediction="epsilon", unet=unet, parts=lambda: {"unet": unet},
    )  # fmt: skip
    wording = examples.wording(config.captions, config.data.trigger, "")
    found = [
        Example(tmp_path / folder / f"{i}.png", "a cat", (512, 512), repeats, prior=prior, wording=wording,
                flip=config.data.flip)
        for folder, repeats, prior in (("3_cat", 3, False), ("1_any", 1, True)) for i in range(2)
    ]  # fmt: skip
    fit = Fit((512, 512), (512, 512), (0, 0))
    data = Dataset(found, [fit] * len(found), latents=None, crops=config.data.crops)
    optimizer = optim.make(
        config.optim.optimizer, [[torch.nn.Parameter(torch.ones(2))]], learning_rate=config.optim.learning_rate,
        weight_decay=config.optim.weight_decay, arguments=config.optim.arguments,
    )  # fmt: skip
    return description.describe(
        config, models, data, held_out=0, base_hashes=("NOFILE", "NOFILE"), optimizer=optimizer, warmup=7,
        total=config.optim.known_steps, started_at=0.0, step=5,
    )  # fmt: skip


OFF = {
    "ss_noise_offset": "None",
    "ss_multires_noise_iterations": "None",
    "ss_min_snr_gamma": "5.0",
    "ss_debiased_estimation": "False",
    "ss_loss_type": "l2",
    "ss_flip_aug": "False",
    "ss_random_crop": "False",
    "ss_caption_dropout_rate": "0.0",
    "ss_caption_tag_dropout_rate": "0.0",
    "ss_shuffle_caption": "False",
    "ss_keep_tokens": "0",
    "ss_prior_loss_weight": "1.0",
    "ss_num_reg_images": "2",
    "ss_num_train_images": "6",
    "ss_reg_dataset_dirs": '{"1_any": {"n_repeats": 1, "img_count": 2}}',
    "ss_dataset_dirs": '{"3_cat": {"n_repeats": 3, "img_count": 2}}',
    "ss_network_module": "networks.lora",
    "ss_network_dropout": "None",
    "ss_network_args": '{"dropout": null}',
    "ss_scale_weight_norms": "None",
    "ss_lr_scheduler": "constant",
    "ss_lr_warmup_steps": "7",
    "ss_optimizer": "torch.optim.adamw.AdamW(weight_decay=0.01)",
    "ss_gradient_checkpointing": "False",
    "ss_mixed_precision": "bf16",
    "ss_enable_bucket": "True",
    "ss_bucket_no_upscale": "False",
    "ss_min_bucket_reso": "256",
    "ss_max_bucket_reso": "1024",
    "ss_validation_split": "0.0",
    "ss_validate_every_n_steps": "None",
    "ss_text_encoder_lr": "None",
    "ss_unet_lr": "0.0001",
}
ON = {
    "noise.offset": (0.05, {"ss_noise_offset": "0.05"}),
    "noise.offset_random": (True, {"ss_noise_offset_random_strength": "True"}),
    "noise.offset_adaptive": (0.01, {"ss_adaptive_noise_scale": "0.01"}),
    "noise.pyramid": (6, {"ss_multires_noise_iterations": "6"}),
    "noise.pyramid_discount": (0.2, {"ss_multires_noise_discount": "0.2"}),
    "noise.perturbation": (0.1, {"ss_ip_noise_gamma": "0.1"}),
    "noise.perturbation_random": (True, {"ss_ip_noise_gamma_random_strength": "True"}),
    "noise.min_timestep": (100, {"modelspec.timestep_range": "100,1000"}),
    "loss.min_snr": (0.0, {"ss_min_snr_gamma": "None"}),
    "loss.weighting": ("debiased", {"ss_debiased_estimation": "True", "ss_min_snr_gamma": "None"}),
    "loss.kind": ("huber", {"ss_loss_type": "huber"}),
    "loss.huber_c": (0.2, {"ss_huber_c": "0.2"}),
    "loss.huber_schedule": ("constant", {"ss_huber_schedule": "constant"}),
    "loss.huber_scale": (2.0, {"ss_huber_scale": "2.0"}),
    "data.flip": (True, {"ss_flip_aug": "True"}),
    "data.crops": (4, {"ss_random_crop": "True"}),
    "data.buckets": (False, {"ss_enable_bucket": "False"}),
    "data.enlarge": (False, {"ss_bucket_no_upscale": "True"}),
    "data.bucket_min": (320, {"ss_min_bucket_reso": "320"}),
    "data.resolution": (768, {"ss_resolution": "(768, 768)", "ss_min_bucket_reso": "384", "ss_max_bucket_reso": "1536"}),
    "data.regularisation_weight": (0.5, {"ss_prior_loss_weight": "0.5"}),
    "captions.shuffle": (True, {"ss_shuffle_caption": "True"}),
    "captions.keep": (2, {"ss_keep_tokens": "2"}),
    "captions.dropout": (0.1, {"ss_caption_dropout_rate": "0.1"}),
    "captions.tag_dropout": (0.1, {"ss_caption_tag_dropout_rate": "0.1"}),
    "lora.dropout": (0.1, {"ss_network_dropout": "0.1", "ss_network_args": '{"dropout": 0.1}'}),
    "lora.rank_dropout": (0.1, {"ss_network_args": '{"dropout": null, "rank_dropout": "0.1"}'}),
    "lora.module_dropout": (0.1, {"ss_network_args": '{"dropout": null, "module_dropout": "0.1"}'}),
    "lora.plus_ratio": (16, {"ss_network_args": '{"dropout": null, "loraplus_lr_ratio": "16.0"}'}),
    "lora.max_norm": (1, {"ss_scale_weight_norms": "1.0"}),
    "lora.train_down": (False, {"ss_network_module": "networks.lora_fa"}),
    "optim.schedule": ("cosine", {"ss_lr_scheduler": "cosine"}),
    "optim.arguments": (
        {"betas": [0.9, 0.99]},
        {"ss_optimizer": "torch.optim.adamw.AdamW(weight_decay=0.01,betas=[0.9, 0.99])"},
    ),
    "optim.optimizer": (
        "Prodigy",
        {
            "ss_optimizer": "prodigyopt.prodigy.Prodigy(weight_decay=0.01,use_bias_correction=True,safeguard_warmup=True)"
        },
    ),
    "optim.max_grad_norm": (0.5, {"ss_max_grad_norm": "0.5"}),
    "optim.accumulation": (2, {"ss_gradient_accumulation_steps": "2"}),
    "optim.batch_size": (4, {"ss_total_batch_size": "4", "ss_batch_size_per_device": "4"}),
    "machine.memory": ("low", {"ss_gradient_checkpointing": "True"}),
    "model.clip_skip": (2, {"ss_clip_skip": "2", "modelspec.encoder_layer": "2"}),
    "validate.split": (0.1, {"ss_validation_split": "0.1", "ss_validation_seed": "42", "ss_validate_every_n_steps": "100"}),
}  # fmt: skip


@pytest.mark.parametrize("name", [None, *ON])
def test_each_setting_is_told_as_sd_scripts_writes_it(name, monkeypatch, tmp_path):
    if name == "optim.optimizer":
        pytest.importorskip("prodigyopt")
    value, keys = ON.get(name, (None, {}))
    header = described(monkeypatch, tmp_path, **({name: value} if name else {}))
    wanted = OFF | keys
    assert {key: header[key] for key in wanted} == wanted


def test_several_cards_share_a_batch(monkeypatch, tmp_path):
    monkeypatch.setattr("lora_sd.training.description.world.told", lambda: World(0, 2))
    header = described(monkeypatch, tmp_path, **{"optim.batch_size": 4})
    assert (header["ss_total_batch_size"], header["ss_batch_size_per_device"]) == ("4", "2")


def test_no_place_on_the_computer_is_told(monkeypatch, tmp_path):
    private = {"data.images": "/home/me/secret", "output.dir": "/home/me/out", "lora.start": "/home/me/x.safetensors",
               "preview.prompts": ["of my secret"], "data.folders": ["/home/me/more"]}  # fmt: skip
    header = described(monkeypatch, tmp_path, **private)
    assert not any(word in value for value in header.values() for word in ("/home/me", "secret"))
    minimal = described(monkeypatch, tmp_path, **{"output.metadata": "minimal", "lora.rank": 8})
    assert "lora_sd.settings" not in minimal and "lora_sd.base" in minimal


# -- there and back ----------------------------------------------------------------------------------------------------

LEARNED = {  # all of these are in sd-scripts' keys
    "seed": 7,
    "data.resolution": 128,
    "data.bucket_min": 64,
    "data.bucket_max": 256,
    "data.flip": True,
    "captions.shuffle": True,
    "captions.keep": 1,
    "captions.tag_dropout": 0.1,
    "captions.dropout": 0.05,
    "lora.rank": 4,
    "lora.alpha": 3.0,
    "lora.targets": "full",
    "lora.conv_rank": 2,
    "lora.conv_alpha": 1.0,
    "lora.text_encoders": True,
    "lora.rank_dropout": 0.1,
    "lora.max_norm": 1.0,
    "lora.plus_ratio": 4.0,
    "optim.learning_rate": 1e-3,
    "optim.text_encoder_rate": [1e-4],
    "optim.weight_decay": 0.1,
    "optim.arguments": {"betas": [0.9, 0.99]},
    "optim.schedule": "cosine",
    "optim.warmup": 1,
    "optim.steps": 1,
    "optim.batch_size": 2,
    "optim.accumulation": 2,
    "optim.max_grad_norm": 0.5,
    "noise.offset": 0.05,
    "noise.offset_adaptive": 0.01,
    "noise.pyramid": 4,
    "noise.perturbation": 0.1,
    "noise.min_timestep": 10,
    "noise.max_timestep": 900,
    "loss.min_snr": 8.0,
    "loss.kind": "huber",
    "loss.huber_c": 0.2,
    "loss.huber_schedule": "exponential",
    "loss.huber_scale": 2.0,
}
ONLY_OURS = {"noise.density": "logit_normal", "lora.ranks": {"unet.mid_block.*": 2}, "loss.keep_base": 0.5}


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory):
    """A LoRA that one step made, and its settings."""
    from PIL import Image

    pictures = tmp_path_factory.mktemp("pictures")
    for number in range(2):
        Image.new("RGB", (128, 128), (90 * number, 60, 30)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("a cat, a mat, a hat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_SD_HOME", str(tmp_path_factory.mktemp("home")))
        config = config_for(tiny_folder("sd15"), pictures, **LEARNED)
        return train(config), config


def test_what_a_lora_tells_in_sd_scripts_words_is_how_it_was_made(trained):
    path, config = trained
    found, notes, _ = kohya.translate(reading.read(path, beside=False))
    assert {name: cfg.get(found, name) for name in LEARNED} == {
        name: cfg.get(config, name) for name in LEARNED
    }
    assert not [note for note in notes if note.kind == "unknown"]


def test_a_lora_of_ours_gives_back_all_its_settings(trained, monkeypatch, tmp_path):
    path, config = trained
    found = kohya.load(path).config
    places = {*cfg.PATHS, "save.dtype", "save.every", "preview.every"}
    wanted = {name: value for name, value in cfg.differences(config).items() if name not in places}
    assert cfg.differences(found) == wanted
    told = json.loads(described(monkeypatch, tmp_path, **ONLY_OURS)["lora_sd.settings"])
    assert told == ONLY_OURS


def test_no_path_is_taken_from_a_strangers_header(tmp_path, monkeypatch):
    evil = {
        "data.images": "/etc",
        "output.dir": "/etc",
        "data.folders": ["/etc"],
        "lora.rank": 8,
        "not.one": 1,
    }
    monkeypatch.setattr(
        "lora_sd.kohya.header.read_header",
        lambda path: SimpleNamespace(metadata={"lora_sd.settings": json.dumps(evil)}, shapes={}),
    )
    (tmp_path / "x.safetensors").touch()
    found, notes, _ = kohya.load(tmp_path / "x.safetensors")
    assert cfg.differences(found) == {"lora.rank": 8}
    assert {note.option for note in notes if note.kind == "unknown"} == {*evil} - {"lora.rank"}


def test_the_header_is_in_the_file(trained):
    assert read_header(trained[0]).metadata["ss_network_dim"] == "4"
