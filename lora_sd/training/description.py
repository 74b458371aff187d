"""The header of a LoRA file: how it was trained, as far as output.metadata lets it tell."""

import time
from typing import Any

import torch

from .. import run
from ..config import TrainConfig
from ..lora import layers, metadata
from ..models.family import Models
from .prepare import Dataset

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
PRECISIONS = {dtype: name for name, dtype in DTYPES.items()}


def describe(
    config: TrainConfig,
    models: Models,
    data: Dataset,
    *,
    held_out: int,
    base_hashes: tuple[str, str],
    optimizer: torch.optim.Optimizer,
    warmup: int,
    started_at: float,
    step: int,
) -> dict[str, str]:
    """The header of the file of `step`. `held_out` counts pictures, `warmup` steps; times are seconds since 1970."""
    kind = type(optimizer)
    told = metadata.Training(
        base=config.model.base,
        base_hashes=base_hashes,
        output_name=run.safe_name(config.output.name),
        trigger=config.data.trigger,
        resolution=config.data.resolution or models.resolution,
        clip_skip=models.clip_skip,
        zero_snr=bool(models.scheduler_config.get("rescale_betas_zero_snr")),
        seed=config.seed,
        started_at=started_at,
        finished_at=time.time(),
        step=step,
        steps=config.optim.steps,
        batches_per_epoch=data.batches_per_epoch(config.optim.batch_size),
        batch_size=config.optim.batch_size,
        accumulation=config.optim.accumulation,
        learning_rate=config.optim.learning_rate,
        optimizer=f"{kind.__module__}.{kind.__qualname__}(weight_decay={config.optim.weight_decay})",
        schedule=config.optim.schedule,
        warmup_steps=warmup,
        max_grad_norm=config.optim.max_grad_norm,
        min_snr=config.loss.min_snr,
        precision=PRECISIONS[models.dtype],
        examples=[
            (e.path.parent.name, e.repeats, data.text(i)) for i, e in enumerate(data.examples) if not e.prior
        ],
        held_out=held_out,
        buckets=data.bucket_counts(),
        options=_options(config, data),
    )
    pairs = layers.adapters(models.parts())
    return metadata.build(models.family, models.prediction, pairs, told, level=config.output.metadata)


def _options(config: TrainConfig, data: Dataset) -> dict[str, Any]:
    """What was done to captions and pictures, by sd-scripts' names."""
    return {
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
    }
