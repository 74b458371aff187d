"""The header of a LoRA file, which tells how it was made in `ss_*` keys → options."""

import ast
import json
from pathlib import Path
from typing import Any

from ..lora.inspection import LAYOUTS, PARTS, Header, read_header
from ..paths import shown
from .values import is_set, literal

NAMES = {  # ss_* -> option, where it is not the same
    "optimizer": "optimizer_type",
    "total_batch_size": "train_batch_size",
    "debiased_estimation": "debiased_estimation_loss",
    "sd_model_name": "pretrained_model_name_or_path",
}
TAKEN = (
    *("learning_rate", "unet_lr", "text_encoder_lr", "optimizer", "lr_scheduler", "lr_warmup_steps"),
    *("max_grad_norm", "max_train_steps", "gradient_accumulation_steps", "mixed_precision", "seed"),
    *("total_batch_size", "resolution", "clip_skip", "output_name", "sd_model_name"),
    *(
        "network_module",
        "network_dim",
        "network_alpha",
        "network_dropout",
        "network_args",
        "scale_weight_norms",
    ),
    *("min_snr_gamma", "debiased_estimation", "loss_type", "huber_schedule", "huber_scale", "huber_c"),
    *("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale", "multires_noise_iterations"),
    *("multires_noise_discount", "ip_noise_gamma", "ip_noise_gamma_random_strength", "prior_loss_weight"),
    *(
        "caption_dropout_rate",
        "caption_dropout_every_n_epochs",
        "caption_tag_dropout_rate",
        "shuffle_caption",
    ),
    *("keep_tokens", "color_aug", "flip_aug", "random_crop", "face_crop_aug_range", "enable_bucket"),
    *("bucket_no_upscale", "min_bucket_reso", "max_bucket_reso", "validation_split", "max_token_length"),
    *("validate_every_n_steps", "validate_every_n_epochs", "zero_terminal_snr"),
)
OFF = (
    "color_aug",
    "random_crop",
    "zero_terminal_snr",
    "noise_offset_random_strength",
    "ip_noise_gamma_random_strength",
)
ZERO = ("caption_dropout_every_n_epochs", "validation_split")


def options(path: Path) -> tuple[dict[str, Any], bool | None]:
    """What the file tells of its training, and whether it is for SDXL. ValueError where it tells nothing."""
    header = read_header(path)
    told = {key.removeprefix("ss_"): value for key, value in header.metadata.items() if key.startswith("ss_")}
    if "learning_rate" not in told and "network_dim" not in told:
        raise ValueError(
            f"{shown(path.name)} does not tell how it was made: its header has no training settings."
        )
    found = {
        NAMES.get(name, name): value if is_set(value := told[name]) else None
        for name in TAKEN
        if name in told
    }
    found = {name: value for name, value in found.items() if not _is_off(name, value)}
    found |= _optimizer(found) | _range(header) | _parts(header, found)
    if header.metadata.get("modelspec.prediction_type") == "v":
        found["v_parameterization"] = True
    if "network_args" in found:
        found["network_args"] = _table(found["network_args"])
    return found, told.get("base_model_version", "").startswith("sdxl")


def own_settings(path: Path) -> dict[str, Any]:
    """Our settings by dotted name, of a file that this program trained; none of another's."""
    try:
        found = json.loads(read_header(path).metadata.get("lora_sd.settings", "{}"))
    except (json.JSONDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_off(name: str, value: Any) -> bool:
    return (name in OFF and value == "False") or (name in ZERO and literal(value) in (0, 0.0))


def _optimizer(found: dict[str, Any]) -> dict[str, Any]:
    """`torch.optim.adamw.AdamW(weight_decay=0.1)` is its class and its arguments."""
    name, _, listed = str(found.get("optimizer_type") or "").partition("(")
    if not name:
        return {}
    try:
        call = ast.parse(f"f({listed[:-1][:2000]})", mode="eval").body
        args = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, AttributeError):
        args = {}
    return {"optimizer_type": name, "optimizer_args": args}


def _range(header: Header) -> dict[str, Any]:
    least, comma, most = header.metadata.get("modelspec.timestep_range", "").partition(",")
    return {"min_timestep": least, "max_timestep": most} if comma else {}


def _parts(header: Header, found: dict[str, Any]) -> dict[str, Any]:
    """Which parts learned, from the names of the tensors."""
    keys = [key for key in header.shapes if key.endswith(tuple(LAYOUTS))]
    text = {key for key in keys if key.startswith(tuple(PARTS))}
    if not text:
        return {"network_train_unet_only": True}
    return {"network_train_text_encoder_only": True} if len(text) == len(keys) else {}


def _table(text: Any) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    return {name: value for name, value in found.items() if is_set(value)} if isinstance(found, dict) else {}


def datasets(path: Path) -> dict[str, Any] | None:
    """The data sets of a run that had them in a file: `ss_datasets`."""
    try:
        found = json.loads(read_header(path).metadata.get("ss_datasets", ""))
    except (ValueError, RecursionError):
        return None
    sound = isinstance(found, list) and all(isinstance(one, dict) for one in found)
    return {"datasets": found} if found and sound else None
