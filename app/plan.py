"""What the page proposes for a set of pictures, and why: each number comes with the sentence that explains it.

The figures are rules of thumb, marked as estimates where nothing was measured.
"""

import re
from typing import Any, Literal, NamedTuple

Kind = Literal["Subject", "Style"]
Quality = Literal["Quick", "Balanced", "Best"]
LENGTH: dict[str, float] = {"Quick": 0.5, "Balanced": 1.0, "Best": 1.6}
FEW_PICTURES = 8
STARTER = {"lora.rank": 16, "lora.alpha": 16.0, "optim.learning_rate": 1e-3, "optim.batch_size": 4}
STARTER_STEPS = 100
SIDES = {"sd15": 512, "sd2": 768, "sdxl": 1024}  # pixels
STARTER_SIDE = 128
MEMORY = {"sd15": 5.0, "sd2": 7.0, "sdxl": 12.0}  # GB in half precision at batch 1; an estimate
STARTER_MEMORY = 2.0  # GB in fp32; an estimate
GB = 2**30


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
        return {**STARTER, "optim.steps": round(STARTER_STEPS * LENGTH[quality])}
    rank = 32 if kind == "Style" else 16
    return {"lora.rank": rank, "optim.steps": _steps(pictures, quality)}


def _steps(pictures: int, quality: Quality) -> int:
    return round(min(max(60 * pictures, 600), 2500) * LENGTH[quality] / 10) * 10


def lines(
    kind: Kind, quality: Quality, base: Base, pictures: int, machine: Machine, chosen: dict[str, Any]
) -> list[Line]:
    """The plan in sentences; `chosen` are the settings that will be used, a person's changes included."""
    return [
        _pictures(pictures),
        _length(quality, base, pictures, chosen),
        _size(base, chosen),
        _strength_of_learning(kind, base, chosen),
        _memory(base, machine, chosen),
        _where(base, machine),
    ]


def _pictures(count: int) -> Line:
    if count == 0:
        return Line("Pictures", "none yet", "15 to 30 varied ones work well")
    if count < FEW_PICTURES:
        return Line(
            "Pictures",
            str(count),
            "few: the result may repeat them; 15 to 30 varied ones do better",
            warning=True,
        )
    return Line("Pictures", str(count), "enough to learn from; variety matters more than number")


def _length(quality: Quality, base: Base, pictures: int, chosen: dict[str, Any]) -> Line:
    steps, proposed = chosen["optim.steps"], settings("Subject", quality, base, pictures)["optim.steps"]
    seen = (
        f"; each picture is seen about {steps * chosen['optim.batch_size'] / pictures:,.0f} times"
        if pictures
        else ""
    )
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


def _strength_of_learning(kind: Kind, base: Base, chosen: dict[str, Any]) -> Line:
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
    share = f"about {needed:.0f} of {machine.total / GB:.0f} GB"
    fits = needed * GB <= 0.92 * machine.total
    why = "estimate" if fits else "estimate: this may not fit; choose a smaller model or batch"
    return Line("Memory", share, why, warning=not fits)


def memory(base: Base, machine: Machine, chosen: dict[str, Any]) -> float | None:
    """GB that training will need, roughly: weights count once, the rest grows with the batch; fp32 doubles it."""
    if base.starter:
        return STARTER_MEMORY
    if base.family not in MEMORY:
        return None
    at_one = MEMORY[base.family] * (1 if machine.kind == "cuda" else 2)
    return at_one * (1 + 0.35 * (chosen["optim.batch_size"] - 1))


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
    fitting = [
        b
        for b in bases
        if b.family in MEMORY and not b.starter and MEMORY[b.family] * GB <= 0.92 * machine.total
    ]
    if not fitting:
        return "starter", "No larger model that fits was found on this computer; you can get one below."
    best = max(fitting, key=lambda base: SIDES[base.family or ""])
    return best.source, f"It is on this computer and fits {machine.name}."


def suggest_trigger(project: str) -> str:
    """A word that no model knows yet: the project's name with an ending. `"My Cat" -> "mycat_lx"`."""
    letters = re.sub(r"[\W_]+", "", project.lower())
    return f"{letters[:16] or 'my'}_lx"
