"""The status bar on top of every page: what the machine is doing, how far it is, and a way to stop it."""

from lora_sd import hardware
from lora_sd.run import Run

from . import story, view
from .story import Story, duration
from .view import Node, node
from .words import say

GB = 2**30


def component() -> "view.gr.HTML":
    return view.component("bar")


def draw(current: Story | None, waiting: int = 0) -> Node:
    """The bar while `current` runs, or at rest; `waiting` runs stand in line."""
    more = " · " + say("{number} waiting", number=waiting) if waiting else ""
    if current is None:
        return node(
            "div",
            dot("ready"),
            node("span", say("Ready"), cls="state"),
            node("span", f"{machine()}{more}", cls="quiet"),
            cls="bar",
        )
    state = current.state
    share = state.step / state.total if state.total else 0
    return node(
        "div",
        dot("active"),
        node("span", f"{title(current)} · {phase(current)}", cls="state"),
        view.bar(share, say("Progress of the training")),
        node("span", f"{facts(current)}{more}", cls="quiet"),
        view.button(say("Watch"), "watch", run=current.folder.name),
        view.button(say("Stop and save"), "stop", run=current.folder.name),
        cls="bar",
    )


def signal(current: Story | None, runs: list[Run]) -> dict[str, str]:
    """What the browser's tab is called, and by which a run that ended is noticed: {"run", "title", "ended", "end"}.

    `run` is that of the training with its `title`; `ended` the run that came to its end last, `end` how it did.
    """
    over = [found for found in runs if found.state.status in ENDS]
    last = max(over, key=lambda found: found.state.t, default=None)
    found = {
        "run": "",
        "title": "",
        "ended": last.folder.name if last else "",
        "end": end(last) if last else "",
    }
    if current is None:
        return found
    share = current.state.step / current.state.total if current.state.total else 0
    return found | {"run": current.folder.name, "title": f"{share * 100:.0f} % · {title(current)}"}


ENDS = ("finished", "stopped", "paused", "failed", "interrupted")


def end(last: Run) -> str:
    """`"✓ mycat finished"`"""
    match last.state.status:
        case "finished":
            return say("✓ {name} finished", name=last.name)
        case "stopped" | "paused":
            return say("✓ {name} stopped", name=last.name)
    return say("✕ {name} failed", name=last.name)


def dot(kind: str) -> Node:
    return node("span", cls=f"dot {kind}", aria_hidden="true")


def title(current: Story) -> str:
    return next((run.name for run in story.runs() if run.folder == current.folder), current.folder.name)


def phase(current: Story) -> str:
    """Where a run is: `"step 40 of 100"`, or what it prepares."""
    state = current.state
    if current.stopping:
        return say("stopping and saving")
    if current.pausing:
        return say("pausing")
    if state.status == "training" and state.step:
        return story.place(state)
    return state.phase or state.status


def facts(current: Story) -> str:
    """Time left and memory, as far as they are known."""
    left = current.seconds_left
    parts = [say("{time} left", time=duration(left)) if left is not None else say("measuring speed")]
    if current.memory:
        parts.append(say("{size} GB in use", size=f"{current.memory / GB:.1f}"))
    return " · ".join(parts)


def machine() -> str:
    """The graphics card in a few words, or that there is none."""
    best = hardware.best()
    if best.kind == "cpu":
        return say(
            "No graphics card found: the built-in starter model trains in minutes, larger ones take hours"
        )
    return f"{best.name} · {best.total / GB:.0f} GB"
