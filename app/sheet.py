"""The Make page as facts: what a person chose, what is proposed, what comes of both, and why it can't start."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_sd import config as cfg
from lora_sd import hardware, rates
from lora_sd.config import TrainConfig
from lora_sd.data import buckets
from lora_sd.data.buckets import Fit, Size
from lora_sd.settings import LENGTHS

from . import capacity, drawing, epoch, form, masks, models, pace, plan, reach, story
from .capacity import Base, Machine, Needed
from .project import Choices, Project
from .words import say


@dataclass(frozen=True)
class Sheet:
    """The Make page as facts: what a person chose, what is proposed, and what comes of both."""

    project: Project
    choices: Choices
    base: Base
    machine: Machine
    pictures: list[Path]  # that are used

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
            config = form.config({**settings, "data.repeats": self.project.repeats()})
            notes = rates.notes(config.optim, config.lora, starter=self.base.starter)
            length = self.length(config)
        captions = plan.Captions(self.num_pictures, self.project.captioned(), self.trigger)
        told = plan.lines(
            choices.kind,
            choices.quality,
            self.base,
            self.num_pictures,
            self.machine,
            settings,
            length,
            why_base=self.why_base(),
            captions=captions,
            time=self.time(length),
        )
        return told + self.masks() + [plan.unusual(note, settings) for note in notes]

    def masks(self) -> list[plan.Line]:
        """That pictures have masks, where they are used."""
        masked = len(masks.masked(self.project, self.pictures))
        if not masked or self.settings["data.masks"] != self.automatic["data.masks"]:
            return []
        value = say("{count} of {total} pictures", count=masked, total=self.num_pictures)
        return [plan.Line(say("Masks"), value, say("only what you painted is learned of them"))]

    def why_base(self) -> str:
        """Why this model is proposed; nothing for another one."""
        proposed, why = plan.propose(models.bases(), self.machine)
        return why if self.base.source == proposed else ""

    def memory(self) -> Needed | None:
        return capacity.memory(self.base, self.machine, self.settings)

    def time(self, length: epoch.Length | None) -> pace.Estimate | None:
        """How long the run will take, where anything is known of such runs."""
        kind = pace_of(self.base, self.machine, self.settings)
        if not (kind and length):
            return None
        pace.learn(story.runs(), _pace_of_run)
        return pace.estimate(kind, length.steps, on_processor=self.machine.kind == "cpu")

    def length(self, config: TrainConfig) -> epoch.Length | None:
        """How long the run will be; None where that is not known before it has begun."""
        side = plan.side_of(self.base, self.settings)
        if not side or not self.num_pictures:
            return None
        return epoch.length_of(
            config, self.pictures, self.project.images, side=side, bucket_step=self.bucket_step
        )

    @property
    def bucket_step(self) -> int:
        return plan.BUCKET_STEPS.get(self.base.family or "", 64)

    def fits(self, sizes: list[Size]) -> list[Fit]:
        """How pictures of these sizes are cropped; none where the resolution is not known. Raises ValueError for settings that are wrong."""
        side = plan.side_of(self.base, self.settings)
        rules = epoch.rules_of(form.config(self.settings).data)
        return buckets.fits(sizes, side, self.bucket_step, rules) if side else []

    def config(self) -> TrainConfig:
        """The settings of the run. Raises ValueError with one sentence."""
        named = {
            "model.base": self.base.source,
            "data.images": str(self.project.images),
            "data.trigger": self.trigger.strip(),
            "data.repeats": self.project.repeats(),
            "output.name": self.project.name,
        }
        config = form.config({**self.settings, **named})
        reach.check(config)
        return config

    def obstacle(self) -> str:
        """Why training can't start, or nothing."""
        if not self.num_pictures and self.project.pictures():
            return say("Every picture is turned off; turn some on at Images.")
        if not self.num_pictures:
            return say("No usable pictures yet: drop some above, or use the example set.")
        try:
            self.config()
        except ValueError as error:
            return str(error)
        return ""


def machine() -> Machine:
    """This one; what other programs leave of its memory is known only while none of ours holds any."""
    best = hardware.best()
    ours = story.active() is not None or drawing.client.alive
    return Machine(best.kind, best.name, best.total, None if ours else best.free)


def pace_of(base: Base, here: Machine, settings: Mapping[str, Any]) -> pace.Kind | None:
    """What the time of a step depends on; None for a model of unknown family."""
    needed, side = capacity.memory(base, here._replace(free=None), settings), plan.side_of(base, settings)
    if not (needed and side):
        return None
    device = settings["machine.device"]
    return pace.Kind(
        device=here.name if device in ("auto", here.kind) else device,
        base="starter" if base.starter else base.family or "",
        side=side,
        batch=settings["optim.batch_size"] * settings["optim.accumulation"],
        targets=settings["lora.targets"],
        rung=needed.rung.name,
    )


def _pace_of_run(folder: Path) -> pace.Kind | None:
    """The same of a run; None for one whose settings or model can't be read any more."""
    try:
        config = cfg.load(folder / "config.toml")
        base = models.base(config.model.base)
    except (ValueError, OSError):
        return None
    return pace_of(base, machine(), {s.name: cfg.get(config, s.name) for s in cfg.settings()})


def fill(project: Project, choices: Choices) -> Sheet:
    """The page's facts. Raises ValueError for a base model that can't be taught."""
    here = machine()
    source = choices.base or plan.propose(models.bases(), here)[0]
    return Sheet(project, choices, models.base(source), here, project.used())
