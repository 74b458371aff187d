"""What the page proposes for a set of pictures, and why: each number comes with the sentence that explains it.

The figures are rules of thumb; memory is predicted from the settings and the machine (capacity.py), time from runs that
were made (pace.py).
"""

import re
from typing import Any, Literal, NamedTuple

from lora_sd import config
from lora_sd.footprint import Rung

from .capacity import GB, SIDES, Base, Machine, memory, usable
from .epoch import Length
from .pace import Estimate
from .story import duration
from .words import say

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
BUCKET_STEPS = {"sdxl": 32}  # pixels, as in lora_sd.models.family, which needs torch; the others have 64
LENGTHS = ("optim.steps", "optim.epochs", "optim.images_seen")
MEMORY = ("machine.memory", "optim.batch_size", "data.resolution")


class Line(NamedTuple):
    """One sentence of the plan: what, how much, and why; and which controls decide it, the first one most."""

    what: str
    value: str
    why: str
    warning: bool = False
    leads: tuple[str, ...] = ()  # settings by dotted name, and "base", "kind", "quality", "files", "trigger"


class Captions(NamedTuple):
    """Words that go with the pictures."""

    pictures: int
    captioned: int
    trigger: str


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
    *,
    why_base: str = "",
    captions: Captions | None = None,
    time: Estimate | None = None,
) -> list[Line]:
    """The plan in sentences; `chosen` are the settings that will be used, a person's changes included.

    `length` is what these settings come to with the pictures, where that could be counted.
    """
    told = [
        _pictures(pictures),
        _captions(captions) if captions and pictures else None,
        _base(base, why_base),
        _quality(quality),
        _length(quality, base, pictures, chosen, length),
        _time(machine, time) if pictures else None,
        _size(base, chosen),
        _strength_of_learning(kind, base, chosen),
        _memory(base, machine, chosen),
        _where(base, machine),
    ]
    return [line for line in told if line]


def _pictures(count: int) -> Line:
    what, leads = say("Pictures"), ("files",)
    if count == 0:
        return Line(what, say("none yet"), say("15 to 30 varied ones work well"), leads=leads)
    if count == 1:
        why = say("the result will soon only repeat it: compare early files; 15 to 30 varied ones do better")
        return Line(what, "1", why, warning=True, leads=leads)
    if count < FEW_PICTURES:
        why = say("few: the result may repeat them; 15 to 30 varied ones do better")
        return Line(what, str(count), why, warning=True, leads=leads)
    return Line(what, str(count), say("enough to learn from; variety matters more than number"), leads=leads)


def _captions(captions: Captions) -> Line:
    what, leads = say("Captions"), ("trigger", "captions.prefix", "captions.dropout")
    trigger, count = captions.trigger.strip(), captions.captioned
    if not count and not trigger:
        why = say("no captions and no trigger word: it learns without words, and will show in every picture")
        return Line(what, say("no captions"), why, warning=True, leads=leads)
    if not count:
        why = say("no captions: the trigger word stands for all that the pictures show")
        return Line(what, trigger, why, leads=leads)
    value = say("all") if count >= captions.pictures else say("{n} of {all}", n=count, all=captions.pictures)
    if trigger:
        why = say("yours, with the trigger word {trigger} in front where it is missing", trigger=trigger)
    else:
        why = say("yours, as they are; there is no trigger word")
    return Line(what, value, why, leads=leads)


def _base(base: Base, why: str) -> Line:
    title = say("Starter model") if base.source == "starter" else base.title
    return Line(say("Model"), title, why or say("your choice"), leads=("base",))


def _quality(quality: Quality) -> Line:
    words = {
        "Quick": (say("Quick"), say("half the usual length, for a first look")),
        "Balanced": (say("Balanced"), say("the usual length")),
        "Best": (say("Best"), say("1.6 times the usual length; compare early files with late ones")),
    }
    return Line(say("Quality"), *words[quality], leads=("quality",))


def _length(
    quality: Quality, base: Base, pictures: int, chosen: dict[str, Any], length: Length | None
) -> Line:
    what = say("Length")
    proposed = settings("Subject", quality, base, pictures)["optim.steps"]
    steps = length.steps if length else chosen["optim.steps"]
    if steps is None:
        why = say("your choice; the steps show with the pictures")
        return Line(what, say("as its epochs are"), why, leads=LENGTHS)
    if steps != proposed:
        why = say("your choice; {proposed} were proposed", proposed=f"{proposed:,}")
    elif base.starter:
        why = say("the starter learns a style in about a hundred")
    elif quality == "Balanced":
        why = say("60 for each picture, between 600 and 2,500")
    elif quality == "Quick":
        why = say("30 for each picture, between 300 and 1,250")
    else:
        why = say("96 for each picture, between 960 and 4,000")
    if length:
        why = say("{why}; {counted}", why=why, counted=length.sentence)
    return Line(what, say("{steps} steps", steps=f"{steps:,}"), why, leads=LENGTHS)


def _time(machine: Machine, time: Estimate | None) -> Line:
    what, leads = say("Time"), ("quality", *LENGTHS)
    if time is None:
        unknown = say("no figure yet for such a run here; the time left shows after the first steps")
        return Line(what, say("not known yet"), unknown, leads=leads)
    value = say("about {time}", time=duration(time.total))
    step, others = f"{time.pace.seconds:.2g}", duration(time.pace.others)
    if time.known_from == "same":
        why = say(
            "{step} s a step and {others} for all else, as the last such run took here",
            step=step,
            others=others,
        )
    elif time.known_from == "like":
        why = say(
            "an estimate from a run here with another size or batch: {step} s a step, {others} for all else",
            step=step,
            others=others,
        )
    else:
        why = say(
            "an estimate from two other processor cores: {step} s a step; your own figure comes with the first run",
            step=step,
        )
    return Line(what, value, why, leads=leads)


