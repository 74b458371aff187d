"""What a run needs to go on exactly where it was: adapters, optimizer, loss scaler and the step.

Order and randomness are functions of (seed, step), so no generator and no place in the data is saved. One file, replaced whole.
"""

import os
from pathlib import Path

import torch
from torch import nn

from ..lora import layers
from ..run import put_in_place

NAME = "latest.pt"


def save(
    folder: Path,
    *,
    step: int,
    seconds: float,
    parts: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Write the state of `step`; until it is complete the one before stays. `seconds` is the training time so far."""
    values = {
        "step": step,
        "seconds": seconds,
        "adapters": {
            name: (pair.down.detach(), pair.up.detach()) for name, pair in layers.adapters(parts).items()
        },
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
    }
    temporary = folder / f".{NAME}.tmp"
    with open(temporary, "wb") as file:
        torch.save(values, file)
        file.flush()
        os.fsync(file.fileno())
    put_in_place(temporary, folder / NAME)


def restore(
    folder: Path, parts: dict[str, nn.Module], optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> tuple[int, float]:
    """Put the saved state in place; gives the step it is of and the training seconds until then, (0, 0.0) where there is none."""
    path = folder / NAME
    if not path.is_file():
        return 0, 0.0
    values = torch.load(path, map_location="cpu", weights_only=True)
    mine = layers.adapters(parts)
    if mine.keys() != values["adapters"].keys():
        raise ValueError(
            f"The saved state in {path.parent.parent.name} is of a LoRA with other layers; start a new run."
        )
    with torch.no_grad():
        for name, (down, up) in values["adapters"].items():
            mine[name].down.copy_(down)
            mine[name].up.copy_(up)
    optimizer.load_state_dict(values["optimizer"])
    scaler.load_state_dict(values["scaler"])
    return values["step"], values["seconds"]
