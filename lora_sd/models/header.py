"""What a model is, from its header alone: family, prediction type, and why it can't be taught if it can't. No torch.

A safetensors file opens with 8 bytes of length and a JSON header of names, shapes and offsets: enough to tell the
family by the width of the cross-attention, a LoRA, another architecture, or a file that was cut short.
"""

import contextlib
import json
import os
import re
import statistics
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

SUPPORTED = "Stable Diffusion 1.x, 2.x and SDXL models can be taught here"

WIDTHS = {768: "sd15", 1024: "sd2", 2048: "sdxl"}  # input width of attn2.to_k, the cross-attention

UNET = "model.diffusion_model."
CROSS_ATTENTION = ".1.transformer_blocks.0.attn2.to_k.weight"
FIRST_CONV = UNET + "input_blocks.0.0.weight"
LAST_NORM = UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias"
VAE = "first_stage_model."
TEXT_ENCODERS = ("cond_stage_model.", "conditioner.embedders.")

# Part of a key → what such a file is, the more telling first.
LORA_KEYS = (
    ".lora_down.",
    ".lora_up.",
    ".lora_A.",
    ".lora_B.",
    ".lora.down.",
    ".hada_w1",
    ".lokr_w1",
    "_lora.down.",
)
OTHER_KEYS = {
    "double_stream_modulation_img": "a Flux.2 model",
    "double_blocks.0.img_attn.": "a Flux model",
    "joint_blocks.0.": "a Stable Diffusion 3 model",
    "clip_txt_mapper.": "a Stable Cascade model",
    "double_layers.0.attn.w1q.": "an AuraFlow model",
    "cap_embedder.": "a Lumina model",
    "edm_mean": "a Playground 2.5 model",
    "edm_vpred.": "a CosXL model",
    "control_model.": "a ControlNet",
    "controlnet_cond_embedding.": "a ControlNet",
    "motion_modules.": "an AnimateDiff motion module",
    "emb_params": "a textual-inversion embedding",
}


class Contents(NamedTuple):
    """What a checkpoint tells without its weights being read."""

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]
    values: Callable[[str], list[float]]  # the few numbers of one small tensor


