"""A plain LoRA training loop as users of PEFT write it, to time ours against: diffusers' U-Net, peft's adapters, AdamW.

Pictures and captions are encoded once before the loop, as ours does, so that only training is compared; fp32 on the CPU,
bf16 by autocast on a card. Nothing of ours is used.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

# Every Linear and Conv2d of the transformer blocks: what our target set "transformer" names.
TARGETS = r".*\.attentions\..*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2)"


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


def adapted_unet(model: str, rank: int, device: str) -> UNet2DConditionModel:
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet", torch_dtype=torch.float32).to(device)
    unet.requires_grad_(False)
    unet.add_adapter(
        LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS)
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
) -> None:
    parameters = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    device = latents.device
    half = torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
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


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a diffusers folder of an SD 1.x model")
    parser.add_argument("--images", type=Path, required=True, help="pictures with caption files, any depth")
    parser.add_argument("--resolution", type=int, required=True)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rank", type=int, default=16)
    asked = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    paths = sorted(asked.images.rglob("*.png"))
    captions = [path.with_suffix(".txt").read_text() for path in paths]
    train(
        adapted_unet(asked.model, asked.rank, device),
        encode_pictures(asked.model, paths, asked.resolution, device),
        encode_captions(asked.model, captions, device),
        DDPMScheduler.from_pretrained(asked.model, subfolder="scheduler"),
        batch=asked.batch,
        steps=asked.steps,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
