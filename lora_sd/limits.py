"""Between which numbers a picture can be drawn; the page asks here, too, so nothing of torch is needed."""

from collections.abc import Iterable

LIMITS = {
    "steps": (1, 1000),
    "guidance": (0, 100),
    "seed": (0, 2**63 - 1),
    "strength of a LoRA": (-100, 100),
    "rescale": (0, 1),
}


def check(numbers: Iterable[tuple[str, float]]) -> None:
    """ValueError for the first of (name, value) that is outside its limits."""
    for name, value in numbers:
        least, most = LIMITS[name]
        if not least <= value <= most:  # nor is NaN
            raise ValueError(f"The {name} is {value}; it must be {least} to {most:,}.")