@contextlib.contextmanager
def open_header(path: Path) -> Iterator[Contents]:
    """The header of a safetensors file. ValueError if it is none, or if the file is shorter than its header says."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > 100_000_000:
            raise ValueError(f"{path.name} is not a safetensors file; download it again.")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise ValueError(
                f"{path.name} is damaged or not a safetensors file ({size:,} bytes); download it again."
            ) from error
        metadata = header.pop("__metadata__", {})
        whole = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if size < whole:
            raise ValueError(
                f"{path.name} is cut short: it has {size:,} of {whole:,} bytes; copy or download it again."
            )

        def values(key: str) -> list[float]:
            begin, end = header[key]["data_offsets"]
            file.seek(8 + length + begin)
            return _numbers(file.read(end - begin), header[key]["dtype"])

        shapes = {key: tuple(entry["shape"]) for key, entry in header.items()}
        yield Contents(shapes, metadata, values)


def _numbers(data: bytes, dtype: str) -> list[float]:
    if dtype == "BF16":  # the upper half of a float32
        data, dtype = b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2)), "F32"
    code, width = {"F16": ("e", 2), "F32": ("f", 4), "F64": ("d", 8), "I64": ("q", 8)}[dtype]
    return list(struct.unpack(f"<{len(data) // width}{code}", data))


def identify(contents: Contents) -> dict[str, Any]:
    """`problem`, "" if it can be taught; then also `kind`, `family`, `prediction` and `zero_snr`."""
    shapes = contents.shapes
    if any(mark in key for key in shapes for mark in LORA_KEYS):
        return {
            "kind": "lora",
            "problem": "is a LoRA, not a base model; choose the model that it was made for",
        }
    for mark, name in OTHER_KEYS.items():
        if any(mark in key for key in shapes):
            return {"problem": f"is {name}; only {SUPPORTED}"}
    width = _cross_attention(shapes)
    if width == 1280:
        return {"problem": f"is the SDXL refiner; only {SUPPORTED}"}
    if width not in WIDTHS:
        return {"problem": f"is not a model that this program knows; only {SUPPORTED}"}
    family = WIDTHS[width]
    problem = _problem_of_channels(shapes[FIRST_CONV][1]) or _missing_part(shapes)
    prediction = _prediction(contents, family)
    return {
        "kind": "checkpoint",
        "family": family,
        "prediction": prediction,
        "zero_snr": "ztsnr" in shapes,
        "problem": problem,
    }


def _cross_attention(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    for block in (1, 2, 4):  # SD 1.x and 2.x have it from the first level on, SDXL from the second
        shape = shapes.get(f"{UNET}input_blocks.{block}{CROSS_ATTENTION}")
        if shape:
            return shape[1]
    return None


def _problem_of_channels(channels: int) -> str:
    """Inpainting and editing models see more than the noisy latents."""
    if channels == 4:
        return ""
    kind = {9: "an inpainting model", 8: "an image-editing model"}.get(
        channels, f"a {channels}-channel model"
    )
    return f"is {kind}; choose the plain model of the same family"


def _missing_part(shapes: Mapping[str, tuple[int, ...]]) -> str:
    parts = {"VAE": (VAE,), "text encoders": TEXT_ENCODERS}
    missing = [
        name for name, prefixes in parts.items() if not any(key.startswith(prefixes) for key in shapes)
    ]
    return f"has no {' and no '.join(missing)}; choose a complete checkpoint" if missing else ""


def _prediction(contents: Contents, family: str) -> str:
    """ε or v: marker keys of SDXL models, the modelspec header, and for SD 2.x the weights themselves."""
    if "v_pred" in contents.shapes:
        return "v_prediction"
    if "modelspec.prediction_type" in contents.metadata:
        return "v_prediction" if contents.metadata["modelspec.prediction_type"].startswith("v") else "epsilon"
    if family == "sd2" and LAST_NORM in contents.shapes:
        # The 768 models spread this bias wider than the 512 ones: ComfyUI's test, with its limit.
        return "v_prediction" if statistics.pstdev(contents.values(LAST_NORM)) > 0.09 else "epsilon"
    return "epsilon"


def family_of_folder(path: Path, index: Mapping[str, Any]) -> tuple[str | None, str]:
    """By the pipeline's class and its number of text encoders; and the problem with it, if there is one.

    SD 2.x differs from 1.x in its text encoder, an OpenCLIP: its activation is gelu where CLIP-L has quick_gelu,
    which holds whatever the widths are.
    """
    problem = pipeline_problem(index)
    if problem:
        return None, problem
    encoders = _encoders(index)
    for part in ("unet", "vae", *encoders):
        check_weights(path / part)
    if len(encoders) == 2:
        family = "sdxl"
    else:
        family = (
            "sd2" if read_json(path / "text_encoder" / "config.json").get("hidden_act") == "gelu" else "sd15"
        )
    return family, _problem_of_channels(read_json(path / "unet" / "config.json").get("in_channels", 4))


def pipeline_problem(index: Mapping[str, Any]) -> str:
    """Why the pipeline of a model_index.json can't be taught; "" if it can."""
    kind, encoders = str(index.get("_class_name")), _encoders(index)
    if not re.fullmatch(r"StableDiffusion(XL)?(Img2Img)?Pipeline", kind):
        return f"is made for {kind}; only {SUPPORTED}"
    if kind.startswith("StableDiffusionXL") != (len(encoders) == 2):
        return f"is a {kind} with {len(encoders)} text encoder(s); only {SUPPORTED}"
    return ""


def _encoders(index: Mapping[str, Any]) -> list[str]:
    return [name for name in ("text_encoder", "text_encoder_2") if (index.get(name) or [None])[0]]


def check_weights(folder: Path) -> None:
    """ValueError unless a component's folder has its config and whole weights."""
    indexes = sorted(folder.glob("*.safetensors.index*.json"))
    expected = {folder / name for file in indexes for name in read_json(file)["weight_map"].values()}
    weights = expected or {*folder.glob("*.safetensors"), *folder.glob("*.bin")}
    missing = [file.name for file in (folder / "config.json", *sorted(weights)) if not file.exists()]
    if missing or not weights:
        raise ValueError(
            f"{folder} has no {missing[0] if missing else 'weights'}; the model is incomplete, download it again."
        )
    for file in weights:
        if file.suffix == ".safetensors":
            with open_header(file):
                pass


def read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read ({error}); download the model again.") from error
