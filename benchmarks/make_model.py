"""A base model with random weights, as a diffusers folder: `python benchmarks/make_model.py sd15 OUT`.

Time and memory of training do not depend on the values. The shapes come from the shipped configs; the `tiny` kinds have
the structure and few channels. PyTorch's own initialisation suits half precision: SDXL's largest activation is about 5.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "lora_sd" / "models" / "configs"
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

TINY_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "projection_dim": 32,
}
TINY_TEXT_2 = TINY_TEXT | {"hidden_size": 64, "projection_dim": 64}
TINY_VAE = {"block_out_channels": [8, 8, 16, 16], "norm_num_groups": 8, "sample_size": 128}
TINY_UNET = {
    "block_out_channels": [16, 16, 32, 32],
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "sample_size": 16,
}
TINY_UNET_XL = TINY_UNET | {
    "block_out_channels": [16, 32, 32],
    "cross_attention_dim": 32 + 64,
    "transformer_layers_per_block": [1, 1, 2],
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 64 + 6 * 8,
}
# Kind -> the shipped config it is made from, and what is changed in it, by component.
KINDS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "sd15": ("sd15", {}),
    "sdxl": ("sdxl", {}),
    "tiny": ("sd15", {"unet": TINY_UNET, "vae": TINY_VAE, "text_encoder": TINY_TEXT}),
    "tiny-sdxl": (
        "sdxl",
        {
            "unet": TINY_UNET_XL,
            "vae": TINY_VAE,
            "text_encoder": TINY_TEXT,
            "text_encoder_2": TINY_TEXT_2,
        },
    ),
}


def write(kind: str, out: Path, dtype: torch.dtype, *, seed: int = 0) -> None:
    """The model folder `out`; one component is in memory at a time, on the card where there is one."""
    family, changes = KINDS[kind]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    index = _read(CONFIGS / family / "model_index.json")
    torch.manual_seed(seed)
    for name, described in index.items():
        if name.startswith("_"):
            continue
        source, made = CONFIGS / family / name, out / name
        if name.startswith("tokenizer"):
            _write_tokenizer(source, made)
        elif name == "scheduler":
            shutil.copytree(source, made, dirs_exist_ok=True)
        else:
            config = _read(source / "config.json") | changes.get(name, {})
            with torch.device(device):
                model = _component(described[1], config)
            model.to(dtype).save_pretrained(made)
    shutil.copy(CONFIGS / family / "model_index.json", out)


def _component(kind: str, config: dict[str, Any]) -> nn.Module:
    diffusers_kinds = {"UNet2DConditionModel": UNet2DConditionModel, "AutoencoderKL": AutoencoderKL}
    if kind in diffusers_kinds:
        return diffusers_kinds[kind].from_config(config)
    return getattr(transformers, kind)(transformers.CLIPTextConfig(**config))


def _write_tokenizer(source: Path, made: Path) -> None:
    """CLIP's vocabulary in the files that old and new programs read, with this encoder's padding in both places."""
    shutil.copytree(CONFIGS / "tokenizer", made, dirs_exist_ok=True)
    padding = _read(source / "special_tokens_map.json")
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        (made / name).write_text(json.dumps(_read(made / name) | padding))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", choices=DTYPES, default="fp16")
    asked = parser.parse_args(arguments)
    write(asked.kind, asked.out, DTYPES[asked.dtype])
    size = sum(file.stat().st_size for file in asked.out.rglob("*.safetensors"))
    print(f"{asked.out}: {asked.kind}, {size / 2**30:.2f} GiB in {asked.dtype}")


if __name__ == "__main__":
    main(sys.argv[1:])
