"""Text and pictures on a page as a tree that the browser builds node by node.

Gradio renders HTML through JavaScript templates, which would run a caption or file name that holds `${…}`. Here every
word of a person's goes into the page as text, never as markup; an update changes only the nodes that differ.
"""

import functools
import html
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

STATIC = Path(__file__).parent / "static"
Node = dict[str, Any] | str


def node(tag: str, *children: Node | None, **attributes: Any) -> Node:
    """`node("p", "Hello", cls="quiet", data_run="7")`; children and attributes that are None are left out."""
    names = {"cls": "class"}
    given = {
        names.get(key, key.replace("_", "-")): str(value)
        for key, value in attributes.items()
        if value is not None
    }
    return {"tag": tag, "attributes": given, "children": [child for child in children if child is not None]}


def button(text: str, act: str, *, cls: str = "", **data: str) -> Node:
    """A button whose click arrives in Python as `{"act": …, **data}`; as another event than `click` where `event` names one."""
    extra = {f"data_{key}": value for key, value in data.items()}
    return node("button", text, type="button", cls=f"act {cls}".strip(), data_act=act, **extra)


def bar(share: float, label: str) -> Node:
    """A progress bar, `share` from 0 to 1."""
    percent = f"{min(max(share, 0), 1) * 100:.1f}"
    return node("progress", value=percent, max="100", aria_label=label)


def url(path: Path) -> str:
    """Where the browser finds a picture of one of the served folders."""
    return "gradio_api/file=" + quote(path.as_posix())


def warn(text: str) -> None:
    """A note that comes up for some seconds. Gradio would show it as HTML, and shows none of a handler without a queue."""
    gr.Warning(html.escape(text))


def tell_errors_as_text(demo: gr.Blocks) -> None:
    """What a handler raises comes up as text, too; a script (app/api.py) gets it as it is."""
    for handler in demo.fns.values():
        if handler.fn and handler.api_visibility == "private":
            handler.fn = _telling(handler.fn)


def _telling(handle: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handle)
    def once(*args: Any, **values: Any) -> Any:
        try:
            return handle(*args, **values)
        except Exception as error:
            raise _as_text(error) from error

    @functools.wraps(handle)
    def in_parts(*args: Any, **values: Any) -> Iterator[Any]:
        try:
            yield from handle(*args, **values)
        except Exception as error:
            raise _as_text(error) from error

    return in_parts if inspect.isgeneratorfunction(handle) else once


def _as_text(error: Exception) -> gr.Error:
    """The sentence of a ValueError is for a person; of anything else the log keeps where it happened."""
    return gr.Error(html.escape(str(error)), print_exception=not isinstance(error, ValueError))


def script(elem_id: str, *names: str) -> gr.HTML:
    """Never seen itself; what the browser does by itself, of files in static/."""
    code = "".join((STATIC / name).read_text(encoding="utf-8") for name in names)
    return gr.HTML(html_template="", js_on_load=code, visible="hidden", elem_id=elem_id)


def component(elem_id: str, value: Node | None = None, **options: Any) -> gr.HTML:
    return gr.HTML(
        value=value,
        html_template='<div class="view"></div>',
        js_on_load=(STATIC / "view.js").read_text(encoding="utf-8"),
        elem_id=elem_id,
        name=elem_id,
        apply_default_css=False,
        **options,
    )
