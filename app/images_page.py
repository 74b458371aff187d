"""Images: a project's pictures with their captions, what is odd about them, and which of them are used how often."""

import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from lora_sd.settings.pictures import MOST_REPEATS

from . import batch, captions, history, images_view, seen, view
from .batch import Edit
from .history import Change, Left
from .project import FIRST, USUAL, Project, names, open_project
from .words import say

AT_ONCE = 16  # pictures that are looked at in one go
Asked = Mapping[str, Any]


class Page(NamedTuple):
    project: gr.Dropdown
    tools: gr.Column  # what other parts put above the grid
    grid: gr.HTML

    def outputs(self) -> list[gr.components.Component]:
        return [self.project, self.grid]


# -- what the grid asks for ------------------------------------------------------------------------------------------


def ask(asked: Any) -> dict[str, Any]:
    """The one question of static/images.js: {"act": …, "project": …, …}. Anyone who is logged in can ask anything.

    An answer without "ok" is a failure, and tells why.
    """
    try:
        act = ACTS[_of(asked, "act", str)]
        return {"ok": True, **act(open_project(_of(asked, "project", str)), asked)}
    except KeyError:
        return {"why": say("There is nothing of that name.")}
    except (ValueError, OSError) as error:
        return {"why": str(error)}


def show(project: Project, asked: Asked) -> dict[str, Any]:
    return images_view.draw(project)


def look(project: Project, asked: Asked) -> dict[str, Any]:
    """Look at some pictures, so that what is odd about them and their thumbnails are there."""
    paths = [path for _, path in _pictures(project, asked)][:AT_ONCE]
    memory = seen.memory(project)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(memory.__getitem__, paths))
        thumbs = list(pool.map(lambda path: seen.thumbnail(path, project), paths))
    memory.save()
    shown = {
        project.name_of(path): view.url(thumb) if thumb else ""
        for path, thumb, _ in zip(paths, thumbs, found, strict=True)
    }
    return {"src": shown}


def save_caption(project: Project, asked: Asked) -> dict[str, Any]:
    """Keep a caption; where another window changed it meanwhile, tell what it is now."""
    text, was = captions.cleaned(_of(asked, "text", str)), _of(asked, "was", str)
    [(name, path)] = _pictures(project, asked)
    now = captions.read(project, [path]).get(path, "")
    if captions.mark(now) != was and now != text:
        return {"theirs": images_view.caption(now)}
    if now != text and history.make(project, [Change(name, "caption", now, text)]).left:
        return {"theirs": images_view.caption(captions.read(project, [path]).get(path, ""))}
    return images_view.caption(text)


def turn(project: Project, asked: Asked) -> dict[str, Any]:
    """Use pictures or leave them out."""
    return _set(project, asked, "on", _of(asked, "on", bool))


def leave_out(project: Project, asked: Asked) -> dict[str, Any]:
    return _set(project, asked, "on", False)


def repeat(project: Project, asked: Asked) -> dict[str, Any]:
    """How often pictures count in an epoch."""
    times = _of(asked, "times", int)
    if not 1 <= times <= MOST_REPEATS:
        raise ValueError(
            say("Repeats are {times}; they must be 1 to {most}.", times=times, most=MOST_REPEATS)
        )
    return _set(project, asked, "times", times)


def _set(project: Project, asked: Asked, what: str, value: Any) -> dict[str, Any]:
    uses = project.uses()
    changes = [
        Change(name, what, uses.get(name, USUAL)[what], value) for name, _ in _pictures(project, asked)
    ]
    history.make(project, [change for change in changes if change.before != change.after])
    return {}


def preview(project: Project, asked: Asked) -> dict[str, Any]:
    """What an edit would do: before and after of each caption that changes."""
    edit, found = _edit(project, asked)
    return {
        "changes": [[change.name, change.before, change.after] for change in found],
        "edit": edit._asdict(),
        "mark": batch.mark(edit, found),
    }


