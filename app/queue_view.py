"""What the page shows of the line: who waits, in which order, and the buttons to change it."""

from pathlib import Path

from lora_sd import run
from lora_sd.queue import Place
from lora_sd.run import Run

from . import story, view, watch_view
from .view import Node, node


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
        node("h3", "Waiting"),
        node("p", "The next one begins by itself, also with this page closed.", cls="quiet"),
        node("ol", *rows, cls="runs line"),
        cls="card",
    )


def draw_place(place: Place, found: Run | None, number: int, count: int) -> Node:
    """`found` is the run, where it is one of our folder."""
    run_id = place.folder.name
    name, of = (found.name, f" · of {watch_view.when(found.started)}") if found else (run_id, "")
    buttons = [
        _button("↑", "up", f"Move {name} up", run_id) if number > 1 else None,
        _button("↓", "down", f"Move {name} down", run_id) if number < count else None,
        _button("Remove", "leave", f"Take {name} out of the line", run_id),
    ]
    return node(
        "li",
        node("span", watch_view.ordinal(number) if number > 1 else "next", cls="badge queued"),
        node("b", name),
        node("span", f"{wish(place)}{of}", cls="quiet"),
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
        return f"{int(place.options[place.options.index('--extend') + 1]):,} steps more"
    if state.step:
        return f"from {state.place}"
    return f"{state.total:,} steps" if state.total else "as long as its epochs are"


def where(folder: Path, line: list[Place]) -> int:
    """The place in line of a run, 1 for the next; 0 where it does not wait."""
    ids = [place.folder.name for place in line]
    return ids.index(folder.name) + 1 if folder.name in ids else 0
