"""The header of a LoRA file: how it was trained, as far as output.metadata lets it tell."""

import json
import time
from typing import Any

import torch

from .. import config as cfg
from .. import run
from ..config import TrainConfig
from ..lora import formats, layers, metadata
from ..models.family import Models
from ..settings import PLACES, LoraSettings
from . import cadence, groups, optim, world
from .prepare import Dataset

PRECISIONS = {dtype: name for name, dtype in formats.DTYPES.items()}


def describe(
    config: TrainConfig,
    models: Models,
    data: Dataset,
    *,
    held_out: int,
    base_hashes: tuple[str, str],
    optimizer: torch.optim.Optimizer,
    warmup: int,
    total: int,
    started_at: float,
    step: int,
) -> dict[str, str]:
    """The header of the file of `step`. `held_out` counts pictures, `warmup` and `total` steps; times are seconds since 1970."""
    kind = type(optimizer)
    usual = optim.kind_of(config.optim.optimizer).arguments
    arguments = {"weight_decay": config.optim.weight_decay, **usual, **config.optim.arguments}
    listed = ",".join(f"{name}={value}" for name, value in arguments.items())  # as sd-scripts writes them
    told = metadata.Training(
        base=config.model.base,
        base_hashes=base_hashes,
        output_name=run.safe_name(config.output.name),
        trigger=config.data.trigger,
        resolution=config.data.resolution or models.resolution,
        clip_skip=models.clip_skip,
        zero_snr=models.zero_snr,
        inpainting=bool(models.extra_channels),
        seed=config.seed,
        started_at=started_at,
        finished_at=time.time(),
        step=step,
        steps=total,
        batches_per_epoch=data.batches_per_epoch(config.optim.batch_size),
        batch_size=config.optim.batch_size,
        devices=world.told().size,
        accumulation=config.optim.accumulation,
        learning_rate=config.optim.learning_rate,
        encoder_rates=groups.encoder_rates(list(models.parts()), config.optim.text_encoder_rate),
        optimizer=f"{kind.__module__}.{kind.__qualname__}({listed})",
        schedule=config.optim.schedule,
        warmup_steps=warmup,
        max_grad_norm=config.optim.max_grad_norm,
        noise_offset=config.noise.offset,
        noise_offset_random=config.noise.offset_random,
        noise_offset_adaptive=config.noise.offset_adaptive,
        pyramid=config.noise.pyramid,
        pyramid_discount=config.noise.pyramid_discount,
        perturbation=config.noise.perturbation,
        perturbation_random=config.noise.perturbation_random,
        timestep_range=(config.noise.min_timestep, config.noise.max_timestep),
        min_snr=config.loss.min_snr if config.loss.weighting == "min_snr" else 0.0,
        loss_kind=config.loss.kind,
        huber_schedule=config.loss.huber_schedule,
        huber_scale=config.loss.huber_scale,
        huber_c=config.loss.huber_c,
        debiased=config.loss.weighting == "debiased",
        dropout=config.lora.dropout,
        max_norm=config.lora.max_norm,
        network_args=network_args(config.lora),
        precision=PRECISIONS[models.dtype],
        checkpointing=models.unet.is_gradient_checkpointing,
        examples=_told(data, prior=False),
        held_out=held_out,
        buckets=data.bucket_counts(),
        options=_options(config, models, data, total) | _of_word(config),
    )
    pairs = layers.adapters(models.parts())
    return metadata.build(models.family, models.prediction, pairs, told, level=config.output.metadata)


def network_args(settings: LoraSettings) -> dict[str, str]:
    """How the adapter differs from a plain one, in kohya's words."""
    given = {
        "rank_dropout": settings.rank_dropout,
        "module_dropout": settings.module_dropout,
        "loraplus_lr_ratio": settings.plus_ratio if settings.plus_ratio != 1 else None,
    }
    if settings.dora != "off":
        given |= {"dora_wd": True, "wd_on_output": str(settings.dora == "output")}  # LyCORIS' words
    return {name: str(value) for name, value in given.items() if value}


def _of_word(config: TrainConfig) -> dict[str, Any]:
    """How the trigger word learned, where it did; sd-scripts has no names for that."""
    settings = config.embedding
    names = {"tokens": settings.tokens, "rate": settings.rate, "initial": settings.initial}
    return {f"ss_embedding_{name}": value for name, value in names.items()} if settings.tokens else {}


def _told(data: Dataset, *, prior: bool) -> list[tuple[str, int, str]]:
    """Folder's name, repeats and caption of every picture, of those for regularisation or of the others."""
    return [
        (e.path.parent.name, e.repeats, data.text(i)) for i, e in enumerate(data.examples) if e.prior == prior
    ]


def _options(config: TrainConfig, models: Models, data: Dataset, total: int) -> dict[str, Any]:
    """What was done to captions and pictures, by sd-scripts' names; and our own settings."""
    resolution = config.data.resolution or models.resolution
    return {
        "ss_network_module": "networks.lora" if config.lora.train_down else "networks.lora_fa",
        "ss_flip_aug": any(example.flip for example in data.examples),
        "ss_random_crop": data.crops > 1,
        "ss_enable_bucket": config.data.buckets,
        "ss_bucket_no_upscale": not config.data.enlarge,
        "ss_shuffle_caption": config.captions.shuffle,
        "ss_keep_tokens": data.examples[0].wording.keep,
        "ss_caption_dropout_rate": config.captions.dropout,
        "ss_caption_tag_dropout_rate": config.captions.tag_dropout,
        "ss_prior_loss_weight": config.data.regularisation_weight,
        "ss_num_reg_images": sum(example.repeats for example in data.examples if example.prior),
        "ss_reg_dataset_dirs": json.dumps(metadata.folders(_told(data, prior=True))),
        "ss_min_bucket_reso": config.data.bucket_min or resolution // 2,
        "ss_max_bucket_reso": config.data.bucket_max or 2 * resolution,
        **_validation(config, data, total),
        "lora_sd.settings": json.dumps(own_settings(config), ensure_ascii=False),
    }


def _validation(config: TrainConfig, data: Dataset, total: int) -> dict[str, Any]:
    if not config.validate.split and not config.validate.images:
        return {}
    epoch = data.epoch(config.optim.batch_size, config.optim.accumulation)
    steps = cadence.steps_of(config.validate.every, total=total, per_epoch=epoch.steps)
    return {
        "ss_validation_split": config.validate.split,
        "ss_validation_seed": config.seed,
        "ss_validate_every_n_steps": steps or None,
    }


def own_settings(config: TrainConfig) -> dict[str, Any]:
    """What is not at its default, but for places on this computer and what previews show."""
    private = (*PLACES, "preview.", "output.", "save.")
    found = cfg.differences(config)
    return {name: value for name, value in found.items() if not name.startswith(private)}
