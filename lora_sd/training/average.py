"""The exponential moving average of what learns (arXiv:2312.02696, section 3): steadier than the weights of the last step.

    average += (1 - decay) · (weights - average),    decay = min(what is set, (1 + t) / (10 + t)) after t steps, at first 0

The decay rises to what is set, or the average would remember the LoRA's first zeros for thousands of steps.
"""

from typing import Any

import torch
from torch import Tensor


class Average:
    """The average of a vector of weights, which `follow` brings on by a step. All of it is on the weights' device."""

    def __init__(self, weights: Tensor, decay: float):
        self.decay = decay
        self.values = weights.detach().clone()  # (N,) fp32
        self.steps = torch.zeros((), device=weights.device)  # that it has followed

    @torch.no_grad()
    def follow(self, weights: Tensor, bad: Tensor) -> None:
        """One step on; one that was `bad`, () bool, changed nothing and is not counted."""
        rising = torch.where(self.steps > 0, (1 + self.steps) / (10 + self.steps), 0.0)
        kept = torch.where(bad, 1.0, rising.clamp(max=self.decay))
        self.values.lerp_(weights.detach(), 1 - kept)
        self.steps += ~bad

    def begin_anew(self, weights: Tensor) -> None:
        self.values.copy_(weights.detach())
        self.steps.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        return {"values": self.values, "steps": self.steps}

    def load_state_dict(self, values: dict[str, Any]) -> None:
        self.values.copy_(values["values"])
        self.steps.copy_(values["steps"])
