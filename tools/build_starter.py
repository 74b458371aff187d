"""Rebuilds the starter model: emoji sets -> VAE -> text encoder and U-Net -> a diffusers folder.

    npm pack @iconify-json/{twemoji,noto,emojione,fxemoji,noto-v1,fluent-emoji,fluent-emoji-flat,openmoji,streamline-emojis}
    pip install lora-sd[starter]
    python tools/build_starter.py vae  --icons . --out starter
    python tools/build_starter.py unet --icons . --out starter

On one H100 the VAE takes about 6 minutes and the U-Net about 10. `--smoke` makes a few steps with few icons, on
any machine, to see that the parts fit.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from fit import Average, fit
from PIL import Image
from starter_data import PIXELS, STYLES, VAE_ONLY, Pictures, Prompts, read_sets
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

LATENT = PIXELS // 8
TOKENIZER = Path(__file__).parent.parent / "lora_sd" / "starter" / "model" / "tokenizer"
SCHEDULE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
SAMPLES = [
    f"{what}, {style} style"
    for style in STYLES.values()
    for what in ("red apple", "cat face", "rose", "robot")
]


@dataclass(frozen=True)
class Plan:
    """How long and how much."""

    icons: int | None  # of each set; None is all
    vae_variants: int  # pictures of each icon
    vae_batch: int
    vae_steps: int
    variants: int
    batch: int
    rounds: tuple[tuple[int, float], ...]  # steps and peak learning rate; each starts its schedule anew
    samples: int
    sampling_steps: int


SHIPPED = Plan(None, 3, 192, 2724, 8, 1024, ((2959, 6e-4), (2222, 4e-4)), 16, 30)
SMOKE = Plan(6, 1, 2, 2, 2, 2, ((2, 6e-4),), 2, 2)


# Stage 1: the VAE


def build_vae(folder: Path, out: Path, plan: Plan, device: torch.device) -> None:
    sets = read_sets(folder, [*STYLES, *VAE_ONLY], plan.icons)
    pictures = Pictures(np.concatenate([s.pixels for s in sets]), plan.vae_variants, seed=0, device=device)
    vae = new_vae().to(device)
    feed, loss = vae_step(vae, pictures, plan.vae_batch)
    fit(list(vae.parameters()), feed, loss, steps=plan.vae_steps, peak=1.2e-3, weight_decay=1e-4)
    vae.eval().register_to_config(scaling_factor=round(1 / latent_std(vae, pictures), 5))
    save_reconstructions(vae, pictures, out / "reconstructions.png")
    vae.to(torch.float16).save_pretrained(out / "vae")


def new_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 96, 96),
        layers_per_block=1,
        latent_channels=4,
        sample_size=PIXELS,
        norm_num_groups=16,
        scaling_factor=1.0,
    )


def vae_step(
    vae: AutoencoderKL, pictures: Pictures, batch: int
) -> tuple[Callable[[], None], Callable[[], Tensor]]:
    device = pictures.pixels.device
    index = torch.zeros(batch, dtype=torch.long, device=device)
    flip = torch.zeros(batch, 1, 1, 1, dtype=torch.bool, device=device)
    shade = torch.zeros(batch, 3, 1, 1, device=device)
    amount = torch.zeros(batch, 1, 1, 1, device=device)
    ramp = torch.linspace(0, 1, PIXELS, device=device)

    def feed() -> None:
        index.random_(0, len(pictures))
        flip.bernoulli_(0.5)
        shade.normal_().abs_()
        amount.copy_(torch.rand_like(amount) * 0.6 * (torch.rand_like(amount) < 0.3))

    def loss() -> Tensor:
        x = pictures.pixels[index] / 255
        x = torch.where(flip, x.flip(-1), x)
        shaded = x.transpose(-1, -2) * ramp + shade * (1 - ramp)  # or the decoder would know flat colour only
        x = torch.lerp(x, shaded, amount).clamp(0, 1) * 2 - 1
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            posterior = vae.encode(x).latent_dist
            y = vae.decode(posterior.sample()).sample
        kl = posterior.kl().float().mean() / (4 * LATENT**2)
        return reconstruction_loss(y.float(), x) + 2e-6 * 256 * kl

    return feed, loss


def reconstruction_loss(y: Tensor, x: Tensor) -> Tensor:
    """L1 + L2 on pixels, and L1 on their differences along both axes at three scales, which keeps edges sharp."""
    total = (y - x).abs().mean() + (y - x).square().mean()
    for scale in (1, 2, 4):
        a, b = F.avg_pool2d(y, scale), F.avg_pool2d(x, scale)
        total = total + sum(0.5 * (a.diff(dim=axis) - b.diff(dim=axis)).abs().mean() for axis in (-1, -2))
    return total


@torch.no_grad()
def latent_std(vae: AutoencoderKL, pictures: Pictures) -> float:
    """Standard deviation of sampled latents; its inverse is the model's scaling factor."""
    chosen = torch.randint(0, len(pictures), (min(1280, len(pictures)),))
    parts = [vae.encode(as_input(pictures.pixels[part])).latent_dist.sample() for part in chosen.split(64)]
    return float(torch.cat(parts).std())


