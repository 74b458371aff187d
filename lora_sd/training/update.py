"""From a step's gradient to new weights: checked, clipped, and given to the optimizer, all on the device.

Nothing here waits for the device. A step whose loss or gradient is not finite changes nothing, neither weights nor
the optimizer's memory.
"""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from . import optim
from .average import Average
from .max_norm import limit_norms
from .vector import Vector


class LossScale:
    """The factor on the loss that keeps fp16 gradients in range (arXiv:1710.03740, section 3.2); 1 where it isn't needed.

    Halved when a gradient overflows, doubled after 2,000 that did not, as torch.amp.GradScaler does.
    """

    START, PATIENCE = 2.0**16, 2000

    def __init__(self, enabled: bool, device: torch.device):
        self.enabled = enabled
        self.factor = torch.full((), self.START if enabled else 1.0, device=device)
        self.good = torch.zeros((), device=device)  # steps since it changed

    def follow(self, overflow: Tensor) -> None:
        """Adapt to whether a step overflowed, () bool."""
        if not self.enabled:
            return
        self.good.copy_(torch.where(overflow, 0.0, self.good + 1))
        patient = self.good >= self.PATIENCE
        self.factor.mul_(torch.where(overflow, 0.5, torch.where(patient, 2.0, 1.0)))
        self.good.copy_(torch.where(patient, 0.0, self.good))

    def state_dict(self) -> dict[str, Tensor]:
        return {"factor": self.factor, "good": self.good} if self.enabled else {}

    def load_state_dict(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            getattr(self, name).copy_(value)


class Update:
    """One optimizer on a vector. Call it when the gradients of a step are complete.

    `factors` are those of the optimizer's groups on the learning rate.
    """

    def __init__(
        self,
        vector: Vector,
        optimizer: torch.optim.Optimizer,
        *,
        max_grad_norm: float,
        scale: LossScale,
        factors: Sequence[float] = (1.0,),
        plus_ratio: float = 1.0,
        max_norm: float = 0.0,
        ema: float = 0.0,
    ):
        self.vector, self.optimizer, self.max_grad_norm, self.scale = vector, optimizer, max_grad_norm, scale
        self.factors = factors
        self.unused = copy.deepcopy(optimizer.state_dict())
        self.max_norm = max_norm  # of each layer's update; 0 for none
        self.average = Average(vector.values, ema) if ema else None
        # how much further than the optimizer each number goes: `up` learns plus_ratio × faster (arXiv:2402.12354, section 4)
        self.further = None if plus_ratio == 1 else vector.spread(up=plus_ratio - 1)

    @torch.no_grad()
    def __call__(self, learning_rate: float) -> Tensor:
        """Change the weights; gives (loss, 1 if the step was left out because it was not finite, the gradient's norm before
        clipping), (3,) on the device."""
        vector, gradient = self.vector, self.vector.gradient
        if self.scale.enabled:
            gradient.div_(self.scale.factor)
        norm = torch.linalg.vector_norm(gradient)
        overflow, lost = ~norm.isfinite(), ~vector.loss.isfinite()
        bad = overflow | lost
        if self.max_grad_norm:
            gradient.mul_((self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        optim.set_rate(self.optimizer, learning_rate, self.factors)
        before = None if self.further is None else vector.values.clone()
        self._step(bad)
        if before is not None:
            vector.values.addcmul_(vector.values - before, self.further)
        if self.max_norm:
            limit_norms(vector.adapters, self.max_norm)
        if self.average:
            self.average.follow(vector.values, bad)
        self.scale.follow(overflow)
        # a gradient that overflows in fp16 is how the scale finds its place, as long as it is above 1
        left_out = lost | (overflow & (self.scale.factor <= 1))
        result = torch.stack([vector.loss, left_out.float(), norm])
        vector.sums.zero_()
        vector.renew()
        return result

    def _step(self, bad: Tensor) -> None:
        if getattr(self.optimizer, "_step_supports_amp_scaling", False):  # of PyTorch's fused optimizers
            self.optimizer.found_inf = bad.float()  # they look at it on the device
            self.optimizer.step()
        elif not bad.item():
            self.optimizer.step()

    def forget(self, done: int) -> None:
        """A step broke off: what it left is dropped; if it was the first, the optimizer may be half made, too."""
        self.vector.sums.zero_()
        if done == 0:
            self.begin_anew()

    def begin_anew(self) -> None:
        """The optimizer remembers nothing, nor does the average."""
        self.optimizer.load_state_dict(copy.deepcopy(self.unused))
        if self.average:
            self.average.begin_anew(self.vector.values)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """For a while the weights are those to use: the average of those of the last steps, or that of an optimizer that averages."""
        of_optimizer = optim.averages(self.optimizer)
        if not (of_optimizer or self.average):
            yield
            return
        before = self.vector.values.detach().clone()  # the optimizer's way back would leave rounding errors
        if of_optimizer:
            self.optimizer.eval()
        else:
            self.vector.values.data.copy_(self.average.values)
        self.vector.renew()
        try:
            yield
        finally:
            if of_optimizer:
                self.optimizer.train()
            self.vector.values.data.copy_(before)
            self.vector.renew()

    def fits(self, values: dict[str, Any]) -> bool:
        """Whether the saved state of an optimizer can be this one's."""
        mine, theirs = (
            [len(group["params"]) for group in state["param_groups"]]
            for state in (self.optimizer.state_dict(), values["optimizer"])
        )
        return mine == theirs

    def state_dict(self) -> dict[str, Any]:
        average = {"average": self.average.state_dict()} if self.average else {}
        return {"optimizer": self.optimizer.state_dict(), "scale": self.scale.state_dict(), **average}

    def load_state_dict(self, values: dict[str, Any]) -> None:
        """Go on with what was remembered; the optimizer's arguments stay those it was made with."""
        self.optimizer.load_state_dict(values["optimizer"])
        names = optim.arguments(self.optimizer)
        for group, made in zip(self.optimizer.param_groups, self.unused["param_groups"], strict=True):
            group.update(copy.deepcopy({name: made[name] for name in names & made.keys()}))
        self.scale.load_state_dict(values["scale"])
        if self.average and "average" in values:
            self.average.load_state_dict(values["average"])
        elif self.average:
            self.average.begin_anew(self.vector.values)
