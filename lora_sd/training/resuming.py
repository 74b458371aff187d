"""With which settings a run goes on: those in its folder, with more steps where that was asked for."""

import re
from pathlib import Path
from typing import Any

from .. import config as cfg
from .. import run
from ..config import TrainConfig
from . import cadence


def to_resume(folder: Path, config: TrainConfig, extend: int | str = 0) -> TrainConfig:
    """`config`, so many steps or "2 epochs" longer. Raises ValueError where the run of `folder` has nothing left to do."""
    known = run.read_state(folder)
    if str(extend) != "0":
        return extended(config, extend, total=known.total)
    if known.status == "finished" and known.step >= (config.optim.known_steps or known.total):
        raise ValueError(
            f"This run is finished: all its {known.step} steps are done. To train longer: "
            f"python -m lora_sd resume {folder} --extend 500"
        )
    return config


def extended(config: TrainConfig, more: int | str, *, total: int = 0) -> TrainConfig:
    """The config with more steps, or epochs; a warm-up that is a share of them stays as long as it was.

    `total` are the steps of a run whose length is set in epochs, where they were counted already.
    """
    settings, (number, unit) = config.optim, _amount(more)
    total = settings.known_steps or total
    if unit == "epochs" and not settings.epochs:
        raise ValueError(
            f"--extend is {str(more)!r}, and this run's length is not set in epochs; give a number of steps, such as 500."
        )
    if unit == "steps" and not total:
        raise ValueError(
            "The steps of this run are not counted yet; resume it without --extend, then make it longer."
        )
    changes: dict[str, Any] = (
        {"optim.epochs": settings.epochs + number} if unit == "epochs" else {"optim.steps": total + number}
    )
    if str(settings.warmup).strip().endswith("%") and total:
        changes["optim.warmup"] = cadence.steps_of(settings.warmup, total=total, per_epoch=1)
    return cfg.changed(config, changes)


def _amount(more: int | str) -> tuple[int, str]:
    """`500 -> (500, "steps")`, `"2 epochs" -> (2, "epochs")`"""
    found = re.fullmatch(r"\s*(\d{1,9})\s*(steps?|epochs?)?\s*", str(more), re.ASCII)
    if not found or int(found[1]) < 1:
        raise ValueError(
            f"--extend is {more}; it must be at least 1, in steps or epochs, such as 500 or '2 epochs'."
        )
    return int(found[1]), "epochs" if (found[2] or "").startswith("epoch") else "steps"
