"""The status bar on top of every page: what the machine is doing, how far it is, and a way to stop it."""

from lora_sd import hardware

from . import story, view
from .story import Story, duration
from .view import Node, node

GB = 2**30


def component() -> "view.gr.HTML":
    return view.component("bar")


def draw(current: Story | None, waiting: int = 0) -> Node:
    """The bar while `current` runs, or at rest; `waiting` runs stand in line."""
    more = f" · {waiting} waiting" if waiting else ""
    if current is None:
        return node(
            "div",
            dot("ready"),
            node("span", "Ready", cls="state"),
            node("span", f"{machine()}{more}", cls="quiet"),
            cls="bar",
        )
    state = current.state
    share = state.step / state.total if state.total else 0
    return node(
        "div",
        dot("active"),
        node("span", f"{title(current)} · {phase(current)}", cls="state"),
        view.bar(share, "Progress of the training"),
        node("span", f"{facts(current)}{more}", cls="quiet"),
        view.button("Watch", "watch", run=current.folder.name),
        view.button("Stop and save", "stop", run=current.folder.name),
        cls="bar",
    )


def dot(kind: str) -> Node:
    return node("span", cls=f"dot {kind}", aria_hidden="true")


def title(current: Story) -> str:
    return next((run.name for run in story.runs() if run.folder == current.folder), current.folder.name)


def phase(current: Story) -> str:
    """Where a run is: `"step 40 of 100"`, or what it prepares."""
    state = current.state
    if current.stopping:
        return "stopping and saving"
    if current.pausing:
        return "pausing"
    if state.status == "training" and state.step:
        return state.place
    return state.phase or state.status


def facts(current: Story) -> str:
    """Time left and memory, as far as they are known."""
    left = current.seconds_left
    parts = [f"{duration(left)} left" if left is not None else "measuring speed"]
    if current.memory:
        parts.append(f"{current.memory / GB:.1f} GB in use")
    return " · ".join(parts)


def machine() -> str:
    """The graphics card in a few words, or that there is none."""
    best = hardware.best()
    if best.kind == "cpu":
        return "No graphics card found: the built-in starter model trains in minutes, larger ones take hours"
    return f"{best.name} · {best.total / GB:.0f} GB"
