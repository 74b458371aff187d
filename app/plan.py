"""What the page proposes for a set of pictures, and why: each number comes with the sentence that explains it.

The figures are rules of thumb; memory is predicted from the settings and the machine (lora_sd.footprint).
"""

import re
from typing import Any, Literal, NamedTuple

from lora_sd import config, footprint
from lora_sd.footprint import FOOTPRINTS, RUNGS, Needs, Rung

from .epoch import Length

Kind = Literal["Subject", "Style"]
Quality = Literal["Quick", "Balanced", "Best"]
LENGTH: dict[str, float] = {"Quick": 0.5, "Balanced": 1.0, "Best": 1.6}
FEW_PICTURES = 8
STARTER = {  # docs/learning.md
    "lora.rank": 16,
    "lora.alpha": 16.0,
    "lora.targets": "transformer",
    "optim.learning_rate": 1e-3,
    "optim.batch_size": 4,
    "optim.schedule": "cosine",
}
FALLING = {"optim.schedule": "cosine", "optim.warmup": "5%"}
STARTER_STEPS = 100
SIDES = {"sd15": 512, "sd2": 768, "sdxl": 1024}  # pixels
STARTER_SIDE = 128
BUCKET_STEPS = {"sdxl": 32}  # pixels, as in lora_sd.models.family, which needs torch; the others have 64
GB = 2**30
STARTER_MEMORY = 2 * GB  # bytes in fp32; an estimate
OTHERS = 0.08  # share of a machine's memory that the desktop and other programs hold
DRIVER = GB // 2  # bytes of a card that the driver takes for every program


class Machine(NamedTuple):
    kind: Literal["cuda", "mps", "cpu"]
    name: str
    total: int  # bytes


class Base(NamedTuple):
    source: str
    title: str
    family: str | None

    @property
    def starter(self) -> bool:
        return self.source == "starter"


class Line(NamedTuple):
    """One sentence of the plan: what, how much, and why."""

    what: str
    value: str
    why: str
    warning: bool = False


class Plan(NamedTuple):
    settings: dict[str, Any]  # by dotted name: what is not at its default
    lines: list[Line]


def settings(kind: Kind, quality: Quality, base: Base, pictures: int) -> dict[str, Any]:
    """The automatic settings for these pictures on this model."""
    if base.starter:
        steps = round(STARTER_STEPS * LENGTH[quality])
        return {**STARTER, "data.flip": kind == "Style", "optim.steps": steps}
    rank = 32 if kind == "Style" else 16
    targets = "transformer" if kind == "Style" else "attention"
    return {"lora.rank": rank, "lora.targets": targets, "optim.steps": _steps(pictures, quality), **FALLING}


def _steps(pictures: int, quality: Quality) -> int:
    return round(min(max(60 * pictures, 600), 2500) * LENGTH[quality] / 10) * 10


def lines(
    kind: Kind,
    quality: Quality,
    base: Base,
    pictures: int,
    machine: Machine,
    chosen: dict[str, Any],
    length: Length | None = None,
) -> list[Line]:
    """The plan in sentences; `chosen` are the settings that will be used, a person's changes included.

    `length` is what these settings come to with the pictures, where that could be counted.
    """
    return [
        _pictures(pictures),
        _length(quality, base, pictures, chosen, length),
        _size(base, chosen),
        _strength_of_learning(kind, base, chosen),
        _memory(base, machine, chosen),
        _where(base, machine),
    ]


def _pictures(count: int) -> Line:
    if count == 0:
        return Line("Pictures", "none yet", "15 to 30 varied ones work well")
    if count == 1:
        return Line(
            "Pictures",
            "1",
            "the result will soon only repeat it: compare early files; 15 to 30 varied ones do better",
            warning=True,
        )
    if count < FEW_PICTURES:
        return Line(
            "Pictures",
            str(count),
            "few: the result may repeat them; 15 to 30 varied ones do better",
            warning=True,
        )
    return Line("Pictures", str(count), "enough to learn from; variety matters more than number")


def _length(
    quality: Quality, base: Base, pictures: int, chosen: dict[str, Any], length: Length | None
) -> Line:
    proposed = settings("Subject", quality, base, pictures)["optim.steps"]
    steps = length.steps if length else chosen["optim.steps"]
    if steps is None:
        return Line("Length", "as its epochs are", "your choice; the steps show with the pictures")
    seen = f"; {length.sentence}" if length else ""
    if steps != proposed:
        why = f"your choice; {proposed:,} were proposed"
    elif base.starter:
        why = "the starter learns a style in about a hundred"
    else:
        why = "60 for each picture, between 600 and 2,500" + (
            "" if quality == "Balanced" else f", and {quality.lower()} quality"
        )
    return Line("Length", f"{steps:,} steps", why + seen)


def _size(base: Base, chosen: dict[str, Any]) -> Line:
    own = STARTER_SIDE if base.starter else SIDES.get(base.family or "")
    if chosen["data.resolution"]:
        return Line(
            "Picture size",
            f"about {chosen['data.resolution']} × {chosen['data.resolution']}",
            "your choice; other shapes keep their shape",
        )
    value = f"about {own} × {own}" if own else "the model's own"
    return Line("Picture size", value, "what this model was made for; other shapes keep their shape")


