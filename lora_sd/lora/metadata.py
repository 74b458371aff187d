"""The header of a LoRA file: what it tells of its training, in kohya's `ss_*` keys and the modelspec ones.

Every value is a string, as sd-scripts writes them: `"None"`, `"True"`, `"(512, 512)"`, JSON for tables. Other programs
find the base model by `ss_base_model_version` and `ss_v2`, and the LoRA's name by `ss_output_name`.
"""

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .. import __version__
from ..remembered import Remembered
from . import beside
from .inspection import inspect as inspect

if TYPE_CHECKING:  # both need torch, and reading a header must not
    from ..models.family import Family
    from .pairs import Pair

V_ARCHITECTURE = {"stable-diffusion-v2-512/lora": "stable-diffusion-v2-768-v/lora"}
INPAINTING_ARCHITECTURE = {  # as OneTrainer writes them; kohya's keys have no word for it, and such a LoRA fits plain bases, too
    "stable-diffusion-v1/lora": "stable-diffusion-v1-inpainting/lora",
    "stable-diffusion-v2-512/lora": "stable-diffusion-v2-inpainting/lora",
    "stable-diffusion-xl-v1-base/lora": "stable-diffusion-xl-v1-base-inpainting/lora",
}

# What kohya's trainer can do and this one does not, at the values that mean "off" there.
OFF = {
    "ss_training_comment": None,
    "ss_sd_scripts_commit_hash": "(unknown)",
    "ss_max_token_length": None,
    "ss_full_fp16": False,
    "ss_fp8_base": False,
    "ss_fp8_base_unet": False,
    "ss_lowram": False,
    "ss_prior_loss_weight": 1.0,
    "ss_num_reg_images": 0,
    "ss_caption_dropout_rate": 0.0,
    "ss_caption_dropout_every_n_epochs": 0,
    "ss_caption_tag_dropout_rate": 0.0,
    "ss_face_crop_aug_range": None,
    "ss_resize_interpolation": None,
    "ss_validation_seed": None,
    "ss_validation_split": 0.0,
    "ss_validate_every_n_steps": None,
    "ss_validate_every_n_epochs": None,
    "ss_max_validation_steps": None,
    "ss_color_aug": False,
    "ss_flip_aug": False,
    "ss_random_crop": False,
    "ss_shuffle_caption": False,
    "ss_keep_tokens": 0,
    "ss_reg_dataset_dirs": "{}",
}

ALL_TIMESTEPS = (0, 1000)
NO_FILE = ("NOFILE", "NOFILE")  # what sd-scripts writes for the hashes of a base that is no file

# What stays in a file "without training details": enough to be recognised, named and used.
TEXTS = {  # what a person may tell of a file -> its key
    "title": "modelspec.title",
    "author": "modelspec.author",
    "trigger": "modelspec.trigger_phrase",
    "licence": "modelspec.license",
    "tags": "modelspec.tags",
    "description": "modelspec.description",
    "usage": "modelspec.usage_hint",
}
MINIMAL = (
    "modelspec.",
    "lora_sd.base",
    "lora_sd.family",
    "lora_sd.inpainting",
    "lora_sd.embedding",
    "lora_sd.word",
    "ss_v2",
    "ss_base_model_version",
    "ss_output_name",
    "ss_network_module",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_network_args",
)


