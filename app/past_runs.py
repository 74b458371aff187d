"""The list of all runs: a picture, how each ended, and what can be done with it; also deleting one."""

import shutil
import time
from pathlib import Path

from lora_sd import discard
from lora_sd.run import Run

from . import places, story, view, watch_view
from .uploads import thumbnail
from .view import Node, node
from .words import say

MOST_RUNS = 200  # in the list; the menu on top has them all
MANY = 8  # runs, for which a field to search is worth its place
SMALL = 256  # pixels of a picture, as in the table of previews
PATIENCE = 0.15  # seconds for pictures that have to be made small first; the others come with the next look
RESUMABLE = ("interrupted", "stopped", "failed", "paused")
MB = 2**20


def draw(runs: list[Run]) -> Node:
    if not runs:
        return node("p", say("No runs yet."), cls="quiet")
    until = time.monotonic() + PATIENCE
    shown = runs[:MOST_RUNS]
    older = len(runs) - len(shown)
    return node(
        "div",
        draw_search() if len(runs) > MANY else None,
        node("ul", *(draw_run(found, until) for found in shown), cls="runs"),
        node("p", say("Nothing has that in its name."), cls="quiet none", hidden=""),
        node("p", say("{number} older ones are in the menu at the top.", number=older), cls="quiet")
        if older
        else None,
    )


def draw_search() -> Node:
    label = say("Search the runs: part of a name, a date, or how it ended")
    return node("input", type="search", data_search="", placeholder=say("Search"), aria_label=label)


def draw_run(found: Run, until: float) -> Node:
    """`until`: when there is no more time to make pictures small."""
    name, state = found.folder.name, found.state
    buttons = [_button(say("Open"), "watch", found)]
    if state.status in RESUMABLE:
        buttons.append(_button(say("Resume") if state.step else say("Start"), "resume", found))
    if story.checkpoints(found.folder):
        buttons.append(_button(say("Try it"), "try", found))
    buttons.append(_button(say("Use these settings"), "reuse", found, event="reuse"))
    deletable = not state.active and state.status != "queued"
    # of a run that is on only what stays is told, or the list would be new at each step
    facts = [watch_view.when(found.started), "" if state.active else story.place(state)]
    return node(
        "li",
        draw_picture(found, until),
        node(
            "div",
            node("b", found.name),
            node("span", watch_view.word(state), cls=f"badge {state.status}"),
            node("span", " · ".join(filter(None, facts)), cls="quiet"),
            cls="what",
        ),
        node("span", *buttons, draw_delete(found) if deletable else None, cls="actions"),
        data_key=name,
    )


def _button(text: str, act: str, found: Run, **more: str) -> Node:
    """Its label names the run, for those who hear the buttons of many."""
    button = view.button(text, act, run=found.folder.name, **more)
    button["attributes"] |= {"aria-label": f"{text}: {found.name}, {watch_view.when(found.started)}"}
    return button


def draw_delete(found: Run) -> Node:
    """Asks in place, and says what goes."""
    size = say("{size} MB", size=f"{_size(found) / MB:,.1f}")
    what = say(
        "Its LoRA files, pictures, saved state, log and settings are deleted for good: {size}. Copies elsewhere and the project's pictures stay.",
        size=size,
    )
    return node(
        "details",
        node("summary", say("Delete …"), aria_label=say("Delete {name} …", name=found.name)),
        node("span", what),
        _button(say("Delete for good"), "delete", found, cls="danger"),
        cls="delete",
    )


_sizes: dict[Path, tuple[int, int]] = {}  # run -> (when its state was written, bytes)


def _size(found: Run) -> int:
    stamp = story.stamp(found.folder)
    known, size = _sizes.get(found.folder, (-1, 0))
    if stamp != known:
        size = discard.size(found.folder)
        _sizes[found.folder] = stamp, size
    return size


def draw_picture(found: Run, until: float) -> Node:
    """The newest preview, or an empty place."""
    picture = story.newest_preview(found.folder)
    small = _small(found, picture, until) if picture else None
    if small is None:
        return node("span", cls="nothing", aria_hidden="true")
    return node("img", src=view.url(small), alt="", loading="lazy")


def _small(found: Run, picture: Path, until: float) -> Path | None:
    try:
        return thumbnail(picture, thumbs(found.folder), SMALL, make=time.monotonic() < until)
    except (OSError, ValueError):  # gone, or damaged
        return None


def thumbs(folder: Path) -> Path:
    return places.thumbs() / "runs" / folder.name


def delete(folder: Path) -> None:
    """Delete a run and what the page keeps of it. Raises ValueError for one that is on or waits."""
    discard.delete(folder)
    shutil.rmtree(thumbs(folder), ignore_errors=True)
    story.forget(folder)
    _sizes.pop(folder, None)
