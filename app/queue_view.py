"""What the page shows of the line: who waits, in which order, and the buttons to change it."""

from pathlib import Path

from lora_sd import run
from lora_sd.queue import Place
from lora_sd.run import Run

from . import story, view, watch_view
from .view import Node, node
from .words import say


def draw(line: list[Place]) -> Node | None:
    """The card of the runs that wait; nothing where none does."""
    if not line:
        return None
    known = {found.folder.name: found for found in story.runs()}
    rows = [
        draw_place(place, known.get(place.folder.name), number, len(line))
        for number, place in enumerate(line, 1)
    ]
    return node(
        "section",
        node("h3", say("Waiting")),
        node("p", say("The next one begins by itself, also with this page closed."), cls="quiet"),
        node("ol", *rows, cls="runs line"),
        cls="card",
    )


def draw_place(place: Place, found: Run | None, number: int, count: int) -> Node:
    """`found` is the run, where it is one of our folder."""
    run_id = place.folder.name
    name = found.name if found else run_id
    facts = [wish(place), *([watch_view.when(found.started)] if found else [])]
    buttons = [
        _button("↑", "up", say("Move {name} up", name=name), run_id) if number > 1 else None,
        _button("↓", "down", say("Move {name} down", name=name), run_id) if number < count else None,
        _button(say("Remove"), "leave", say("Take {name} out of the line", name=name), run_id),
    ]
    return node(
        "li",
        node("span", say("number {place}", place=number) if number > 1 else say("next"), cls="badge queued"),
        node("b", name),
        node("span", " · ".join(facts), cls="quiet"),
        node("span", *buttons, cls="actions"),
    )


def _button(text: str, act: str, label: str, run_id: str) -> Node:
    button = view.button(text, act, run=run_id)
    button["attributes"] |= {"aria-label": label, "title": label}
    return button


def wish(place: Place) -> str:
    """What is to be done with a waiting run."""
    state = run.read_state(place.folder)
    if "--extend" in place.options:
        more = int(place.options[place.options.index("--extend") + 1])
        return say("{number} steps more", number=f"{more:,}")
    if state.step:
        return say("from {place}", place=story.place(state))
    return (
        say("{number} steps", number=f"{state.total:,}") if state.total else say("as long as its epochs are")
    )


def where(folder: Path, line: list[Place]) -> int:
    """The place in line of a run, 1 for the next; 0 where it does not wait."""
    ids = [place.folder.name for place in line]
    return ids.index(folder.name) + 1 if folder.name in ids else 0