@dataclass(frozen=True)
class Training:
    """What a file can tell of its training, in plain values."""

    base: str = ""  # as the user named it; of a path only the last name is published
    base_hashes: tuple[str, str] = NO_FILE  # see `base_hashes`
    output_name: str = ""
    trigger: str = ""
    resolution: int = 512  # pixels: the side of a square of equal area
    clip_skip: int | None = None
    zero_snr: bool = False
    inpainting: bool = False  # of the base
    seed: int = 0
    started_at: float = 0.0  # unix time, as finished_at
    finished_at: float = 0.0
    step: int = 0
    steps: int = 0  # the whole training
    batches_per_epoch: int = 1
    batch_size: int = 1  # of all devices together
    devices: int = 1
    accumulation: int = 1
    learning_rate: float = 0.0
    encoder_rates: Mapping[str, float] = field(default_factory=dict)  # of text encoders with one of their own
    optimizer: str = (
        "torch.optim.adamw.AdamW"  # with its arguments: "torch.optim.adamw.AdamW(weight_decay=0.01)"
    )
    schedule: str = "constant"
    warmup_steps: int = 0
    max_grad_norm: float = 1.0
    noise_offset: float = 0.0
    noise_offset_random: bool = False
    noise_offset_adaptive: float = 0.0
    pyramid: int = 0  # levels
    pyramid_discount: float = 0.3
    perturbation: float = 0.0
    perturbation_random: bool = False
    timestep_range: tuple[int, int] = ALL_TIMESTEPS  # the second is the first that is not trained on
    min_snr: float = 0.0
    debiased: bool = False
    loss_kind: str = "l2"
    huber_schedule: str = "snr"
    huber_scale: float = 1.0
    huber_c: float = 0.1
    dropout: float = 0.0
    max_norm: float = 0.0
    network_args: Mapping[str, str] | None = None  # kohya's other arguments of a network
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    checkpointing: bool = False
    examples: Sequence[tuple[str, int, str]] = ()  # folder's name, repeats, caption of every picture
    held_out: int = 0  # pictures
    buckets: Mapping[tuple[int, int], int] | None = None  # (w, h) → pictures, with repeats
    mean_aspect_error: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)  # more keys, and what of OFF was not off


def build(
    family: "Family",
    prediction: str,
    pairs: "Mapping[str, Pair]",
    training: Training | None = None,
    *,
    level: Literal["full", "minimal"] = "full",
) -> dict[str, str]:
    """The header of a LoRA of these pairs; `minimal` has no captions, folder names or settings."""
    training = training or Training()
    values = {
        **OFF,
        **_base(family, prediction, training),
        **_network(pairs, training),
        **_progress(training),
        **_optimizer(training, {name.partition(".")[0] for name in pairs}),
        **_noise_and_loss(training),
        **_data(training),
        **_modelspec(family, prediction, training),
        **training.options,
    }
    text = {key: str(value) for key, value in values.items()}
    return minimal(text) if level == "minimal" else text


def of_embedding(metadata: Mapping[str, str], word: str) -> dict[str, str]:
    """The header of the textual-inversion file that goes with a LoRA of this header, or is all that the run has learned."""
    kept = {key: value for key, value in metadata.items() if not key.startswith("ss_network_")}
    architecture = metadata["modelspec.architecture"].replace("/lora", "/textual-inversion")
    return {**kept, "modelspec.architecture": architecture, "modelspec.title": word, beside.WORD: word}


def minimal(metadata: Mapping[str, str]) -> dict[str, str]:
    """A header without training details."""
    return {key: value for key, value in metadata.items() if key.startswith(MINIMAL)}


def _base(family: "Family", prediction: str, training: Training) -> dict[str, Any]:
    v_suffix = "_v" if family.v_suffix and prediction == "v_prediction" else ""
    name = _public_name(training.base)
    return {
        "lora_sd.base": name,
        "lora_sd.family": family.name,
        "ss_sd_model_name": name,
        "ss_sd_model_hash": training.base_hashes[0],
        "ss_new_sd_model_hash": training.base_hashes[1],
        "ss_v2": family.base_version.startswith("sd_v2"),
        "ss_base_model_version": family.base_version + v_suffix,
        "ss_clip_skip": training.clip_skip,
        "ss_zero_terminal_snr": training.zero_snr,
        **({"lora_sd.inpainting": True} if training.inpainting else {}),
    }


def _public_name(base: str) -> str:
    return Path(base).name if Path(base).expanduser().exists() else base


def _network(pairs: "Mapping[str, Pair]", training: Training) -> dict[str, Any]:
    """The most usual rank and alpha, and those of 3×3 convolutions where there are any; nothing where no layer learns."""
    if not pairs:
        return {}
    args: dict[str, Any] = {"dropout": training.dropout or None, **(training.network_args or {})}
    return {
        **network_of(pairs, args),
        "ss_network_dropout": training.dropout or None,
        "ss_scale_weight_norms": training.max_norm or None,
    }


