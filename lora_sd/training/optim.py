"""The optimizer, and the learning rate as a plain function of the step."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn


def adamw(
    parameters: Iterable[nn.Parameter], *, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW (arXiv:1711.05101) with the usual betas, in one fused kernel where PyTorch has it."""
    parameters = list(parameters)
    fused = parameters[0].device.type in ("cuda", "cpu")
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=fused or None)


def adamw8bit(
    parameters: Iterable[nn.Parameter], *, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW with its two moments in 8 bits (arXiv:2110.02861): a quarter of their memory. Needs bitsandbytes."""
    import bitsandbytes

    return bitsandbytes.optim.AdamW8bit(list(parameters), lr=learning_rate, weight_decay=weight_decay)


OPTIMIZERS = {"AdamW": adamw, "AdamW8bit": adamw8bit}


def constant(progress: float) -> float:
    return 1.0


def linear(progress: float) -> float:
    return 1.0 - progress


def cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


SCHEDULES: dict[str, Callable[[float], float]] = {"constant": constant, "linear": linear, "cosine": cosine}


def rate(schedule: str, done: int, total: int, warmup: int) -> float:
    """The factor on the learning rate for the step after `done` of `total` steps; rises from 0 over `warmup` steps.

    The same numbers as diffusers' schedules, so a run can be compared with theirs.
    """
    if done < warmup:
        return done / warmup
    return SCHEDULES[schedule]((done - warmup) / max(1, total - warmup))


def set_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