def unusual(note: str, chosen: dict[str, Any]) -> Line:
    """A learning rate that is far from the usual, by the note that says so."""
    return Line("Learning rate", f"{chosen['optim.learning_rate']:g}", note, warning=True)


def side_of(base: Base, chosen: dict[str, Any]) -> int | None:
    """The resolution in pixels; None for a model of unknown family."""
    own = STARTER_SIDE if base.starter else SIDES.get(base.family or "")
    return chosen["data.resolution"] or own


def _strength_of_learning(kind: Kind, base: Base, chosen: dict[str, Any]) -> Line:
    if chosen["lora.targets"] == "none" and chosen["embedding.tokens"]:
        return Line(
            "Room to learn", f"{chosen['embedding.tokens']} vectors", "the trigger word's; no layer learns"
        )
    rank, proposed = chosen["lora.rank"], settings(kind, "Balanced", base, 20)["lora.rank"]
    if rank != proposed:
        return Line("Room to learn", f"rank {rank}", f"your choice; {proposed} was proposed")
    return Line(
        "Room to learn", f"rank {rank}", "room for a style" if kind == "Style" else "enough for one subject"
    )


def _memory(base: Base, machine: Machine, chosen: dict[str, Any]) -> Line:
    needed = memory(base, machine, chosen)
    if needed is None:
        return Line(
            "Memory", "not known yet", "the family of this model isn't known; it shows after the first steps"
        )
    rung, size = needed
    value = f"about {size / GB:.1f} of {machine.total / GB:.0f} GB"
    how = f"predicted, {rung.title}" if machine.kind == "cuda" and not base.starter else "estimate"
    if size <= usable(machine):
        return Line("Memory", value, how)
    return Line(
        "Memory", value, f"{how}: this may not fit; choose a smaller batch, size or model", warning=True
    )


class Needed(NamedTuple):
    """How a run will save memory, and what it takes then."""

    rung: Rung
    size: int  # bytes


def memory(base: Base, machine: Machine, chosen: dict[str, Any]) -> Needed | None:
    """What training will take on this machine; None for a model of unknown family."""
    if base.starter:
        return Needed(RUNGS[0], STARTER_MEMORY)
    if base.family not in FOOTPRINTS:
        return None
    side = chosen["data.resolution"] or SIDES[base.family]
    on_card = machine.kind == "cuda"
    needs = Needs(
        base.family,
        pixels=side**2,
        batch_size=chosen["optim.batch_size"],
        rank=chosen["lora.rank"],
        targets=chosen["lora.targets"],
        text_encoders=chosen["lora.text_encoders"] or not on_card,  # only a card is worth leaving
        embedding=bool(chosen["embedding.tokens"]),
        bytes_per_weight=2 if on_card and chosen["machine.precision"] != "fp32" else 4,
        dora=chosen["lora.dora"] != "off",
    )
    rung = _rung(chosen["machine.memory"], machine, needs)
    return Needed(rung, footprint.predict(needs, rung))


def _rung(wanted: str, machine: Machine, needs: Needs) -> Rung:
    """As training takes it: what is set, else what fits a card, else the fastest."""
    if wanted != "auto":
        return next(rung for rung in RUNGS if rung.name == wanted)
    return footprint.choose_rung(usable(machine), needs) if machine.kind == "cuda" else RUNGS[0]


def usable(machine: Machine) -> int:
    """Bytes of the machine's memory that a run can have."""
    return round((1 - OTHERS) * machine.total) - (DRIVER if machine.kind == "cuda" else 0)


def _where(base: Base, machine: Machine) -> Line:
    if machine.kind == "cuda":
        return Line("Where", machine.name, "your graphics card; the time left is shown after the first steps")
    if machine.kind == "mps":
        return Line("Where", machine.name, "Apple's graphics; the time left is shown after the first steps")
    if base.starter:
        return Line("Where", machine.name, "no NVIDIA card found; the starter is small enough: a few minutes")
    return Line(
        "Where",
        machine.name,
        "no NVIDIA card found: training this model takes many hours, the starter a few minutes",
        warning=True,
    )


def propose(bases: list[Base], machine: Machine) -> tuple[str, str]:
    """The base model to begin with, and why."""
    if machine.kind == "cpu":
        return (
            "starter",
            "No graphics card was found, so the small built-in model is proposed: it trains here in minutes.",
        )
    fitting = [base for base in bases if not base.starter and _fits(base, machine)]
    if not fitting:
        return "starter", "No larger model that fits was found on this computer; you can get one below."
    best = max(fitting, key=lambda base: SIDES[base.family or ""])
    return best.source, f"It is on this computer and fits {machine.name}."


def _fits(base: Base, machine: Machine) -> bool:
    """Whether the automatic settings fit this machine; not in 8 bits, which is for those who choose the model."""
    defaults = {s.name: s.field.default for s in config.settings()}
    needed = memory(base, machine, {**defaults, **settings("Style", "Balanced", base, FEW_PICTURES)})
    return needed is not None and not needed.rung.packed and needed.size <= usable(machine)


def suggest_trigger(project: str) -> str:
    """A word that no model knows yet: the project's name with an ending. `"My Cat" -> "mycat_lx"`."""
    letters = re.sub(r"[\W_]+", "", project.lower())
    return f"{letters[:16] or 'my'}_lx"
