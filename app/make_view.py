"""What the Make page shows of a project, its plan and a download."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lora_sd.kohya.notes import HEADINGS

from . import form, models, plan, view
from .importing import Found
from .project import Project
from .sheet import Sheet
from .uploads import Skipped, thumbnail
from .view import Node, node

MOST_THUMBNAILS = 48
SKIPPED = "These can't be used and are left out; training goes on without them:"


def draw_summary(facts: Sheet) -> Node:
    rows = [
        node(
            "div",
            node("dt", line.what),
            node("dd", node("b", line.value), node("span", line.why, cls="why")),
            cls="warning" if line.warning else None,
        )
        for line in facts.lines()
    ]
    return node("dl", *rows, cls="summary")


def draw_why_base(facts: Sheet) -> Node | None:
    proposed, why = plan.propose(models.bases(), facts.machine)
    return node("p", why, cls="quiet") if facts.base.source == proposed else None


def draw_changed(facts: Sheet) -> Node:
    changes = facts.choices.changes
    if not changes:
        return node(
            "p", "Everything is automatic. Change what you like; what you change stays changed.", cls="quiet"
        )
    titles = {setting.name: setting.field.title for setting in form.advanced()}
    items = [
        node("li", node("b", titles[name]), f" {_word(value)} instead of {_word(facts.automatic[name])}")
        for name, value in changes.items()
    ]
    return node("div", node("p", f"{len(changes)} changed by you:"), node("ul", *items), cls="changed")


def draw_imported(found: Found) -> Node:
    """What became of the settings of a file: those that need a look, and how many were taken over as they are."""
    parts: list[Node] = []
    for kind, heading in HEADINGS.items():
        notes = [note for note in found.notes if note.kind == kind]
        if notes and kind == "taken":
            parts.append(node("p", f"{heading}: {len(notes)}."))
        elif notes:
            items = (node("li", node("b", note.title), f": {note.words}") for note in notes)
            parts += [node("p", f"{heading}:"), node("ul", *items)]
    return node("div", *parts, cls="imported")


def _word(value: Any) -> str:
    if isinstance(value, list):
        return " · ".join(map(str, value)) or "nothing"
    if isinstance(value, dict):
        return " · ".join(f"{name} = {part}" for name, part in value.items()) or "nothing"
    if isinstance(value, bool):  # 1 is equal to True
        return "on" if value else "off"
    return {None: form.AUTOMATIC, "": "nothing"}.get(value, str(value))


def draw_pictures(project: Project) -> Node:
    found = project.pictures()
    skipped = project.skipped()
    if not found and not skipped:
        return node(
            "p",
            "15 to 30 varied pictures work well. Your own files stay as they are; copies are used.",
            cls="quiet",
        )
    return node(
        "div",
        draw_skipped(skipped),
        node("p", count(project, found), cls="count"),
        draw_strip(project, found),
    )


def count(project: Project, found: list[Path]) -> str:
    pictures = "1 picture" if len(found) == 1 else f"{len(found)} pictures"
    if off := list(project.repeats().values()).count(0):
        pictures += f", {off} of them turned off"
    captioned = project.captioned()
    if not captioned:
        return f"{pictures} · no captions: the trigger word will stand for all of them"
    return f"{pictures} · {captioned if captioned < len(found) else 'all'} with captions"


def draw_skipped(skipped: list[Skipped]) -> Node | None:
    if not skipped:
        return None
    return node(
        "div",
        node("p", node("b", f"{len(skipped)} left out. "), SKIPPED),
        node("ul", *(node("li", reason) for _, reason in skipped)),
        cls="skipped",
    )


def draw_strip(project: Project, found: list[Path]) -> Node:
    """The first pictures, small."""
    shown = found[:MOST_THUMBNAILS]
    with ThreadPoolExecutor(4) as pool:
        small = list(pool.map(lambda path: _thumbnail(path, project), shown))
    pictures = [
        node("img", src=view.url(thumb), alt=path.name, title=path.name, loading="lazy")
        for thumb, path in zip(small, shown, strict=True)
        if thumb
    ]
    more = (
        node("span", f"and {len(found) - len(shown)} more", cls="more") if len(found) > len(shown) else None
    )
    return node("div", *pictures, more, cls="strip", tabindex="0", role="group", aria_label="The pictures")


def _thumbnail(path: Path, project: Project) -> Path | None:
    """None of a picture that was damaged since it came; Images tells which."""
    with contextlib.suppress(ValueError, OSError):
        return thumbnail(path, project.thumbs)


def draw_download(state: models.Download) -> Node | None:
    if state.running:
        share = state.done / state.total if state.total else 0
        amount = (
            f"{state.done / models.GB:.1f} of {state.total / models.GB:.1f} GB"
            if state.total
            else "asking for its size"
        )
        return node("div", node("p", f"Downloading {state.name}: {amount}"), view.bar(share, "Download"))
    if state.error:
        return node("p", state.error, cls="obstacle")
    return node("p", f"{state.name} is here; choose it above.") if state.finished else None
