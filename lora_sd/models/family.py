"""Model families as values: what differs between SD 1.x, SD 2.x and SDXL is data, so the code has no branches on it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

Prediction = Literal["epsilon", "v_prediction"]


class TextEncoder(NamedTuple):
    attribute: str  # diffusers' name of the component, and the first part of its layers' names with us
    tokenizer: str
    kohya_prefix: str
    layer: int  # which entry of hidden_states is used; -1 is the last layer
    final_norm: bool  # whether the final LayerNorm is applied to it
    pooled: bool  # whether its projected end-of-text state is the pooled condition
    embedding: str = "emb_params"  # the key of its vectors in a textual-inversion file


@dataclass(frozen=True)
class Family:
    name: str
    title: str
    resolution: int  # pixels a side that the released models were trained at
    bucket_step: int  # pixels
    cross_attention: int  # width of the text states
    text_encoders: tuple[TextEncoder, ...]
    prediction: Prediction
    size_conditioning: bool  # whether the U-Net is told original size, crop and target size
    base_version: str  # kohya's ss_base_model_version; "_v" is added for v-prediction where `v_suffix`
    v_suffix: bool
    architecture: str  # modelspec.architecture
    implementation: str  # modelspec.implementation


SD15 = Family(
    name="sd15",
    title="Stable Diffusion 1.x",
    resolution=512,
    bucket_step=64,
    cross_attention=768,
    text_encoders=(TextEncoder("text_encoder", "tokenizer", "lora_te", -1, True, False),),
    prediction="epsilon",
    size_conditioning=False,
    base_version="sd_v1",
    v_suffix=True,
    architecture="stable-diffusion-v1/lora",
    implementation="diffusers",
)
SD2 = Family(
    name="sd2",
    title="Stable Diffusion 2.x",
    resolution=768,
    bucket_step=64,
    cross_attention=1024,
    text_encoders=(
        TextEncoder("text_encoder", "tokenizer", "lora_te", -1, True, False),
    ),  # 23 layers: the penultimate is built in
    prediction="epsilon",
    size_conditioning=False,
    base_version="sd_v2",
    v_suffix=True,
    architecture="stable-diffusion-v2-512/lora",
    implementation="diffusers",
)
SDXL = Family(
    name="sdxl",
    title="Stable Diffusion XL",
    resolution=1024,
    bucket_step=32,
    cross_attention=2048,
    text_encoders=(
        TextEncoder("text_encoder", "tokenizer", "lora_te1", -2, False, False, "clip_l"),
        TextEncoder("text_encoder_2", "tokenizer_2", "lora_te2", -2, False, True, "clip_g"),
    ),
    prediction="epsilon",
    size_conditioning=True,
    base_version="sdxl_base_v1-0",
    v_suffix=False,
    architecture="stable-diffusion-xl-v1-base/lora",
    implementation="https://github.com/Stability-AI/generative-models",
)
FAMILIES = {family.name: family for family in (SD15, SD2, SDXL)}


class Conditioning(NamedTuple):
    tokens: Tensor  # (B, 77·n, D)
    pooled: Tensor | None  # (B, P) where the family has size conditioning


@dataclass
class Models:
    """A base model, loaded and frozen: whatever has `requires_grad` was added later."""

    family: Family
    unet: nn.Module
    vae: nn.Module
    text_encoders: list[nn.Module]  # as family.text_encoders
    tokenizers: list[Any]
    alpha_bar: (
        Tensor  # (T,) float32: cumulative product of 1 − β, after the zero-SNR fix where the model has it
    )
    prediction: Prediction
    source: str  # as the user named it
    path: Path | None = None  # the file or folder it came from
    clip_skip: int | None = None
    weighted: bool = False  # whether (red:1.3) in a caption or prompt is a weight
    scheduler_config: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""  # of its file, where it is one file and that was read; pictures name it
    loras: dict[str, Any] = field(default_factory=dict)  # what `sample.load_lora` put on it, by name

    @property
    def vae_factor(self) -> int:
        """Pixels per latent, a side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def extra_channels(self) -> int:
        """What the U-Net sees beside noisy latents: 5 of an inpainting model, a mask and the masked picture's latents."""
        return self.unet.config.in_channels - self.vae.config.latent_channels

    @property
    def zero_snr(self) -> bool:
        """Whether the noise schedule ends in pure noise."""
        return bool(self.scheduler_config.get("rescale_betas_zero_snr"))

    @property
    def resolution(self) -> int:
        """Pixels a side that this U-Net was made for."""
        size = self.unet.config.sample_size
        return (size if isinstance(size, int) else size[0]) * self.vae_factor

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    def parts(self) -> dict[str, nn.Module]:
        """What a LoRA can live in, by component name: unet, text_encoder, text_encoder_2."""
        named = {
            spec.attribute: model
            for spec, model in zip(self.family.text_encoders, self.text_encoders, strict=True)
        }
        return {"unet": self.unet, **named}

    def place(self, device: torch.device | str, *names: str) -> None:
        """Move components: "unet" (with ᾱ, which a lookup from elsewhere would stall), "vae", "text_encoders"."""
        components = {"unet": [self.unet], "vae": [self.vae], "text_encoders": self.text_encoders}
        for name in names:
            for model in components[name]:
                model.to(device)
        if "unet" in names:
            self.alpha_bar = self.alpha_bar.to(device)

    @property
    def encoders_learn(self) -> bool:
        """Whether a text encoder has something to train."""
        return any(p.requires_grad for encoder in self.text_encoders for p in encoder.parameters())

    def text_device(self) -> torch.device:
        """Where captions are encoded."""
        return next(self.text_encoders[0].parameters()).device

    def predict(
        self,
        x: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        sizes: Tensor,
        beside: Tensor | None = None,
    ) -> Tensor:
        """The U-Net's output for noisy latents `x` (B, 4, H, W) at timesteps `t` (B,).

        `sizes` (B, 6) is original h, w, crop top, left, target h, w in pixels; used where the family has size conditioning.
        `beside` (B, `extra_channels`, H, W) is what an inpainting model sees beside them.
        """
        added = None
        if self.family.size_conditioning:  # sizes stay in fp32: in bf16, 1365 pixels would be 1368
            added = {
                "text_embeds": conditioning.pooled.to(x.dtype),
                "time_ids": sizes.to(x.device, torch.float32),
            }
        x = x if beside is None else torch.cat([x, beside.to(x)], dim=1)
        return self.unet(x, t, conditioning.tokens.to(x.dtype), added_cond_kwargs=added, return_dict=False)[0]
