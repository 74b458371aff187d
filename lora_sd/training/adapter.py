"""The adapters of a run: put on the model as the settings say, or with the update of a LoRA that it starts from."""

from collections.abc import Callable
from pathlib import Path

import torch

from ..lora import formats, layers, targets, warm
from ..lora.dropout import Dropout
from ..models.family import Models
from ..settings import LoraSettings, TrainConfig
from .world import World


def dropout_of(settings: LoraSettings, process: int) -> Dropout | None:
    shares = (settings.dropout, settings.rank_dropout, settings.module_dropout)
    return Dropout(*shares, process=process) if any(shares) else None


def check(config: TrainConfig) -> None:
    """ValueError for settings of the adapter that can't go together."""
    settings = config.lora
    if settings.dora == "input" and config.save.layout == "peft":
        raise ValueError(
            "lora.dora is input, and files of the peft layout hold magnitudes of outputs alone; set save.layout to kohya, "
            "or lora.dora to output."
        )
    other = next((name for name in ("start", "max_norm") if getattr(settings, name)), None)
    if settings.initial == "pissa" and other:
        raise ValueError(
            f"lora.initial is pissa, which begins in the base model itself and does not go with lora.{other}; leave one of them out."
        )


def inject(
    models: Models,
    settings: LoraSettings,
    seed: int,
    begun: dict[str, int],
    on_note: Callable[[str], None],
    dropout: Dropout | None = None,
) -> dict[str, int]:
    """Put new adapters on the model, with the update of lora.start in them; gives how many layers of each part have one.

    `begun` are the ranks in the state of a run that goes on: it needs its lora.start no more.
    """
    parts = models.parts()
    ranks = targets.resolve(
        parts,
        settings.targets,
        rank=settings.rank,
        conv_rank=settings.conv_rank,
        patterns=settings.ranks,
        text_encoders=settings.text_encoders,
    )
    started = formats.load(settings.start, parts, models.family) if settings.start and not begun else None
    if settings.start and begun:
        ranks = begun
    if started:
        for note in warm.notes(ranks, started.pairs, started.unused, Path(settings.start).name):
            on_note(note)
        warm.check_kind(started.pairs, parts, settings.dora, Path(settings.start).name)
        ranks = warm.ranks_for(ranks, started.pairs)
    scales = targets.scales(
        parts,
        ranks,
        rank=settings.rank,
        alpha=settings.alpha or settings.rank / 2,
        conv_rank=settings.conv_rank,
        conv_alpha=settings.conv_alpha,
        patterns=settings.alphas,
        rank_stabilized=settings.rank_stabilized,
    )
    layers.inject(
        parts,
        ranks,
        scales,
        seed=seed,
        dropout=dropout,
        train_down=settings.train_down,
        initial=settings.initial,
        magnitudes=None if settings.dora == "off" else settings.dora,
    )
    if started:
        warm.fill(parts, started.pairs)
    for part in parts.values():
        part.train()  # dropout acts, and checkpointing where it is on
    counts = {part: sum(name.startswith(f"{part}.") for name in ranks) for part in parts}
    return {part: count for part, count in counts.items() if count}


@torch.no_grad()
def begin_alike(models: Models, world: World) -> None:
    """Every process has the adapters of the first: another machine may round a decomposition otherwise."""
    mine = [tensor for _, low_rank in layers.low_ranks(models.parts()) for tensor in low_rank.tensors]
    for here, there in zip(mine, world.agree(mine), strict=True):
        here.copy_(there)
