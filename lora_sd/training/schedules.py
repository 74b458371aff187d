"""The learning rate as a plain function of the step: how it rises, goes on and falls."""

import functools
import math
from collections.abc import Callable

Schedule = Callable[[float], float]  # share of the way after the warm-up -> factor on the rate


def constant(progress: float) -> float:
    return 1.0


def linear(progress: float) -> float:
    return 1.0 - progress


def cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def cosine_with_restarts(progress: float, *, cycles: int) -> float:
    """Cosine `cycles` times, each from the top again (arXiv:1608.03983, with cycles of equal length)."""
    return cosine((progress * cycles) % 1.0) if progress < 1 else 0.0


def polynomial(progress: float, *, power: float) -> float:
    return (1.0 - progress) ** power


def rex(progress: float) -> float:
    """Reflected exponential (arXiv:2107.04197, equation 3): high for longer than linear, then faster down."""
    return (1.0 - progress) / (0.5 + 0.5 * (1.0 - progress))


SCHEDULES: dict[str, Callable[..., float]] = {
    f.__name__: f for f in (constant, linear, cosine, cosine_with_restarts, polynomial, rex)
}


def named(name: str, *, cycles: int = 1, power: float = 1.0) -> Schedule:
    """A schedule by its name, with what only some of them need."""
    options = {"cosine_with_restarts": {"cycles": cycles}, "polynomial": {"power": power}}
    return functools.partial(SCHEDULES[name], **options.get(name, {}))


def rate(schedule: Schedule, done: int, total: int, warmup: int) -> float:
    """The factor on the learning rate for the step after `done` of `total` steps; rises from 0 over `warmup` steps.

    The same numbers as diffusers' schedules, so a run can be compared with theirs.
    """
    if done < warmup:
        return done / warmup
    return schedule((done - warmup) / max(1, total - warmup))
