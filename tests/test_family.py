"""The shipped component configs are those of the released models, and a family's value agrees with them."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lora_sd.models.family import FAMILIES, Conditioning
from lora_sd.models.load import CONFIGS

# Numbers of parameters as their publishers' model cards and papers give them.
PARAMETERS = {
    "sd15": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sd2": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
    "sd2-base": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
    "sdxl": {
        "unet": 2_567_463_684,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
    },
}


def real(folder: str, part: str):
    """A component of the real shape, without memory."""
    with torch.device("meta"):
        if part in ("unet", "vae"):
            kind = UNet2DConditionModel if part == "unet" else AutoencoderKL
            return kind.from_config(json.loads((CONFIGS / folder / part / "config.json").read_text()))
        kind = CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel
        return kind(CLIPTextConfig.from_pretrained(CONFIGS / folder / part))


@pytest.mark.parametrize(
    "folder, part", [(name, part) for name, parts in PARAMETERS.items() for part in parts]
)
def test_shipped_configs_have_the_released_sizes(folder, part):
    count = sum(parameter.numel() for parameter in real(folder, part).parameters())
    assert count == PARAMETERS[folder][part]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_agrees_with_its_configs(name):
    family, unet = FAMILIES[name], real(name, "unet")
    assert unet.config.sample_size * 8 == family.resolution
    assert unet.config.cross_attention_dim == family.cross_attention
    assert (unet.config.addition_embed_type == "text_time") == family.size_conditioning
    widths = [
        CLIPTextConfig.from_pretrained(CONFIGS / name / spec.attribute).hidden_size
        for spec in family.text_encoders
    ]
    assert sum(widths) == family.cross_attention


@pytest.mark.parametrize("name", FAMILIES)
def test_predict_is_the_unet_with_its_conditions(tiny_models, name):
    models = tiny_models(name)
    x, t = torch.randn(2, 4, 16, 16), torch.tensor([10, 900])
    tokens = torch.randn(2, 77, models.unet.config.cross_attention_dim)
    sizes = torch.tensor([[128.0, 128, 0, 0, 128, 128], [200, 300, 4, 8, 128, 128]])
    added = None
    if models.family.size_conditioning:
        added = {"text_embeds": torch.randn(2, 64), "time_ids": sizes}
    theirs = models.unet(x, t, tokens, added_cond_kwargs=added).sample
    ours = models.predict(x, t, Conditioning(tokens, added and added["text_embeds"]), sizes)
    assert torch.equal(ours, theirs)
