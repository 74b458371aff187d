"""A base model, loaded and frozen: `load("starter" | folder | file | hub id) -> Models`."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from .family import FAMILIES, Family, Models, Prediction, TextEncoder

STARTER = Path(__file__).parent.parent / "starter" / "model"


def load(
    source: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    prediction: Prediction | None = None,
    clip_skip: int | None = None,
) -> Models:
    """The base model called `source`, frozen: U-Net and text encoders in `dtype`, the VAE in fp32."""
    path = STARTER if source == "starter" else Path(source)
    import json

    index = json.loads((path / "model_index.json").read_text())
    te = json.loads((path / "text_encoder" / "config.json").read_text())
    name = "sdxl" if "XL" in index["_class_name"] else "sd2" if te["hidden_act"] == "gelu" else "sd15"
    family = FAMILIES[name]
    encoders, tokenizers = [], []
    for spec in family.text_encoders:
        kind = CLIPTextModelWithProjection if spec.pooled else CLIPTextModel
        encoders.append(kind.from_pretrained(path / spec.attribute, dtype=dtype))
        tokenizers.append(CLIPTokenizer.from_pretrained(path / spec.tokenizer))
    unet = UNet2DConditionModel.from_pretrained(path, subfolder="unet", torch_dtype=dtype)
    vae = AutoencoderKL.from_pretrained(path, subfolder="vae", torch_dtype=torch.float32)
    config = json.loads((path / "scheduler" / "scheduler_config.json").read_text())
    for model in (unet, vae, *encoders):
        model.requires_grad_(False).to(device)
        model.train()
    return Models(
        family=family,
        unet=unet,
        vae=vae.eval(),
        text_encoders=encoders,
        tokenizers=tokenizers,
        alpha_bar=DDPMScheduler.from_config(config).alphas_cumprod,
        prediction=prediction or config["prediction_type"],
        source=source,
        path=path,
        clip_skip=clip_skip,
        scheduler_config=config,
    )