def network_of(pairs: "Mapping[str, Pair]", args: Mapping[str, Any]) -> dict[str, Any]:
    """sd-scripts' keys of the most usual rank and alpha; those of convolutions are among its network arguments."""
    convolutions = [pair for pair in pairs.values() if pair.down.shape[2:] not in ((), (1, 1))]
    if convolutions:
        rank, alpha = most_usual(convolutions)
        args = {**args, "conv_dim": str(rank), "conv_alpha": str(alpha)}
    rank, alpha = most_usual(pairs.values())
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": alpha,
        "ss_network_args": json.dumps(args),
    }


def most_usual(pairs: "Iterable[Pair]") -> tuple[int, float]:
    """(rank, alpha) of most layers."""
    return Counter((pair.rank, pair.alpha) for pair in pairs).most_common(1)[0][0]


def _progress(training: Training) -> dict[str, Any]:
    of_epoch, accumulation = training.batches_per_epoch, training.accumulation
    return {
        "ss_session_id": zlib.crc32(f"{training.output_name} {training.started_at}".encode()),
        "ss_training_started_at": training.started_at,
        "ss_training_finished_at": training.finished_at,
        "ss_output_name": training.output_name,
        "ss_steps": training.step,
        "ss_epoch": -(-training.step * accumulation // of_epoch),
        "ss_max_train_steps": training.steps,
        "ss_num_epochs": -(-training.steps * accumulation // of_epoch),
        "ss_num_batches_per_epoch": training.batches_per_epoch,
    }


def _optimizer(training: Training, parts: set[str]) -> dict[str, Any]:
    """`parts` are those that learn."""
    encoders = sorted(part for part in parts if part.startswith("text_encoder"))
    rates = [training.encoder_rates.get(part, training.learning_rate) for part in encoders]
    return {
        "ss_learning_rate": training.learning_rate,
        "ss_unet_lr": training.learning_rate if "unet" in parts else None,
        "ss_text_encoder_lr": rates if len(set(rates)) > 1 else next(iter(rates), None),
        "ss_optimizer": training.optimizer,
        "ss_lr_scheduler": training.schedule,
        "ss_lr_warmup_steps": training.warmup_steps,
        "ss_max_grad_norm": training.max_grad_norm,
        "ss_gradient_accumulation_steps": training.accumulation,
        "ss_gradient_checkpointing": training.checkpointing,
        "ss_mixed_precision": {"fp32": "no"}.get(training.precision, training.precision),
        "ss_seed": training.seed,
    }


def _noise_and_loss(training: Training) -> dict[str, Any]:
    """What is off is None there, not 0."""
    return {
        "ss_noise_offset": training.noise_offset or None,
        "ss_noise_offset_random_strength": training.noise_offset_random,
        "ss_adaptive_noise_scale": training.noise_offset_adaptive or None,
        "ss_multires_noise_iterations": training.pyramid or None,
        "ss_multires_noise_discount": training.pyramid_discount,
        "ss_ip_noise_gamma": training.perturbation or None,
        "ss_ip_noise_gamma_random_strength": training.perturbation_random,
        "ss_min_snr_gamma": training.min_snr or None,
        "ss_debiased_estimation": training.debiased,
        "ss_loss_type": training.loss_kind,
        "ss_huber_schedule": training.huber_schedule,
        "ss_huber_scale": training.huber_scale,
        "ss_huber_c": training.huber_c,
    }


def _data(training: Training) -> dict[str, Any]:
    sides = [side for bucket in training.buckets or {} for side in bucket] or [training.resolution]
    return {
        "ss_num_train_images": sum(repeats for _, repeats, _ in training.examples),
        "ss_num_validation_images": training.held_out,
        "ss_cache_latents": True,
        "ss_batch_size_per_device": training.batch_size // training.devices,
        "ss_total_batch_size": training.batch_size,
        "ss_resolution": (training.resolution, training.resolution),
        "ss_enable_bucket": True,
        "ss_bucket_no_upscale": False,
        "ss_min_bucket_reso": min(sides),
        "ss_max_bucket_reso": max(sides),
        "ss_dataset_dirs": json.dumps(folders(training.examples)),
        "ss_tag_frequency": json.dumps(tag_frequency(training.examples), ensure_ascii=False),
        "ss_bucket_info": json.dumps(_bucket_info(training)),
    }


def folders(examples: Sequence[tuple[str, int, str]]) -> dict[str, dict[str, int]]:
    """How many pictures each folder has, and how often they count."""
    counts = Counter(folder for folder, _, _ in examples)
    return {
        folder: {"n_repeats": repeats, "img_count": counts[folder]}
        for folder, repeats in {folder: repeats for folder, repeats, _ in examples}.items()
    }


def tag_frequency(examples: Iterable[tuple[str, int, str]]) -> dict[str, dict[str, int]]:
    """Per folder, in how many pictures each comma-separated tag occurs."""
    table: dict[str, Counter] = {}
    for folder, _, caption in examples:
        tags = dict.fromkeys(tag.strip().lower() for tag in caption.split(","))
        table.setdefault(folder, Counter()).update(tag for tag in tags if tag)
    return {folder: dict(counts) for folder, counts in table.items()}


def _bucket_info(training: Training) -> dict[str, Any]:
    buckets = {
        str(index): {"resolution": list(size), "count": count}
        for index, (size, count) in enumerate(sorted((training.buckets or {}).items()))
    }
    return {"buckets": buckets, "mean_img_ar_error": training.mean_aspect_error}


def _modelspec(family: "Family", prediction: str, training: Training) -> dict[str, Any]:
    is_v = prediction == "v_prediction"
    date = datetime.fromtimestamp(training.finished_at, UTC).replace(microsecond=0, tzinfo=None)
    others = INPAINTING_ARCHITECTURE if training.inpainting else V_ARCHITECTURE if is_v else {}
    spec = {
        "sai_model_spec": "1.0.1",
        "architecture": others.get(family.architecture, family.architecture),
        "implementation": family.implementation,
        "implementation_version": f"lora_sd/{__version__}",
        "title": training.output_name,
        "resolution": f"{training.resolution}x{training.resolution}",
        "date": date.isoformat(),
        "prediction_type": "v" if is_v else "epsilon",
    }
    spec |= {"trigger_phrase": training.trigger} if training.trigger else {}
    spec |= {"encoder_layer": training.clip_skip} if training.clip_skip else {}
    if training.timestep_range != ALL_TIMESTEPS:
        spec["timestep_range"] = "{},{}".format(*training.timestep_range)
    return {f"modelspec.{key}": value for key, value in spec.items()}


def base_hashes(path: Path | None, memory: Path | None = None) -> tuple[str, str]:
    """A1111's old hash and the sha256 of a base model's file, or what sd-scripts writes where there is no one file.

    Reading a whole model takes seconds: the file `memory` remembers the hashes of those that were read.
    """
    if path is None or not path.exists():
        return NO_FILE
    if path.is_dir():
        return ("IsADirectory", "IsADirectory")
    if memory is None:
        return _hashes(path)
    remembered = Remembered(memory, _hashes)
    old, whole = remembered[path]
    remembered.save()
    return old, whole


def file_hash(path: Path | None, memory: Path) -> str:
    """The sha256 of a base model's file; nothing where there is no one file."""
    return base_hashes(path, memory)[1] if path and path.is_file() else ""


def _hashes(path: Path) -> tuple[str, str]:
    with open(path, "rb") as file:
        whole = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0x100000)
        return (hashlib.sha256(file.read(0x10000)).hexdigest()[:8], whole)


def model_hashes(header: bytes, body: "Iterable[bytes | memoryview]") -> dict[str, str]:
    """sd-scripts' two hashes of a LoRA: of the tensor bytes, and the old one of 64 KB at 1 MB.

    `header` is that of the file with only the `ss_*` metadata in it, `body` the tensor bytes in pieces.
    """
    whole, start = hashlib.sha256(), bytearray(header)
    for piece in body:
        whole.update(piece)
        start += piece[: max(0, 0x110000 - len(start))]
    legacy = start[0x100000:0x110000]
    return {
        "sshs_model_hash": whole.hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(legacy).hexdigest()[:8],
    }
