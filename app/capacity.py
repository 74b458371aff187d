"""How much of the machine's memory a run will take, what that is made of, and on which rung of the ladder it will train.

All of it is predicted: counted from the models' layers, with a share on top that was fitted to published peaks (lora_sd.footprint).
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from lora_sd import footprint
from lora_sd.footprint import FOOTPRINTS, RUNGS, Needs, Parts, Rung

GB = 2**30
SIDES = {"sd15": 512, "sd2": 768, "sdxl": 1024}  # pixels
STARTER_SIDE = 128
STARTER_MEMORY = 2 * GB  # bytes in fp32; an estimate
OTHERS = 0.08  # share of a machine's memory that the desktop and other programs hold, where it isn't known
DRIVER = GB // 2  # bytes of a card that the driver takes for every program


class Machine(NamedTuple):
    kind: Literal["cuda", "mps", "cpu"]
    name: str
    total: int  # bytes
    free: int | None = None  # bytes that other programs leave now; None where our own hold some of it

    @property
    def others(self) -> int | None:
        """Bytes that other programs hold."""
        return None if self.free is None else self.total - self.free


class Base(NamedTuple):
    source: str
    title: str
    family: str | None

    @property
    def starter(self) -> bool:
        return self.source == "starter"

    @property
    def side(self) -> int | None:
        """The resolution that it was made for, in pixels; None for a model of unknown family."""
        return STARTER_SIDE if self.starter else SIDES.get(self.family or "")


class Needed(NamedTuple):
    """How a run will save memory, and what it takes then."""

    rung: Rung
    size: int  # bytes
    parts: Parts | None = None  # of it; None for the starter, whose size was measured as a whole
    ladder: tuple[tuple[Rung, int], ...] = ()  # bytes on every rung, where the rung follows from them


def memory(base: Base, machine: Machine, chosen: Mapping[str, Any]) -> Needed | None:
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
    ladder = tuple((each, footprint.predict(needs, each)) for each in RUNGS) if on_card else ()
    return Needed(rung, footprint.predict(needs, rung), footprint.parts(needs, rung), ladder)


def _rung(wanted: str, machine: Machine, needs: Needs) -> Rung:
    """As training takes it: what is set, else what fits a card, else the fastest."""
    if wanted != "auto":
        return next(rung for rung in RUNGS if rung.name == wanted)
    return footprint.choose_rung(usable(machine), needs) if machine.kind == "cuda" else RUNGS[0]


def usable(machine: Machine) -> int:
    """Bytes of the machine's memory that a run can have."""
    left = round((1 - OTHERS) * machine.total) if machine.free is None else machine.free
    return max(0, left - (DRIVER if machine.kind == "cuda" else 0))
