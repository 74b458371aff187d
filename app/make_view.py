"""What the Make page shows of a project, its plan and a download."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio as gr

from lora_sd.kohya.notes import Kind

from . import form, models, plan, view
from .capacity import GB, Machine, Needed
from .importing import Found
from .project import Project
from .sheet import Sheet
from .uploads import Skipped, thumbnail
from .view import STATIC, Node, node
from .words import say

MOST_THUMBNAILS = 48


def draw_summary(facts: Sheet) -> Node:
    """The plan: each line with its reason, and the way to what decides it."""
    return node("dl", *(draw_line(line, facts) for line in facts.lines()), cls="summary")


def draw_line(line: plan.Line, facts: Sheet) -> Node:
    bar = draw_memory(facts) if line.leads == plan.MEMORY else None
    return node(
        "div",
        node("dt", line.what),
        node("dd", node("b", line.value), node("span", line.why, cls="why"), bar),
        draw_change(line),
        cls="warning" if line.warning else None,
    )


def draw_change(line: plan.Line) -> Node | None:
    """A button that leads to the controls that decide a line (static/lead.js)."""
    if not line.leads:
        return None
    label = say("Change: {what}", what=line.what)
    leads = " ".join(line.leads)
    button = node("button", say("Change"), type="button", cls="lead", data_lead=leads, aria_label=label)
    return node("dd", button, cls="change")


def draw_memory(facts: Sheet) -> Node | None:
    """The predicted peak beside what other programs hold, as a bar of all the memory, and what it is made of."""
    needed, machine = facts.memory(), facts.machine
    if needed is None:
        return None
    others = machine.others or 0
    free = machine.total - needed.size - others
    whole = max(machine.total, needed.size + others)
    words = [say("{size} GB this training", size=gigabytes(needed.size))]
    if machine.others is not None:
        words.append(say("{size} GB other programs", size=gigabytes(others)))
    left = (
        say("{size} GB free", size=gigabytes(free))
        if free >= 0
        else say("{size} GB too much", size=gigabytes(-free))
    )
    told = " · ".join([*words, left])
    parts = [
        node("span", cls="mine", style=f"width: {needed.size / whole:.1%}"),
        node("span", cls="others", style=f"width: {others / whole:.1%}"),
    ]
    cls = "room tight" if free < 0 else "room"
    return node(
        "div",
        node("div", *parts, cls=cls, role="img", aria_label=told),
        node("p", told, cls="quiet"),
        draw_why_memory(needed, machine),
        cls="memory",
    )


def draw_why_memory(needed: Needed, machine: Machine) -> Node:
    items, source = [], say("About what the starter took where it was measured.")
    if needed.parts:
        source = say(
            "An estimate: counted from the model's layers, with a share on top that five published measurements gave. "
            "The real peak shows on Watch after the first steps."
        )
        weights, learning, kept, workspace = map(gigabytes, needed.parts)
        items = [
            say("{size} GB weights of the base model", size=weights),
            say("{size} GB the LoRA, its gradients and the optimizer's memory", size=learning),
            say("{size} GB kept by each step to learn from", size=kept),
            say("{size} GB room that the libraries work in", size=workspace),
        ]
    if machine.others is None:
        others = say(
            "What other programs hold is not known while a training or a picture of ours is on its way."
        )
    else:
        others = say("Other programs hold {size} GB right now.", size=gigabytes(machine.others))
    return node(
        "details",
        node("summary", say("Why?"), aria_label=say("Why so much memory?")),
        node("p", source),
        node("ul", *(node("li", item) for item in items)) if items else None,
        draw_ladder(needed) if needed.ladder else None,
        node("p", others),
    )


def draw_ladder(needed: Needed) -> Node:
    """What each way to save memory would take; the one that is chosen is marked."""
    rows = []
    for rung, size in needed.ladder:
        taken = say("taken") if rung == needed.rung else ""
        cells = [
            node("td", f"{rung.name}"),
            node("td", say("{size} GB", size=gigabytes(size))),
            node("td", taken),
        ]
        rows.append(node("tr", *cells, cls="taken" if taken else None))
    return node("table", node("caption", say("Ways to save memory, the fastest first")), node("tbody", *rows))


def gigabytes(size: float) -> str:
    return f"{size / GB:.1f}"


def draw_changed(facts: Sheet) -> Node:
    changes = facts.choices.changes
    if not changes:
        told = say("Everything is automatic. Change what you like; what you change stays changed.")
        return node("p", told, cls="quiet")
    count = len(changes)
    heading = say("1 changed by you:") if count == 1 else say("{count} changed by you:", count=count)
    items = [draw_change_of(name, value, facts.automatic[name]) for name, value in changes.items()]
    return node("div", node("p", heading), node("ul", *items), cls="changed")


def draw_change_of(name: str, value: Any, automatic: Any) -> Node:
    """One changed setting, and the way back. What marks its control reads the name (static/settings.js)."""
    title = form.titles()[name]
    told = say("{value} instead of {automatic}", value=_word(value), automatic=_word(automatic))
    back = say("Back to automatic: {setting}", setting=title)
    return node(
        "li",
        node("b", title),
        node("span", f" {told} "),
        node(
            "button",
            "↺",
            type="button",
            cls="act back",
            data_act="reset",
            data_name=name,
            aria_label=back,
            title=back,
        ),
        data_changed=name,
    )


def search() -> gr.HTML:
    """The field that finds a setting, and the way to see the changed ones only (static/settings.js)."""
    return gr.HTML(
        value=search_words(),
        html_template=(STATIC / "settings.html").read_text(encoding="utf-8"),
        js_on_load=(STATIC / "settings.js").read_text(encoding="utf-8"),
        elem_id="search-part",
        apply_default_css=False,
    )


def search_words() -> dict[str, Any]:
    """What the search says, and by what names settings may be looked for, ours and those of sd-scripts."""
    texts = {
        "search": say("Find a setting"),
        "hint": say("a word of it, its value, or its name in sd-scripts"),
        "only": say("Changed ones only"),
        "one": say("1 setting fits"),
        "many": say("{n} settings fit"),
        "none": say("No setting fits; write less of the word, or another one."),
        "unchanged": say("Nothing is changed yet: everything is automatic."),
        "back": say("Back to automatic"),
    }
    return {"texts": texts, "names": form.other_names()}


def draw_imported(found: Found) -> Node:
    """What became of the settings of a file: those that need a look, and how many were taken over as they are."""
    headings: dict[Kind, str] = {
        "differs": say("Taken over, with a difference:"),
        "assumed": say("Not set there, so as it is there unless set:"),
        "ignored": say("Ignored:"),
        "unknown": say("Unknown, so ignored:"),
    }
    parts: list[Node] = []
    for kind, heading in headings.items():
        notes = [note for note in found.notes if note.kind == kind]
        items = (node("li", node("b", note.title), f": {note.words}") for note in notes)
        parts += [node("p", heading), node("ul", *items)] if notes else []
    if taken := sum(note.kind == "taken" for note in found.notes):
        parts.append(node("p", say("Taken over: {n}.", n=taken)))
    return node("div", *parts, cls="imported")


def _word(value: Any) -> str:
    if isinstance(value, list):
        return " · ".join(map(str, value)) or say("nothing")
    if isinstance(value, dict):
        return " · ".join(f"{name} = {part}" for name, part in value.items()) or say("nothing")
    if isinstance(value, bool):  # 1 is equal to True
        return say("on") if value else say("off")
    return {None: say("automatic"), "": say("nothing")}.get(value, str(value))


def draw_pictures(project: Project) -> Node:
    found = project.pictures()
    skipped = project.skipped()
    if not found and not skipped:
        return node(
            "p",
            say("15 to 30 varied pictures work well. Your own files stay as they are; copies are used."),
            cls="quiet",
        )
    return node(
        "div",
        draw_skipped(skipped),
        node("p", count(project, found), cls="count"),
        draw_strip(project, found),
    )


def count(project: Project, found: list[Path]) -> str:
    total, captioned = len(found), project.captioned()
    pictures = say("1 picture") if total == 1 else say("{n} pictures", n=total)
    if off := list(project.repeats().values()).count(0):
        pictures = say("{pictures}, {n} of them turned off", pictures=pictures, n=off)
    if not captioned:
        captions = say("no captions: the trigger word will stand for all of them")
    elif captioned < total:
        captions = say("{n} with captions", n=captioned)
    else:
        captions = say("all with captions")
    return f"{pictures} · {captions}"


def draw_skipped(skipped: list[Skipped]) -> Node | None:
    if not skipped:
        return None
    told = say("These can't be used and are left out; training goes on without them:")
    return node(
        "div",
        node("p", node("b", say("{n} left out.", n=len(skipped)), " "), told),
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
        node("span", say("and {n} more", n=len(found) - len(shown)), cls="more")
        if len(found) > len(shown)
        else None
    )
    return node(
        "div", *pictures, more, cls="strip", tabindex="0", role="group", aria_label=say("The pictures")
    )


def _thumbnail(path: Path, project: Project) -> Path | None:
    """None of a picture that was damaged since it came; Images tells which."""
    with contextlib.suppress(ValueError, OSError):
        return thumbnail(path, project.thumbs)


def draw_download(state: models.Download) -> Node | None:
    if state.running:
        share = state.done / state.total if state.total else 0
        amount = (
            say("{done} of {total} GB", done=gigabytes(state.done), total=gigabytes(state.total))
            if state.total
            else say("asking for its size")
        )
        told = say("Downloading {name}: {amount}", name=state.name, amount=amount)
        return node("div", node("p", told), view.bar(share, say("Download")))
    if state.error:
        return node("p", state.error, cls="obstacle")
    told = say("{name} is here; choose it above.", name=state.name)
    return node("p", told) if state.finished else None
