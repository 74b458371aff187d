"""How long a run is: epochs, or pictures seen, become steps, with the sentence that says how.

batches of an epoch = pictures it shows ÷ batch size, for each shape by itself and rounded up
steps = epochs × batches of an epoch ÷ accumulation, rounded up
"""

import math
from typing import NamedTuple

from .settings import MOST_STEPS, OptimSettings


class Epoch(NamedTuple):
    """What one round of all pictures comes to."""

    pictures: int  # to learn from
    shown: int  # of these in an epoch, each as often as it counts
    prior: int  # shown for regularisation beside them
    batches: int  # over all cards
    batch_size: int
    accumulation: int

    @property
    def steps(self) -> float:
        return self.batches / self.accumulation

    @property
    def all_shown(self) -> int:
        return self.shown + self.prior


def total(settings: OptimSettings, epoch: Epoch) -> int:
    """The steps of a run. Raises ValueError where that is more than a run can have."""
    if settings.epochs:
        steps = -(-settings.epochs * epoch.batches // epoch.accumulation)
    elif settings.images_seen:
        steps = -(-settings.images_seen * epoch.batches // (epoch.all_shown * epoch.accumulation))
    else:
        steps = settings.known_steps
    if steps > MOST_STEPS:
        name = "optim.epochs" if settings.epochs else "optim.images_seen"
        raise ValueError(
            f"{name} is {settings.epochs or settings.images_seen}, which is {steps:,} steps; a run has at most "
            f"{MOST_STEPS:,}, so set it lower."
        )
    return steps


def held_out(pictures: int, share: float) -> int:
    """How many of the pictures are kept out of training: at least one, and one is left; 0 where `share` is."""
    return min(pictures - 1, max(1, round(share * pictures))) if share else 0


def sentence(settings: OptimSettings, epoch: Epoch) -> str:
    """`"20 pictures × 5 repeats = 100 an epoch ÷ batch 4 = 25 steps; 10 epochs = 250 steps"`"""
    steps = _count(total(settings, epoch), "step")
    if settings.epochs:
        return f"{of_epoch(epoch)}; {_count(settings.epochs, 'epoch')} = {steps}"
    if settings.images_seen:
        return f"{of_epoch(epoch)}; {_count(settings.images_seen, 'picture')} seen = {steps}"
    return f"{of_epoch(epoch)}; {steps} = {_count(settings.known_steps / epoch.steps, 'epoch')}"


def of_epoch(epoch: Epoch) -> str:
    """`"20 pictures × 5 repeats = 100 an epoch ÷ batch 4 = 25 steps"`"""
    said = _count(epoch.pictures, "picture")
    if epoch.shown != epoch.pictures:
        said += (
            f", with their repeats {epoch.shown:,}"
            if epoch.shown % epoch.pictures
            else f" × {epoch.shown // epoch.pictures} repeats = {epoch.shown:,}"
        )
    if epoch.prior:
        said += f" + {epoch.prior:,} for regularisation = {epoch.all_shown:,}"
    said += f" an epoch ÷ batch {epoch.batch_size}"
    plain = epoch.batches == -(-epoch.all_shown // epoch.batch_size)
    said += "" if plain else ", each batch of one shape,"
    if epoch.accumulation > 1:
        said += f" = {_count(epoch.batches, 'batch')} ÷ accumulation {epoch.accumulation}"
    return f"{said} = {_count(epoch.steps, 'step')}"


def _count(number: float, noun: str) -> str:
    """`"1 step"`, `"12.5 steps"`"""
    rounded = f"{number:,.2f}".rstrip("0").rstrip(".") if number % 1 else f"{math.floor(number):,}"
    ending = "" if number == 1 else "es" if noun.endswith("ch") and noun != "epoch" else "s"
    return f"{rounded} {noun}{ending}"
