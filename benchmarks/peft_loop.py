"""A plain LoRA training loop as users of PEFT write it, to time ours against: diffusers' U-Net, peft's adapters, AdamW.

Pictures and captions are encoded once before the loop, as ours does, so that only training is compared; fp32 on the CPU,
bf16 by autocast on a card. Nothing of ours is used.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

# What our target sets of these names name: every Linear and Conv2d of the transformer blocks, and those of attention.
TARGETS = {
    "transformer": r".*\.attentions\..*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2)",
    "attention": r".*\.attn\d\.(to_q|to_k|to_v|to_out\.0)",
}


@torch.no_grad()
def encode_pictures(model: str, paths: list[Path], resolution: int, device: str) -> Tensor:
    vae = AutoencoderKL.from_pretrained(model, subfolder="vae", torch_dtype=torch.float32).to(device)
    latents = []
    for path in paths:
        picture = Image.open(path).convert("RGB").resize((resolution, resolution), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).to(device).float() / 127.5 - 1
        latents.append(vae.encode(pixels[None]).latent_dist.sample()[0] * vae.config.scaling_factor)
    return torch.stack(latents)  # (N, 4, H/8, W/8)


@torch.no_grad()
def encode_captions(model: str, captions: list[str], device: str) -> Tensor:
    tokenizer = CLIPTokenizer.from_pretrained(model, subfolder="tokenizer")
    encoder = CLIPTextModel.from_pretrained(model, subfolder="text_encoder", torch_dtype=torch.float32)
    tokens = tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    return encoder.to(device)(tokens.input_ids.to(device)).last_hidden_state  # (N, 77, D)


def adapted_unet(model: str, rank: int, device: str, targets: str = "transformer") -> UNet2DConditionModel:
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet", torch_dtype=torch.float32).to(device)
    unet.requires_grad_(False)
    unet.add_adapter(
        LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS[targets])
    )
    return unet.train()


def train(
    unet: UNet2DConditionModel,
    latents: Tensor,
    states: Tensor,
    noise_scheduler: DDPMScheduler,
    *,
    batch: int,
    steps: int,
    rate: float = 1e-4,
    after_step: Callable[[int], None] = lambda step: None,
) -> None:
    parameters = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate)
    device = latents.device
    half = torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")
    order = torch.empty(0, dtype=torch.long)
    for step in range(1, steps + 1):
        if len(order) < batch:
            order = torch.randperm(len(latents))
        chosen, order = order[:batch], order[batch:]
        x = latents[chosen]
        noise = torch.randn_like(x)
        t = torch.randint(noise_scheduler.config.num_train_timesteps, (len(x),), device=device)
        with half:
            prediction = unet(noise_scheduler.add_noise(x, noise, t), t, states[chosen]).sample
        loss = F.mse_loss(prediction.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # shown in a progress bar
        after_step(step)


def save(unet: UNet2DConditionModel, folder: Path, step: int) -> None:
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    StableDiffusionPipeline.save_lora_weights(folder, layers, weight_name=f"{step:06d}.safetensors")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a diffusers folder of an SD 1.x model")
    parser.add_argument("--images", type=Path, required=True, help="pictures with caption files, any depth")
    parser.add_argument("--resolution", type=int, required=True)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--targets", choices=TARGETS, default="transformer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="a folder for the LoRA as it is every --save-every steps")
    parser.add_argument("--save-every", type=int, default=100)
    asked = parser.parse_args(arguments)
    torch.manual_seed(asked.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    paths = sorted(asked.images.rglob("*.png"))
    captions = [path.with_suffix(".txt").read_text() for path in paths]
    unet = adapted_unet(asked.model, asked.rank, device, asked.targets)

    def after_step(step: int) -> None:
        if asked.save and step % asked.save_every == 0:
            save(unet, asked.save, step)

    train(
        unet,
        encode_pictures(asked.model, paths, asked.resolution, device),
        encode_captions(asked.model, captions, device),
        DDPMScheduler.from_pretrained(asked.model, subfolder="scheduler"),
        batch=asked.batch,
        steps=asked.steps,
        rate=asked.rate,
        after_step=after_step,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
