"""What a model is, from its header alone: family, prediction type, and why it can't be taught if it can't. No torch.

The names and shapes in a safetensors file are enough to tell the family by the width of the cross-attention, a LoRA, or
another architecture.
"""

import json
import math
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..paths import shown
from . import others
from .safetensors_file import LONGEST_HEADER, Contents, open_header

SUPPORTED = "Stable Diffusion 1.x, 2.x and SDXL models can be taught here"

PLAIN, INPAINTING = 4, 9  # channels that a U-Net takes in
WIDTHS = {768: "sd15", 1024: "sd2", 2048: "sdxl"}  # input width of attn2.to_k, the cross-attention

UNET = "model.diffusion_model."
CROSS_ATTENTION = ".1.transformer_blocks.0.attn2.to_k.weight"
FIRST_CONV = UNET + "input_blocks.0.0.weight"
LAST_NORM = UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias"
VAE = "first_stage_model."
TEXT_ENCODERS = ("cond_stage_model.", "conditioner.embedders.")

# A part of a key of a LoRA.
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


def identify(contents: Contents) -> dict[str, Any]:
    """`problem`, "" if it can be taught; then also `kind`, `family`, `prediction` and `zero_snr`."""
    shapes = contents.shapes
    if any(mark in key for key in shapes for mark in LORA_KEYS):
        return {
            "kind": "lora",
            "problem": "is a LoRA, not a base model; choose the model that it was made for",
        }
    if name := _name_of_another(shapes):
        return {"problem": f"is {name}; only {SUPPORTED}"}
    if any(mark in key for key in shapes for mark in others.QUANTISED):
        return {"problem": "has weights in 4 or 8 bits; choose the fp16 version of it"}
    width = _cross_attention(shapes)
    if width not in WIDTHS:
        return {"problem": f"is not a model that this program knows; only {SUPPORTED}"}
    family = WIDTHS[width]
    first = shapes.get(FIRST_CONV, ())
    if len(first) != 4:
        return {"problem": "is damaged: its U-Net has no first layer; download it again"}
    problem = _problem_of_channels(first[1]) or _missing_part(shapes)
    inpainting = first[1] == INPAINTING
    prediction = _prediction(contents, family, inpainting)
    return {
        "kind": "checkpoint",
        "family": family,
        "prediction": prediction,
        "inpainting": inpainting,
        "zero_snr": "ztsnr" in shapes and prediction == "v_prediction",  # noise alone tells nothing of noise
        "problem": problem,
    }


