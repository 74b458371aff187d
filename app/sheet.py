"""The Make page as facts: what a person chose, what is proposed, what comes of both, and why it can't start."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_sd import hardware, rates
from lora_sd.config import TrainConfig
from lora_sd.settings import LENGTHS

from . import epoch, form, masks, models, plan, reach
from .plan import Base, Machine
from .project import Choices, Project
from .words import say


@dataclass(frozen=True)
class Sheet:
    """The Make page as facts: what a person chose, what is proposed, and what comes of both."""

    project: Project
    choices: Choices
    base: Base
    machine: Machine
    pictures: list[Path]

    @property
    def num_pictures(self) -> int:
        return len(self.pictures)

    @property
    def automatic(self) -> dict[str, Any]:
        proposed = plan.settings(self.choices.kind, self.choices.quality, self.base, self.num_pictures)
        painted = masks.setting(self.project, self.pictures)
        return form.with_defaults({**proposed, "data.on_bad_image": "skip", "data.masks": painted})

    @property
    def settings(self) -> dict[str, Any]:
        changes = dict(self.choices.changes)
        if changes.get("optim.steps", 0) is None:  # an empty field is the proposal
            del changes["optim.steps"]
        other_length = any(changes.get(name) for name in LENGTHS if name != "optim.steps")
        return {**self.automatic, **({"optim.steps": None} if other_length else {}), **changes}

    @property
    def trigger(self) -> str:
        if self.choices.trigger is None:
            return plan.suggest_trigger(self.project.name)
        return self.choices.trigger

    def lines(self) -> list[plan.Line]:
        settings, choices, length, notes = self.settings, self.choices, None, []
        with contextlib.suppress(ValueError):  # settings that are wrong are the obstacle
            config = form.config(settings)
            notes = rates.notes(config.optim, config.lora, starter=self.base.starter)
            length = self.length(config)
        told = plan.lines(
            choices.kind, choices.quality, self.base, self.num_pictures, self.machine, settings, length
        )
        return told + self.masks() + [plan.unusual(note, settings) for note in notes]

    def masks(self) -> list[plan.Line]:
        """That pictures have masks, where they are used."""
        masked = len(masks.masked(self.project, self.pictures))
        if not masked or self.settings["data.masks"] != self.automatic["data.masks"]:
            return []
        value = say("{count} of {total} pictures", count=masked, total=self.num_pictures)
        return [plan.Line(say("Masks"), value, say("only what you painted is learned of them"))]

    def length(self, config: TrainConfig) -> epoch.Length | None:
        """How long the run will be; None where that is not known before it has begun."""
        side = plan.side_of(self.base, self.settings)
        if not side or not self.num_pictures:
            return None
        step = plan.BUCKET_STEPS.get(self.base.family or "", 64)
        return epoch.length_of(config, self.pictures, self.project.images, side=side, bucket_step=step)

    def config(self) -> TrainConfig:
        """The settings of the run. Raises ValueError with one sentence."""
        named = {
            "model.base": self.base.source,
            "data.images": str(self.project.images),
            "data.trigger": self.trigger.strip(),
            "output.name": self.project.name,
        }
        config = form.config({**self.settings, **named})
        reach.check(config)
        return config

    def obstacle(self) -> str:
        """Why training can't start, or nothing."""
        if not self.num_pictures:
            return "No usable pictures yet: drop some above, or use the example set."
        try:
            self.config()
        except ValueError as error:
            return str(error)
        return ""


def machine() -> Machine:
    best = hardware.best()
    return Machine(best.kind, best.name, best.total)


def fill(project: Project, choices: Choices) -> Sheet:
    """The page's facts. Raises ValueError for a base model that can't be taught."""
    here = machine()
    source = choices.base or plan.propose(models.bases(), here)[0]
    return Sheet(project, choices, models.base(source), here, project.pictures())
