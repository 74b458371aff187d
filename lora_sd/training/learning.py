"""From settings to what learns: the optimizer on the vector, with a group for each learning rate."""

from collections.abc import Callable
from typing import Any

import torch

from ..lora import layers
from ..settings import EmbeddingSettings, LoraSettings, OptimSettings
from . import groups, optim
from .ready import Ready
from .update import LossScale, Update

OnNote = Callable[[str], None]


def make_update(
    settings: OptimSettings,
    lora: LoraSettings,
    embedding: EmbeddingSettings,
    ready: Ready,
    saved: dict[str, Any] | None,
    on_note: OnNote,
) -> Update:
    """The update of a run, new; `saved` is the state it will go on from. ValueError for what a person can mend."""
    rates = groups.encoder_rates(list(ready.models.parts()), settings.text_encoder_rate)
    names = [name for name, low_rank in layers.low_ranks(ready.models.parts()) for _ in low_rank.learnt]
    if rates and not ready.modules.keys() - {"unet"}:
        on_note("optim.text_encoder_rate has no effect: no text encoder learns (lora.text_encoders).")
    rates["word"] = embedding.rate
    names += [f"word.{encoder}" for encoder in ready.word]  # as the vector has them
    grouped = groups.grouped(groups.factors(names, settings.learning_rate, rates))
    name = _name(settings.optimizer, ready.rung.small_optimizer, saved, on_note)
    kind = optim.kind_of(name)
    if kind.one_rate and len(grouped) > 1:
        raise ValueError(
            f"{name} finds the learning rate of all parts itself; "
            + (
                "leave optim.text_encoder_rate out."
                if settings.text_encoder_rate
                else f"set embedding.rate to optim.learning_rate, {settings.learning_rate:g}."
            )
        )
    options = {
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "arguments": settings.arguments,
    }
    if name not in optim.KINDS:
        optim.try_out(name, ready.device, **options)
    groups_of = [ready.vector.parameters(group.matrices, apart=kind.apart) for group in grouped]
    optimizer = optim.make(name, groups_of, **options)
    if optim.averages(optimizer) and (lora.plus_ratio != 1 or lora.max_norm or settings.ema):
        raise ValueError(
            f"{name} keeps averages of its own; leave lora.plus_ratio, lora.max_norm and optim.ema out."
        )
    scale = LossScale(ready.models.dtype == torch.float16, ready.device)
    factors = [group.factor for group in grouped]
    return Update(
        ready.vector,
        optimizer,
        max_grad_norm=settings.max_grad_norm,
        scale=scale,
        factors=factors,
        plus_ratio=lora.plus_ratio,
        max_norm=lora.max_norm,
        ema=settings.ema,
    )


def _name(wanted: str, small: bool, saved: dict[str, Any] | None, on_note: OnNote) -> str:
    """The optimizer to take: AdamW has its memory in 8 bits where the memory ladder or the saved state has it so."""
    if wanted == "AdamW":
        in_8_bits = saved.get("optimizer_name") == "AdamW8bit" if saved else small
        return "AdamW8bit" if in_8_bits else "AdamW"
    if wanted == "AdamW8bit":
        try:
            optim.find(wanted)
        except ValueError as error:
            on_note(f"{error} Training goes on with AdamW, which needs more memory and learns the same.")
            return "AdamW"
    return wanted