def _size(base: Base, chosen: dict[str, Any]) -> Line:
    what, leads, side = say("Picture size"), ("data.resolution",), side_of(base, chosen)
    value = say("about {side} × {side}", side=side) if side else say("the model's own")
    if chosen["data.resolution"]:
        return Line(what, value, say("your choice; other shapes keep their shape"), leads=leads)
    return Line(what, value, say("what this model was made for; other shapes keep their shape"), leads=leads)


def unusual(note: str, chosen: dict[str, Any]) -> Line:
    """A learning rate that is far from the usual, by the note that says so."""
    rate = f"{chosen['optim.learning_rate']:g}"
    return Line(say("Learning rate"), rate, note, warning=True, leads=("optim.learning_rate", "lora.alpha"))


def side_of(base: Base, chosen: dict[str, Any]) -> int | None:
    """The resolution in pixels; None for a model of unknown family."""
    return chosen["data.resolution"] or base.side


def _strength_of_learning(kind: Kind, base: Base, chosen: dict[str, Any]) -> Line:
    what, leads = say("Room to learn"), ("lora.rank", "lora.alpha", "lora.targets")
    if chosen["lora.targets"] == "none" and chosen["embedding.tokens"]:
        value = say("{n} vectors", n=chosen["embedding.tokens"])
        return Line(what, value, say("the trigger word's; no layer learns"), leads=("embedding.tokens",))
    rank, proposed = chosen["lora.rank"], settings(kind, "Balanced", base, 20)["lora.rank"]
    value = say("rank {rank}", rank=rank)
    if rank != proposed:
        return Line(what, value, say("your choice; {rank} was proposed", rank=proposed), leads=leads)
    return Line(
        what,
        value,
        say("room for a style") if kind == "Style" else say("enough for one subject"),
        leads=leads,
    )


def _memory(base: Base, machine: Machine, chosen: dict[str, Any]) -> Line:
    what, needed = say("Memory"), memory(base, machine, chosen)
    if needed is None:
        why = say("the family of this model isn't known; it shows after the first steps")
        return Line(what, say("not known yet"), why, leads=MEMORY)
    value = say(
        "about {size} of {total} GB", size=f"{needed.size / GB:.1f}", total=f"{machine.total / GB:.0f}"
    )
    why = say("an estimate") if base.starter else saving(needed.rung)
    if needed.size <= usable(machine):
        return Line(what, value, why, leads=MEMORY)
    if machine.others and needed.size + machine.others > machine.total >= needed.size:
        remedy = say(
            "this may not fit beside other programs: close some, or choose a smaller batch, size or model"
        )
    else:
        remedy = say("this may not fit; choose a smaller batch, size or model")
    return Line(what, value, f"{why}; {remedy}", warning=True, leads=MEMORY)


def saving(rung: Rung) -> str:
    """How a run on that rung of the ladder saves memory."""
    words = {
        "fast": say("predicted, at full speed"),
        "low": say("predicted, with parts computed twice, about a third slower"),
        "lowest": say("predicted, with parts computed twice and the base in 8 bits"),
    }
    return words[rung.name]


def _where(base: Base, machine: Machine) -> Line:
    what, leads = say("Where"), ("machine.device",)
    if machine.kind == "cuda":
        return Line(what, machine.name, say("your graphics card"), leads=leads)
    if machine.kind == "mps":
        return Line(what, machine.name, say("Apple's graphics"), leads=leads)
    if base.starter:
        why = say("no NVIDIA card found; the starter is small enough: a few minutes")
        return Line(what, machine.name, why, leads=leads)
    why = say("no NVIDIA card found: training this model takes many hours, the starter a few minutes")
    return Line(what, machine.name, why, warning=True, leads=("base", *leads))


def propose(bases: list[Base], machine: Machine) -> tuple[str, str]:
    """The base model to begin with, and why."""
    if machine.kind == "cpu":
        return (
            "starter",
            say("no graphics card was found, and this small built-in one trains here in minutes"),
        )
    fitting = [base for base in bases if not base.starter and _fits(base, machine)]
    if not fitting:
        return "starter", say("no larger one that fits was found on this computer; you can get one below")
    best = max(fitting, key=lambda base: SIDES[base.family or ""])
    return best.source, say("it is on this computer and fits {card}", card=machine.name)


def _fits(base: Base, machine: Machine) -> bool:
    """Whether the automatic settings fit this machine; not in 8 bits, which is for those who choose the model."""
    defaults = {s.name: s.field.default for s in config.settings()}
    whole = machine._replace(free=None)  # other programs may be closed
    needed = memory(base, whole, {**defaults, **settings("Style", "Balanced", base, FEW_PICTURES)})
    return needed is not None and not needed.rung.packed and needed.size <= usable(whole)


def suggest_trigger(project: str) -> str:
    """A word that no model knows yet: the project's name with an ending. `"My Cat" -> "mycat_lx"`."""
    letters = re.sub(r"[\W_]+", "", project.lower())
    return f"{letters[:16] or 'my'}_lx"