@torch.no_grad()
def save_reconstructions(vae: AutoencoderKL, pictures: Pictures, path: Path) -> None:
    x = as_input(pictures.pixels[torch.randint(0, len(pictures), (12,))])
    y = vae.decode(vae.encode(x).latent_dist.mode()).sample
    print(f"reconstruction: {-10 * math.log10(float((x - y).square().mean()) / 4):.1f} dB")
    save_grid(torch.cat([x, y]) / 2 + 0.5, 12, path)


def as_input(pixels: Tensor) -> Tensor:
    return pixels / 127.5 - 1


# Stage 2: the text encoder and the U-Net


def build_unet(folder: Path, out: Path, plan: Plan, device: torch.device) -> None:
    sets = read_sets(folder, STYLES, plan.icons)
    pictures = Pictures(np.concatenate([s.pixels for s in sets]), plan.variants, seed=0, device=device)
    vae = AutoencoderKL.from_pretrained(out / "vae").to(device).eval()
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    prompts = Prompts(sets, pictures, tokenizer, device)
    text_encoder, unet = new_text_encoder(tokenizer).to(device).train(), new_unet().to(device).train()
    parameters = [*text_encoder.parameters(), *unet.parameters()]
    feed, loss = diffusion_step(text_encoder, unet, moments(vae, pictures), prompts, plan.batch)
    for steps, peak in plan.rounds:
        average = Average(parameters)
        fit(parameters, feed, loss, steps=steps, peak=peak, weight_decay=1e-2, after=average)
        average.apply()
    save_model(vae, text_encoder.eval(), tokenizer, unet.eval(), out, plan)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    end = tokenizer.eos_token_id
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            intermediate_size=768,
            num_hidden_layers=4,
            num_attention_heads=3,
            projection_dim=192,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def new_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=LATENT,
        layers_per_block=2,
        block_out_channels=(96, 160, 192),
        cross_attention_dim=192,
        attention_head_dim=[3, 5, 6],
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )


@torch.no_grad()
def moments(vae: AutoencoderKL, pictures: Pictures) -> Tensor:
    """Latent means and standard deviations of all pictures, scaled: (N, 8, 16, 16)."""
    parts = []
    for part in pictures.pixels.split(256):
        posterior = vae.encode(as_input(part)).latent_dist
        parts.append(torch.cat([posterior.mean, posterior.std], 1) * vae.config.scaling_factor)
    return torch.cat(parts)


def diffusion_step(
    text_encoder: CLIPTextModel, unet: UNet2DConditionModel, latents: Tensor, prompts: Prompts, batch: int
) -> tuple[Callable[[], None], Callable[[], Tensor]]:
    """Epsilon prediction with Min-SNR 5 (arXiv:2303.09556) and a tenth of the captions empty."""
    device = latents.device
    index, t, form = (torch.zeros(batch, dtype=torch.long, device=device) for _ in range(3))
    dropped = torch.zeros(batch, dtype=torch.bool, device=device)
    noise, sampled = (torch.zeros(batch, 4, LATENT, LATENT, device=device) for _ in range(2))
    alpha_bar = DDIMScheduler(**SCHEDULE).alphas_cumprod.to(device)
    snr = alpha_bar / (1 - alpha_bar)
    weight = snr.clamp(max=5) / snr

    def feed() -> None:
        index.random_(0, len(latents))
        t.random_(0, 1000)
        form.random_(0, 4)
        dropped.bernoulli_(0.1)
        noise.normal_()
        sampled.normal_()

    def loss() -> Tensor:
        mean, std = latents[index].chunk(2, dim=1)
        a = alpha_bar[t].view(-1, 1, 1, 1)
        noisy = a.sqrt() * (mean + std * sampled) + (1 - a).sqrt() * noise
        rows = torch.where(dropped, len(prompts.ids) - 1, prompts.which[index, form])
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            states = text_encoder(input_ids=prompts.ids[rows]).last_hidden_state
            predicted = unet(noisy, t, states, return_dict=False)[0]
        return ((predicted.float() - noise).square().mean((1, 2, 3)) * weight[t]).mean()

    return feed, loss


def save_model(
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
    out: Path,
    plan: Plan,
) -> None:
    """Sample pictures to look at, and the whole model in fp16."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(**SCHEDULE, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    seeds = torch.Generator(unet.device).manual_seed(0)
    drawn = pipeline(
        SAMPLES[: plan.samples],
        num_inference_steps=plan.sampling_steps,
        guidance_scale=4.0,
        generator=seeds,
        output_type="pt",
    ).images
    save_grid(drawn, 4, out / "samples.png")
    pipeline.to(dtype=torch.float16).save_pretrained(out / "model")


def save_grid(pictures: Tensor, columns: int, path: Path) -> None:
    """Pictures (N, 3, H, W) from 0 to 1, row after row."""
    rows = [torch.cat(list(row), dim=2) for row in pictures.float().clamp(0, 1).cpu().split(columns)]
    array = (torch.cat(rows, dim=1).permute(1, 2, 0) * 255).round().byte().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


STAGES = {"vae": build_vae, "unet": build_unet}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument(
        "--icons", type=Path, required=True, help="folder of the npm archives, or of NAME.json files"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder that vae/, model/ and samples.png go to"
    )
    parser.add_argument("--smoke", action="store_true", help="a few steps with few icons")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    STAGES[options.stage](options.icons, options.out, SMOKE if options.smoke else SHIPPED, device)


if __name__ == "__main__":
    main()
