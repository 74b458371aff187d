"""Learning rates that are out of the usual, each with a sentence that says what to change. Notes, never obstacles.

What counts is how fast the update ΔW = scale · B·A can move: learning rate × scale × LoRA+ ratio, where the scale is
alpha / rank, or alpha / √rank (rsLoRA).
"""

import math
from typing import NamedTuple

from .settings import LoraSettings, OptimSettings

STARTER = 10.0  # times faster than larger models: it is small, and so are its steps


class Usual(NamedTuple):
    """The usual range of learning rate × scale with an optimizer, on models of full size; and what is to know of it."""

    low: float
    high: float
    known: str = ""


# From 1e-4 at alpha = rank / 16 to 5e-4 at twice alpha = rank, with room on both sides.
ADAMW = Usual(6e-6, 1e-3)
USUAL = {
    "AdamW": ADAMW,
    "AdamW8bit": ADAMW,
    "Adafactor": ADAMW,
    "Lion": Usual(6e-7, 2e-4, "Lion takes rates 3 to 10 times lower than AdamW"),
    "AdamWScheduleFree": Usual(6e-6, 5e-3, "Schedule-Free takes rates up to 10 times higher than AdamW"),
}
FINDS_ITS_OWN = ("Prodigy", "DAdapt")  # optimizers whose learning rate is a factor on what they find


def notes(optim: OptimSettings, lora: LoraSettings, *, starter: bool) -> list[str]:
    """A sentence for each rate that is far from the usual; `starter`: whether the base is the built-in small model."""
    kind = optim.optimizer.rpartition(".")[2]
    if kind.startswith(FINDS_ITS_OWN):
        return _of_factor(kind, optim.learning_rate)
    found = [_of_speed(usual, optim, lora, starter)] if (usual := USUAL.get(optim.optimizer)) else []
    return [*filter(None, found), *_of_encoders(optim, lora)]


def _of_factor(kind: str, rate: float) -> list[str]:
    if 0.1 <= rate <= 5:
        return []
    return [
        f"{kind} finds the learning rate by itself and takes optim.learning_rate as a factor on it: "
        f"at {rate:g} it {'learns next to nothing' if rate < 1 else 'burns'}; set it to 1."
    ]


def _of_speed(usual: Usual, optim: OptimSettings, lora: LoraSettings, starter: bool) -> str:
    faster = scale(lora) * lora.plus_ratio
    speed, high = optim.learning_rate * faster, usual.high * (STARTER if starter else 1.0)
    if usual.low <= speed <= high:
        return ""
    by = "alpha / √rank" if lora.rank_stabilized else "alpha / rank"
    told = f"optim.learning_rate × {by}" + (" × lora.plus_ratio" if lora.plus_ratio != 1 else "")
    what = "low, and may learn next to nothing" if speed < usual.low else "high, and may burn the LoRA"
    known = f" ({usual.known})" if usual.known and speed > high else ""
    better = math.sqrt(usual.low * usual.high) / faster
    remedy = f"set optim.learning_rate near {_round(better)}"
    if speed < usual.low and scale(lora) < 0.25:
        remedy = (
            f"set lora.alpha near {lora.rank / 2:g}" if not lora.rank_stabilized else "set lora.alpha near 4"
        )
    return f"{told} is {speed:.2g}, which is {what}{known}: {usual.low:g} to {high:g} is usual; {remedy}."


def _of_encoders(optim: OptimSettings, lora: LoraSettings) -> list[str]:
    highest = max(optim.text_encoder_rate, default=0.0)
    if not lora.text_encoders or highest <= optim.learning_rate:
        return []
    return [
        f"optim.text_encoder_rate is {highest:g}, more than optim.learning_rate, {optim.learning_rate:g}: text encoders "
        f"over-fit sooner than the U-Net; a fifth to a half of it is usual, such as {optim.learning_rate / 2:g}."
    ]


def scale(lora: LoraSettings) -> float:
    """The factor on the update of most layers."""
    alpha = lora.alpha or lora.rank / 2
    return alpha / (math.sqrt(lora.rank) if lora.rank_stabilized else lora.rank)


def _round(number: float) -> str:
    """To one digit: 0.000143 -> "1e-4"."""
    digit, _, power = f"{number:.0e}".partition("e")
    return f"{digit}e{int(power)}"


def warmup_note(warmup: int, total: int) -> str:
    """What is wrong with a warm-up of so many steps in a run of `total`, or nothing."""
    if not warmup or warmup < total:
        return ""
    return (
        f"optim.warmup is {warmup:,} steps and the run has {total:,}: the learning rate never gets to what is set; "
        "a twentieth of the run is usual, 5%."
    )
