"""The held-out loss of a run: the mean denoising loss on pictures that are not trained on, always with the same noise."""

import math

from .. import errors, footprint
from . import prepare
from .loss import HELD_OUT_T, held_out_losses
from .ready import Ready
from .world import World

WORSE = 1.1  # times the base model's loss


class HeldOut:
    def __init__(self, ready: Ready, seed: int, world: World):
        self.ready, self.seed, self.world = ready, seed, world
        self.at_once = len(HELD_OUT_T) if ready.rung is footprint.RUNGS[0] else 1  # timesteps
        self.of_base: float | None = (
            None  # the loss without the LoRA, while it has not been said that it was better
        )

    def measure(self) -> float | None:
        """The loss as the LoRA is now; None where nothing is held out, or it is no number. The processes share the pictures."""
        if self.ready.held_out is None:
            return None
        count = len(self.ready.held_out.examples)
        mine = range(self.world.rank, count, self.world.size)
        mean = self.world.total(sum(self._losses(mine)), self.ready.device) / count
        return mean if math.isfinite(mean) else None

    def warning(self, step: int, loss: float | None) -> str:
        """What a person should know of the loss after `step`, once: that the base model alone was better."""
        if step == 0:
            self.of_base = loss
        if loss is None or self.of_base is None or loss < WORSE * self.of_base:
            return ""
        before, self.of_base = self.of_base, None
        return (
            f"At step {step} the held-out loss is {loss:.4f}; without the LoRA it was {before:.4f}. It is over-trained or "
            "burnt by now: an earlier file is better, or a lower optim.learning_rate."
        )

    def _losses(self, indices: range) -> list[float]:
        """The losses of held-out pictures; where memory is short for several timesteps at once, one by one from now on."""
        pictures = prepare.held_out_inputs(self.ready.held_out, self.ready.models, self.ready.text, indices)
        try:
            return held_out_losses(self.ready.models, pictures, seed=self.seed, at_once=self.at_once)
        except RuntimeError as error:
            if self.at_once == 1 or not errors.out_of_memory(error):
                raise
        self.at_once = 1
        return self._losses(indices)
