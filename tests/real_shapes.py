"""The U-Net and text encoders of the released models, without weights: names and shapes for tests."""

import json
from functools import cache
from pathlib import Path

import torch
import transformers
from diffusers import UNet2DConditionModel
from torch import nn

from lora_sd.models.family import FAMILIES

CONFIGS = Path(__file__).parent.parent / "lora_sd" / "models" / "configs"


@cache
def real_parts(family: str) -> dict[str, nn.Module]:
    """`Models.parts()` of SD 1.5, SD 2.x or SDXL on the meta device."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(_config(family, "unet"))
        return {"unet": unet} | {
            spec.attribute: _text_encoder(_config(family, spec.attribute))
            for spec in FAMILIES[family].text_encoders
        }


def _config(family: str, part: str) -> dict:
    return json.loads((CONFIGS / family / part / "config.json").read_text())


def _text_encoder(config: dict) -> nn.Module:
    kind = getattr(transformers, config["architectures"][0])
    return kind(transformers.CLIPTextConfig(**config))
