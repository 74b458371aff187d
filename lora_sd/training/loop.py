"""The training loop: a generator of optimizer steps. Saving, previews and stopping belong to whoever iterates.

A step draws its examples, timesteps and noise as a function of (seed, step), so a run stopped at 5 and continued to 10
gives the same numbers as one that was never stopped.

Nothing in a step waits for the card: it is told what to do, and asked only at the end of a bunch of steps what came out.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from .. import hardware
from ..events import Step
from ..lora import layers
from ..models.family import Conditioning, Models
from . import diffusion
from .feed import Feed, Part, Text
from .loss import Inputs, Loss, denoising_loss
from .update import LossScale, Update
from .vector import Vector
from .world import World

LONGEST_BUNCH = 100  # steps
BUNCH_SECONDS = 0.5
Pass = Callable[[Feed], None]
Feeds = Callable[[Iterable[Part], int], Iterable[Feed]]  # the feeds of a step from its parts
EndsBunch = Callable[[int], bool]  # whether somebody wants to look at the weights after this step


def forward_backward(
    models: Models, text: Text, vector: Vector, scale: LossScale, how: Loss, feed: Feed
) -> None:
    """Add the feed's loss, and its gradient times `scale`, to the sums of the step."""
    vector.clear()
    alone = text_of_base(models, text, feed) if how.keep_base and models.encoders_learn else None
    inputs = Inputs(
        feed.latents,
        text.conditioning(feed.text),
        feed.sizes,
        feed.perturbation,
        alone,
        feed.masks,
        feed.beside,
    )
    losses = denoising_loss(models, inputs, feed.t, feed.noise, how)
    loss = (losses * feed.shares).sum()
    (loss * scale.factor).backward()
    vector.collect(loss.detach())


@torch.no_grad()
def text_of_base(models: Models, text: Text, feed: Feed) -> Conditioning:
    """What the base's own text encoders read in the captions."""
    with layers.adapters_off(models.parts()):
        return text.conditioning(feed.text)


def steps(
    run_pass: Pass,
    update: Update,
    feeds: Feeds,
    parts: Iterator[Part],
    *,
    first: int,
    last: int,
    accumulation: int,
    learning_rate: Callable[[int], float],
    seed: int,
    ends_bunch: EndsBunch,
    world: World,
) -> Iterator[list[Step]]:
    """Optimizer steps `first` to `last` in bunches, one event each; after a bunch the weights are those of its last step.

    On the CPU a bunch is one step. On a card it is what half a second does, or less where `ends_bunch(step)`.
    `learning_rate` takes the steps done before. Where a step fails, those done until then come before the error.
    """
    bunch = Bunch(last)
    on_card = update.vector.values.device.type == "cuda"
    longest = 1
    for number in range(first, last + 1):
        rate = learning_rate(number - 1)
        bunch.begin()
        try:
            torch.manual_seed(diffusion.generator(seed, number).initial_seed())  # dropout
            taken = [next(parts) for _ in range(accumulation)]
            for feed in feeds(taken, number):
                run_pass(feed)
            world.add_up(update.vector.sums)
            bunch.add(number, rate, update(rate))
        except Exception:
            if bunch.results:
                yield bunch.read()
            raise
        if len(bunch.results) >= longest or ends_bunch(number) or number == last:
            yield (read := bunch.read())
            if on_card:
                longest = world.agree(max(1, min(LONGEST_BUNCH, int(BUNCH_SECONDS / read[-1].seconds))))


class Bunch:
    """Steps whose losses are still on the device."""

    def __init__(self, total: int):
        self.total = total
        self.results: list[tuple[int, float, Tensor]] = []

    def begin(self) -> None:
        """A step begins; the bunch does with its first one."""
        if not self.results:
            self.began = time.perf_counter()

    def add(self, number: int, rate: float, result: Tensor) -> None:
        """A step was done: (loss, 1 if it was left out, its gradient's norm) will be in `result`."""
        self.results.append((number, rate, result))

    def read(self) -> list[Step]:
        """What the steps came to, in one reading; waits until the device has done them."""
        values = torch.stack([result for *_, result in self.results]).tolist()
        seconds = (time.perf_counter() - self.began) / len(values)
        memory = hardware.memory_used()
        done = [
            Step(
                step=number,
                total=self.total,
                loss=None if left_out else loss,
                learning_rate=rate,
                gradient_norm=norm if math.isfinite(norm) else None,
                seconds=seconds,
                memory=memory,
                left_out=True if left_out else None,
            )
            for (number, rate, _), (loss, left_out, norm) in zip(self.results, values, strict=True)
        ]
        self.results = []
        return done