def apply(project: Project, asked: Asked) -> dict[str, Any]:
    """Do the edit that was seen."""
    edit, found = _edit(project, asked)
    if batch.mark(edit, found) != _of(asked, "mark", str):
        raise ValueError(say("The captions have changed meanwhile; look at the preview again."))
    return _left(history.make(project, found))


def undo(project: Project, asked: Asked) -> dict[str, Any]:
    return _left(history.undo(project))


def redo(project: Project, asked: Asked) -> dict[str, Any]:
    return _left(history.redo(project))


def _left(done: Left) -> dict[str, Any]:
    return {"changed": done.changed, "left": done.left}


def _edit(project: Project, asked: Asked) -> tuple[Edit, list[Change]]:
    told = _of(asked, "edit", dict)
    edit = Edit(
        how=_of(told, "how", str),
        text=_of(told, "text", str, ""),
        other=_of(told, "other", str, ""),
        exact=_of(told, "exact", bool, True),
        seed=_of(told, "seed", int, secrets.randbelow(2**31)),
    )
    pictures = dict(_pictures(project, asked))
    texts = captions.read(project, list(pictures.values()))
    return edit, batch.changes({name: texts.get(path, "") for name, path in pictures.items()}, edit)


def _pictures(project: Project, asked: Asked) -> list[tuple[str, Path]]:
    """The pictures that are asked about, by name; a name that is not one of the project's own is none."""
    wanted = asked.get("names")
    if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
        raise ValueError(say("Which pictures? Load the page again."))
    known = {project.name_of(path): path for path in project.pictures()}
    if gone := next((name for name in wanted if name not in known), None):
        raise ValueError(say("{name} is not there any more.", name=gone))
    return [(name, known[name]) for name in dict.fromkeys(wanted)]


def _of(asked: Any, name: str, kind: type, default: Any = None) -> Any:
    """A part of a question, of that kind."""
    value = asked.get(name, default) if isinstance(asked, dict) else None
    if type(value) is not kind:
        raise ValueError(say("The page and the program do not fit together; load the page again."))
    return value


ACTS: dict[str, Callable[[Project, Asked], dict[str, Any]]] = {
    "show": show,
    "look": look,
    "caption": save_caption,
    "on": turn,
    "off": leave_out,
    "times": repeat,
    "preview": preview,
    "apply": apply,
    "undo": undo,
    "redo": redo,
}


# -- layout and wiring -----------------------------------------------------------------------------------------------


def build() -> Page:
    with gr.Row(elem_classes="images-head"):
        project = gr.Dropdown(
            [FIRST],
            value=FIRST,
            label="Project",
            elem_id="images-project",
            info="The same as on Make, where pictures are added.",
        )
    with gr.Column(elem_id="images-tools") as tools:
        pass
    grid = gr.HTML(
        html_template='<div class="images"></div>',
        js_on_load=(view.STATIC / "images.js").read_text(encoding="utf-8"),
        server_functions=[ask],
        elem_id="images-grid",
        apply_default_css=False,
    )
    return Page(project, tools, grid)


def writer(project: Project) -> Callable[[Mapping[Path, str]], None]:
    """What writes captions that come all at once, so that one undo takes them back."""

    def write(texts: Mapping[Path, str]) -> None:
        before = captions.read(project, list(texts))
        history.make(
            project,
            [
                Change(project.name_of(path), "caption", before.get(path, ""), text)
                for path, text in texts.items()
            ],
        )

    return write


def shown(page: Page, name: str | None) -> dict[Any, Any]:
    """The page on that project; the grid then asks for what it shows, also where it was on it before."""
    project = open_project(name)
    menu = gr.update(choices=list(dict.fromkeys([*names(), project.name])), value=project.name)
    value = {"project": project.name, "words": images_view.words(), "drawn": secrets.token_hex(4)}
    return {page.project: menu, page.grid: value}
