"""The optimizer: how a gradient becomes a step."""

from collections.abc import Iterable

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


def set_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
