"""Painting masks, a part of the page: a picture, a brush, and what was painted is what is learned of it.

Gradio's ImageEditor would decode whatever is sent to it, keep it in memory, and show a mask that is loaded again elsewhere
than it was painted (6.31); and no key paints in it. So static/mask.js is a canvas of our own over the picture.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import gradio as gr

from . import masks, view
from .project import Project, open_project
from .view import Node, node
from .words import say

ABOUT = """Paint over what is to be learned of a picture, and nothing else of it will be: a face without the room
behind it. Pictures without a mask are learned whole."""


class Part(NamedTuple):
    picture: gr.Dropdown
    editor: gr.HTML
    summary: gr.HTML

    def outputs(self) -> list[gr.components.Component]:
        return [self.picture, self.editor, self.summary]


Updates = dict[gr.components.Component, Any]


# -- what it shows ---------------------------------------------------------------------------------------------------


def opened(part: Part, project: Project, name: str | None = None) -> Updates:
    """The part for a project, on the picture `name` or the first one."""
    known = {picture.relative_to(project.images).as_posix() for picture in project.pictures()}
    chosen = name if name in known else next(iter(menu(project)), (None, None))[1]
    return shown(part, project, chosen) | {part.editor: canvas(project, chosen)}


def shown(part: Part, project: Project, name: str | None) -> Updates:
    """The menu and the count, which leave the canvas alone."""
    return {part.picture: gr.update(choices=menu(project), value=name), part.summary: draw_summary(project)}


def menu(project: Project) -> list[tuple[str, str]]:
    """(label, name) of every picture."""
    pictures = project.pictures()
    masked = {*masks.masked(project, pictures)}
    named = [(picture.relative_to(project.images).as_posix(), picture) for picture in pictures]
    return [
        (say("{name} · with a mask", name=name) if picture in masked else name, name)
        for name, picture in named
    ]


def draw_summary(project: Project) -> Node | None:
    pictures = project.pictures()
    masked, total = len(masks.masked(project, pictures)), len(pictures)
    if not masked:
        return None
    text = (
        say("1 of {total} pictures has a mask, and training uses it.", total=total)
        if masked == 1
        else say("{count} of {total} pictures have a mask, and training uses it.", count=masked, total=total)
    )
    return node("p", text, cls="quiet")


def canvas(project: Project, name: str | None, told: str = "", *, failed: bool = False) -> dict[str, Any]:
    """What static/mask.js shows: the picture with what is painted on it, and a sentence beside it."""
    value: dict[str, Any] = {
        "words": words(),
        "told": told,
        "failed": failed,
        "project": project.name,
        "picture": name,
    }
    try:
        if not name:
            return value
        picture = masks.picture_of(project, name)
        mask = masks.copy_of_mask(project, picture)
        width, height = masks.painting_size(picture)
        src = view.url(masks.copy_of_picture(project, picture))
    except (OSError, ValueError) as error:
        return value | {"picture": None, "told": str(error), "failed": True}
    return value | {"src": src, "mask": mask and view.url(mask), "width": width, "height": height}


def words() -> dict[str, str]:
    """All that static/mask.js says."""
    return {
        "empty": say("There are no pictures yet; add some on Make."),
        "canvas": say("What is learned of this picture"),
        "keys": say(
            "With the keyboard: arrow keys move the brush, the space bar paints, Ctrl+Z takes it back."
        ),
        "paint": say("Paint"),
        "erase": say("Erase"),
        "undo": say("Undo"),
        "redo": say("Redo"),
        "all": say("Paint all"),
        "none": say("Erase all"),
        "size": say("Brush size"),
        "save": say("Save mask"),
        "remove": say("Remove mask"),
        "unsaved": say("Not saved yet."),
    }


# -- handlers --------------------------------------------------------------------------------------------------------


def acted(part: Part, asked: Mapping[str, Any]) -> Updates:
    """What a button of the canvas asks for. Anyone who is logged in can ask anything."""
    act, name, painted = (asked.get(key) for key in ("act", "picture", "mask"))
    project = open_project(str(asked.get("project") or ""))
    try:
        match act, name, painted:
            case "save" | "keep", str(), str():
                masks.save(project, name, painted)
                told = say("Saved.")
            case "remove", str(), _:
                masks.remove(project, name)
                told = say("Removed; all of this picture is learned.")
            case _:
                return {}
    except (OSError, ValueError) as error:
        return {part.editor: canvas(project, name, str(error), failed=True)} if act != "keep" else {}
    kept = {part.summary: draw_summary(project)}  # of a picture that is not shown any more
    return kept if act == "keep" else shown(part, project, name) | {part.editor: canvas(project, name, told)}


# -- layout and wiring -----------------------------------------------------------------------------------------------


def build() -> Part:
    gr.Markdown(ABOUT, elem_classes="quiet")
    picture = gr.Dropdown([], label="Picture", elem_id="mask-picture")
    editor = gr.HTML(
        html_template='<div class="mask"></div>',
        js_on_load=(view.STATIC / "mask.js").read_text(encoding="utf-8"),
        elem_id="mask-editor",
        apply_default_css=False,
    )
    return Part(picture, editor, view.component("mask-summary"))


def wire(part: Part, project: gr.components.Component) -> gr.events.Dependency:
    """`project` holds the name of the project; what comes back happens whenever its masks have changed."""
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    project.change(lambda name: opened(part, open_project(name)), project, part.outputs(), **quiet)
    part.picture.input(
        lambda project, name: {part.editor: canvas(open_project(project), name)},
        [project, part.picture],
        part.editor,
        **quiet,
    )

    def act(event: gr.EventData) -> Any:
        return acted(part, event._data) or gr.skip()

    return part.editor.click(act, None, part.outputs(), **quiet)