def _name_of_another(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """What it is, if it is known and no base model of ours."""
    for mark, name in others.KEYS.items():
        if any(mark in key for key in shapes):
            return name
    width = _cross_attention(shapes)
    if width == 1280:
        return others.REFINER
    if width in WIDTHS:
        return None
    return next(
        (name for start, name in others.PARTS.items() if any(key.startswith(start) for key in shapes)), None
    )


def _cross_attention(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    for block in (1, 2, 4):  # SD 1.x and 2.x have it from the first level on, SDXL from the second
        shape = shapes.get(f"{UNET}input_blocks.{block}{CROSS_ATTENTION}", ())
        if len(shape) == 2:
            return shape[1]
    return None


def _problem_of_channels(channels: Any) -> str:
    """Some models see more than the noisy latents, and only of inpainting models it is known here how to make that."""
    if channels in (PLAIN, INPAINTING):
        return ""
    kind = {5: others.DEPTH, 7: others.UPSCALER, 8: others.PIX2PIX}.get(
        channels if isinstance(channels, int) else None, f"a {shown(channels, 20)}-channel model"
    )
    return f"is {kind}; choose the plain or the inpainting model of the same family"


def _missing_part(shapes: Mapping[str, tuple[int, ...]]) -> str:
    parts = {"VAE": (VAE,), "text encoders": TEXT_ENCODERS}
    missing = [
        name for name, prefixes in parts.items() if not any(key.startswith(prefixes) for key in shapes)
    ]
    return f"has no {' and no '.join(missing)}; choose a complete checkpoint" if missing else ""


def _prediction(contents: Contents, family: str, inpainting: bool) -> str:
    """ε or v: marker keys of SDXL models, the modelspec header, and for SD 2.x the weights themselves."""
    if "v_pred" in contents.shapes:
        return "v_prediction"
    if "modelspec.prediction_type" in contents.metadata:
        return "v_prediction" if contents.metadata["modelspec.prediction_type"].startswith("v") else "epsilon"
    if family == "sd2" and LAST_NORM in contents.shapes and not inpainting:
        # The 768 models spread this bias wider than the 512 ones: ComfyUI's test, with its limit.
        values = [value for value in contents.values(LAST_NORM) if math.isfinite(value)]
        return "v_prediction" if values and statistics.pstdev(values) > 0.09 else "epsilon"
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
    return family, _problem_of_channels(channels_of_folder(path))


def channels_of_folder(path: Path) -> Any:
    """What its U-Net's config says that it takes in, as it stands there."""
    return read_json(path / "unet" / "config.json").get("in_channels", PLAIN)


def prediction_of(scheduler: Mapping[str, Any]) -> str:
    """ε or v, as the config of a folder's scheduler says; ValueError for one that can't be a diffusion of 2 to 10,000 steps."""
    prediction, steps = (
        scheduler.get("prediction_type", "epsilon"),
        scheduler.get("num_train_timesteps", 1000),
    )
    name = others.longest(others.SCHEDULERS, str(scheduler.get("_class_name")))
    if name:
        raise ValueError(
            f"This is {name}; only models that predict epsilon or v_prediction can be taught here."
        )
    if prediction not in ("epsilon", "v_prediction"):
        raise ValueError(
            f"This model predicts {shown(prediction)!r}; only models that predict epsilon or v_prediction can be taught here."
        )
    if type(steps) is not int or not 2 <= steps <= 10_000:
        raise ValueError(
            f"The model's scheduler has {shown(steps, 20)} timesteps; it must be 2 to 10,000: download the model again."
        )
    return prediction


def pipeline_problem(index: Mapping[str, Any]) -> str:
    """Why the pipeline of a model_index.json can't be taught; "" if it can."""
    kind, encoders = str(index.get("_class_name")), _encoders(index)
    if not re.fullmatch(r"StableDiffusion(XL)?(Img2Img|Inpaint)?Pipeline", kind):
        name = others.longest(others.PIPELINES, kind)
        return f"is {name or f'made for {shown(kind)}'}; only {SUPPORTED}"
    if kind.startswith("StableDiffusionXL") and encoders == ["text_encoder_2"]:
        return f"is {others.REFINER}; only {SUPPORTED}"
    if kind.startswith("StableDiffusionXL") != (len(encoders) == 2):
        return f"is a {kind} with {len(encoders)} text encoder(s); only {SUPPORTED}"
    return ""


def component_problem(folder: Path) -> str:
    """What a folder without an index is: one component of a model, by its config; "" where that does not tell."""
    if not (folder / "config.json").is_file():
        return ""
    config = read_json(folder / "config.json")
    architectures = config.get("architectures")
    kind = str(
        config.get("_class_name")
        or (architectures[0] if isinstance(architectures, list) and architectures else "")
    )
    name = others.longest(others.COMPONENTS, kind)
    return f"is {name or f'a {shown(kind)}'} alone" if kind else ""


def _encoders(index: Mapping[str, Any]) -> list[str]:
    """Those that are there: a part that is not is null, or [null, null]."""
    return [
        name for name in ("text_encoder", "text_encoder_2") if index.get(name) not in (None, [], [None, None])
    ]


def check_weights(folder: Path) -> None:
    """ValueError unless a component's folder has its config and whole weights."""
    expected = {folder / name for file in sorted(folder.glob("*.index*.json")) for name in _shards(file)}
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


def _shards(index: Path) -> set[str]:
    """The files that a table of weights names, all beside it."""
    names = read_json(index).get("weight_map")
    names = list(names.values()) if isinstance(names, dict) else [None]
    for name in names:
        if not isinstance(name, str) or re.search(r"[/\\:\0]|^\.*$", name):
            raise ValueError(
                f"{shown(index)} names {shown(name)!r} as a file of weights, which is none beside it; "
                "download the model again, from someone you trust."
            )
    return set(names)


def read_json(path: Path) -> dict[str, Any]:
    """A table in a model's folder. ValueError where it is none."""
    why = "it is no table"
    try:
        with open(path, "rb") as file:
            text = file.read(LONGEST_HEADER + 1)
        values = json.loads(text.decode()) if len(text) <= LONGEST_HEADER else None
    except OSError as error:
        why = error.strerror
    except (ValueError, RecursionError):
        why = "it is not JSON"
    else:
        if isinstance(values, dict):
            return values
    raise ValueError(f"{shown(path)} can't be read: {why}; download the model again.")
