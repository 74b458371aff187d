"""The charts of a run: loss, learning rate, seconds per step, memory; as rows of a chart and as words."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd

from lora_sd.events import Step

from . import story
from .story import Story
from .words import say

MOST_POINTS = 500  # in a chart
GB = 2**30
PALE, GREEN, AMBER = "#c9c4bd", "#4f7a6b", "#c9772f"
CHOICES = [("Loss", "loss"), ("Learning rate", "rate"), ("Speed", "speed"), ("Memory", "memory")]
COLUMNS = ["step", "value", "line"]


class Line(NamedTuple):
    """One line of a chart."""

    name: str
    colour: str
    points: list[tuple[int, float]]


def chart(told: Story, shown: str = "loss") -> dict[str, Any]:
    """What the chart component is changed to."""
    lines = LINES.get(shown, loss_lines)(told)
    rows = [(step, value, line.name) for line in lines for step, value in line.points]
    return {
        "value": pd.DataFrame(rows, columns=COLUMNS),
        "color_map": {line.name: line.colour for line in lines},
        "x_lim": [0, max(1, told.state.total)],
        "y_title": y_title(shown),
    }


def y_title(shown: str) -> str:
    match shown:
        case "rate":
            return say("learning rate")
        case "speed":
            return say("seconds per step")
        case "memory":
            return say("GB of memory")
    return say("loss")


def loss_lines(told: Story) -> list[Line]:
    """Of each step, smoothed, and held-out; at most MOST_POINTS together."""
    held_out = _measured(told, lambda step: step.held_out)
    held_out = [held_out[i] for i in story.thin(len(held_out), MOST_POINTS // 5)]
    each, smoothed = _two(_measured(told, lambda step: step.loss), MOST_POINTS - len(held_out))
    return [*_named(each, smoothed), Line(say("held-out"), AMBER, held_out)]


def rate_lines(told: Story) -> list[Line]:
    rates = _measured(told, lambda step: step.learning_rate)
    return [Line(say("learning rate"), GREEN, [rates[i] for i in story.thin(len(rates), MOST_POINTS)])]


def speed_lines(told: Story) -> list[Line]:
    return _named(*_two(_measured(told, lambda step: step.seconds), MOST_POINTS))


def memory_lines(told: Story) -> list[Line]:
    sizes = _measured(told, lambda step: step.memory / GB if step.memory else None)
    return [Line(say("memory"), GREEN, [sizes[i] for i in story.thin(len(sizes), MOST_POINTS)])]


LINES: dict[str, Callable[[Story], list[Line]]] = {
    "loss": loss_lines,
    "rate": rate_lines,
    "speed": speed_lines,
    "memory": memory_lines,
}


def _measured(told: Story, of: Callable[[Step], float | None]) -> list[tuple[int, float]]:
    return [(step.step, value) for step in told.steps if (value := of(step)) is not None]


def _two(
    points: list[tuple[int, float]], most: int
) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """The points, and them smoothed; both thinned to `most` together."""
    smoothed = story.smooth([value for _, value in points])
    kept = story.thin(len(points), most // 2)
    return [points[i] for i in kept], [(points[i][0], smoothed[i]) for i in kept]


def _named(each: list[tuple[int, float]], smoothed: list[tuple[int, float]]) -> list[Line]:
    return [Line(say("each step"), PALE, each), Line(say("smoothed"), GREEN, smoothed)]


def words(told: Story) -> list[str]:
    """The numbers of all charts as sentences, for those who can't see them."""
    return [said for said in (_loss(told), _held_out(told), _rate(told), _cost(told)) if said]


def _loss(told: Story) -> str:
    smoothed = story.smooth([loss for _, loss in _measured(told, lambda step: step.loss)])
    if not smoothed:
        return ""
    now, before = smoothed[-1], smoothed[-1 - len(smoothed) // 3]
    loss = f"{now:.3f}"
    if now < 0.97 * before:
        return say("Loss {loss}, falling.", loss=loss)
    return say("Loss {loss}, rising.", loss=loss) if now > 1.03 * before else say("Loss {loss}.", loss=loss)


def _held_out(told: Story) -> str:
    values = [value for _, value in _measured(told, lambda step: step.held_out)]
    if len(values) < 2 or not values[0]:
        return ""
    change = values[-1] / values[0] - 1
    facts = {"loss": f"{values[-1]:.4f}", "share": f"{abs(change):.0%}"}
    if change < 0:
        return say("Held-out loss {loss}, {share} lower than at the start.", **facts)
    return say("Held-out loss {loss}, {share} higher than at the start.", **facts)


def _rate(told: Story) -> str:
    rates = _measured(told, lambda step: step.learning_rate)
    return say("Learning rate {rate}.", rate=f"{rates[-1][1]:.3g}") if rates else ""


def _cost(told: Story) -> str:
    each = told.seconds_per_step
    if not each:
        return ""
    facts = {"seconds": f"{each:.2g}", "size": f"{(told.memory or 0) / GB:.1f}"}
    if not told.memory:
        return say("{seconds} s per step.", **facts)
    return say("{seconds} s per step, {size} GB of memory.", **facts)
