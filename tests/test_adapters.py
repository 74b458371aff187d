"""Kinds of adapter and how they learn, from the settings to the file, each against peft or its formula."""

import math

import pytest
from peft import LoraConfig
from safetensors.torch import load_file
from small_runs import config_for
from torch import nn

from lora_sd.lora import targets
from lora_sd.training.train import train

RESNET = "lora_unet_mid_block_resnets_0_conv1"
QUERY = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
ONE = {
    "unet.mid_block.*": 2,
    "unet.up_blocks.*": 0,
    "unet.down_blocks.*": 0,
}  # a small LoRA is enough to look at


def strengths(path):
    """alpha / rank by kohya's layer name."""
    tensors = load_file(path)
    downs = {key.removesuffix(".lora_down.weight"): t for key, t in tensors.items() if "lora_down" in key}
    return {name: float(tensors[f"{name}.alpha"]) / len(down) for name, down in downs.items()}


# -- strength and rank -------------------------------------------------------------------------------------------------


def test_rank_stabilized_scales_are_pefts():
    ranks, alpha = {"unet.0": 4, "unet.1": 9}, 3.0
    parts = {"unet": nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))}
    found = targets.scales(parts, ranks, rank=4, alpha=alpha, rank_stabilized=True)
    from peft import get_peft_model

    config = LoraConfig(
        r=4, lora_alpha=alpha, rank_pattern={"1": 9}, use_rslora=True, target_modules=["0", "1"]
    )
    theirs = get_peft_model(nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)), config)
    for name in ("0", "1"):
        assert found[f"unet.{name}"] == theirs.get_submodule(f"base_model.model.{name}").scaling["default"]


def test_a_rank_stabilized_file_needs_no_reader_that_knows_of_it(tiny_folder, pictures):
    """alpha in the file is alpha · √rank, so that alpha / rank is the strength that was trained."""
    settings = {"lora.rank": 9, "lora.alpha": 2.0, "lora.rank_stabilized": True, "optim.steps": 1}
    found = strengths(train(config_for(tiny_folder("sd15"), pictures, **settings)))
    assert list(found.values()) == pytest.approx([2 / math.sqrt(9)] * len(found))


def test_convolutions_have_their_own_rank_and_alpha(tiny_folder, pictures):
    settings = {"lora.targets": "full", "lora.rank": 4, "lora.conv_rank": 2, "lora.conv_alpha": 0.5}
    path = train(config_for(tiny_folder("sd15"), pictures, **settings, **{"optim.steps": 1}))
    tensors = load_file(path)
    ranks = {
        key.removesuffix(".lora_down.weight"): len(t) for key, t in tensors.items() if "lora_down" in key
    }
    wide = {key.removesuffix(".lora_down.weight") for key, t in tensors.items() if t.shape[2:] == (3, 3)}
    assert len(wide) == 50  # kohya's number of 3 × 3 convolutions in SD 1.x
    assert all(rank == (2 if name in wide else 4) for name, rank in ranks.items())
    config = config_for(tiny_folder("sd15"), pictures).lora
    scale = targets.scales(
        {"unet": nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 1))},
        {"unet.0": 2, "unet.1": 4},
        rank=4,
        alpha=config.rank,
        conv_rank=2,
        conv_alpha=0.5,
    )
    assert scale == {"unet.0": 0.25, "unet.1": 0.5}


def test_a_rank_for_convolutions_that_do_not_learn_is_a_sentence(tiny_folder, pictures):
    for setting in ({"lora.conv_rank": 8}, {"lora.conv_alpha": 2.0}):
        with pytest.raises(ValueError, match=r"none learns; set lora\.targets to full"):
            train(config_for(tiny_folder("sd15"), pictures, **setting))
