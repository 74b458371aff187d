"""With which settings a run goes on: those in its folder, with more steps where that was asked for."""

from pathlib import Path
from typing import Any

from .. import config as cfg
from .. import run
from ..config import TrainConfig
from . import cadence


def to_resume(folder: Path, config: TrainConfig, extend: int = 0) -> TrainConfig:
    """`config`, `extend` steps longer. Raises ValueError where the run of `folder` has nothing left to do."""
    known = run.read_state(folder)
    if extend:
        return extended(config, extend)
    if known.status == "finished" and known.step >= config.optim.steps:
        raise ValueError(
            f"This run is finished: all its {known.step} steps are done. To train longer: "
            f"python -m lora_sd resume {folder} --extend 500"
        )
    return config


def extended(config: TrainConfig, steps: int) -> TrainConfig:
    """The config with more steps; a warm-up that is a share of them stays as long as it was."""
    if steps < 1:
        raise ValueError(f"--extend is {steps}; it must be at least 1.")
    settings = config.optim
    changes: dict[str, Any] = {"optim.steps": settings.steps + steps}
    if str(settings.warmup).strip().endswith("%"):
        changes["optim.warmup"] = cadence.steps_of(settings.warmup, total=settings.steps, per_epoch=1)
    return cfg.changed(config, changes)
