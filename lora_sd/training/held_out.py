"""The held-out loss of a run: the mean denoising loss on pictures that are not trained on, always with the same noise."""

import math

from .. import errors, footprint
from . import prepare
from .loss import HELD_OUT_T, held_out_losses
from .ready import Ready
from .world import World


class HeldOut:
    def __init__(self, ready: Ready, seed: int, world: World):
        self.ready, self.seed, self.world = ready, seed, world
        self.at_once = len(HELD_OUT_T) if ready.rung is footprint.RUNGS[0] else 1  # timesteps

    def measure(self) -> float | None:
        """The loss as the LoRA is now; None where nothing is held out, or it is no number. The processes share the pictures."""
        if self.ready.held_out is None:
            return None
        count = len(self.ready.held_out.examples)
        mine = range(self.world.rank, count, self.world.size)
        mean = self.world.total(sum(self._losses(mine)), self.ready.device) / count
        return mean if math.isfinite(mean) else None

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
