"""What a run needs to go on exactly where it was: adapters, optimizer, loss scale and the step.

Order and randomness are functions of (seed, step), so no generator and no place in the data is saved. One file, replaced whole.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..lora import layers
from ..run import put_in_place
from .update import Update

NAME = "latest.pt"


def save(folder: Path, *, step: int, seconds: float, parts: dict[str, nn.Module], update: Update) -> None:
    """Write the state of `step`; until it is complete the one before stays. `seconds` is the training time so far."""
    values = {
        "step": step,
        "seconds": seconds,
        "adapters": {
            name: (pair.down.clone(), pair.up.clone()) for name, pair in layers.adapters(parts).items()
        },
        "optimizer_name": type(update.optimizer).__name__,
        "update": update.state_dict(),
    }
    temporary = folder / f".{NAME}.tmp"
    with open(temporary, "wb") as file:
        torch.save(values, file)
        file.flush()
        os.fsync(file.fileno())
    put_in_place(temporary, folder / NAME)


def read(folder: Path) -> dict[str, Any] | None:
    """The state that was saved last, on the CPU; None where there is none."""
    path = folder / NAME
    return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None


def restore(values: dict[str, Any], parts: dict[str, nn.Module], update: Update) -> tuple[int, float]:
    """Put a state in place; gives the step it is of and the training seconds until then."""
    mine = layers.adapters(parts)
    if mine.keys() != values["adapters"].keys():
        raise ValueError("The saved state of this run is of a LoRA with other layers; start a new run.")
    with torch.no_grad():
        for name, (down, up) in values["adapters"].items():
            mine[name].down.copy_(down)
            mine[name].up.copy_(up)
    update.vector.renew()
    update.load_state_dict(values.get("update") or _of_matrices(values, update))
    return values["step"], values["seconds"]


def _of_matrices(values: dict[str, Any], update: Update) -> dict[str, Any]:
    """The update's state in a run of version 0.1.0, whose optimizer kept each matrix by itself."""
    old = values["optimizer"]
    each = [old["state"][index] for index in sorted(old["state"])]
    joined = {name: update.vector.join([state[name] for state in each]) for name in ("exp_avg", "exp_avg_sq")}
    group = {**old["param_groups"][0], "params": [0], "fused": True}
    optimizer = {"state": {0: {"step": each[0]["step"], **joined}}, "param_groups": [group]}
    return {"optimizer": optimizer, "scale": {}}
