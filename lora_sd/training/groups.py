"""Which matrices learn at which rate: a factor on the learning rate for each, and groups of those that share one."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Group(NamedTuple):
    """Matrices of the vector that learn at one rate."""

    factor: float  # on the learning rate
    matrices: list[int]  # their places in the vector


def encoder_rates(parts: Sequence[str], rates: Sequence[float]) -> dict[str, float]:
    """The learning rate of each text encoder of the model's `parts`: one number is for all of them."""
    encoders = [part for part in parts if part.startswith("text_encoder")]
    if len(rates) > max(1, len(encoders)):
        raise ValueError(
            f"optim.text_encoder_rate has {len(rates)} numbers and the model has {len(encoders)} text encoders; "
            "give one number for all, or one each."
        )
    each = [*rates] * len(encoders) if len(rates) == 1 else [*rates]
    return dict(zip(encoders, each, strict=False))


def factors(layers: Sequence[str], learning_rate: float, rates: Mapping[str, float]) -> list[float]:
    """The factor of every matrix, given the name of its layer, where some parts have a learning rate of their own."""
    return [rates.get(layer.partition(".")[0], learning_rate) / learning_rate for layer in layers]


def grouped(factors: Sequence[float]) -> list[Group]:
    """Groups in the order of their first matrices.

    >>> grouped([1.0, 1.0, 0.5, 1.0])
    [Group(factor=1.0, matrices=[0, 1, 3]), Group(factor=0.5, matrices=[2])]
    """
    places: dict[float, list[int]] = {}
    for place, factor in enumerate(factors):
        places.setdefault(factor, []).append(place)
    return [Group(*item) for item in places.items()]
