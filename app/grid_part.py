"""The grid on Try it: two things that change along columns and rows, drawn picture by picture."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gradio as gr

from lora_sd import grid
from lora_sd.grid import ALONE, Axis, Cell, Job
from lora_sd.lora.inspection import inspect

from . import drawing, loras, story, view, watch_view
from .grid_maker import Grid, maker
from .view import Node, node
from .words import say

KINDS = [
    ("Strength", "strength"),
    ("Checkpoint", "checkpoint"),
    ("Rank", "rank"),
    ("Prompt", "prompt"),
    ("Seed", "seed"),
    ("Steps", "steps"),
    ("Guidance", "guidance"),
]
VALUES = {
    "strength": "0, 0.5, 0.8, 1, 1.5",
    "rank": "1, 4, 16",
    "seed": "1, 2, 3",
    "steps": "10, 20, 30",
    "guidance": "2, 4, 6, 8",
}
MOST_CHOSEN = 6  # checkpoints, to begin with
MakeJob = Callable[[Mapping[str, Any]], Job]
Updates = dict[Any, Any]


class Part(NamedTuple):
    x_kind: gr.Dropdown
    x_values: gr.Textbox
    y_kind: gr.Dropdown
    y_values: gr.Textbox
    checkpoints: gr.Dropdown
    about: gr.HTML
    draw: gr.Button
    table: gr.HTML

    def inputs(self) -> dict[str, gr.components.Component]:
        names = ("x_kind", "x_values", "y_kind", "y_values", "checkpoints")
        return {f"grid_{name}": getattr(self, name) for name in names}


# -- handlers --------------------------------------------------------------------------------------------------------


def axes(values: Mapping[str, Any]) -> tuple[Axis, Axis]:
    """What the fields say. Raises ValueError with one sentence."""
    x = axis(values["grid_x_kind"], values["grid_x_values"], values["grid_checkpoints"])
    if not values["grid_y_kind"]:
        return x, ALONE
    return x, axis(values["grid_y_kind"], values["grid_y_values"], values["grid_checkpoints"])


def axis(kind: str, text: str, chosen: list[str] | None) -> Axis:
    if kind != "checkpoint":
        return grid.read(kind, text)
    files = [loras.file(lora) for lora in chosen or []]
    return grid.checked(Axis(kind, tuple(map(str, files)), tuple(map(loras.step, files))))


def told(values: Mapping[str, Any], make_job: MakeJob) -> Node:
    """How many pictures and about how long, or what is wrong."""
    try:
        cells = grid.plan(make_job(values), *axes(values))
    except ValueError as error:
        return node("p", str(error), cls="obstacle")
    return node("p", length(cells), cls="quiet")


def length(cells: list[Cell]) -> str:
    seconds = maker.seconds(cells)
    if seconds is None:
        return say("{count} pictures. How long they take is known after the first.", count=len(cells))
    if not seconds:
        return say("{count} pictures, all drawn before: they show at once.", count=len(cells))
    return say("{count} pictures, about {time}.", count=len(cells), time=story.duration(seconds))


def begin(values: Mapping[str, Any], make_job: MakeJob) -> Node | None:
    """Draw the grid; what is wrong otherwise."""
    try:
        maker.start(make_job(values), *axes(values))
    except ValueError as error:
        return node("p", str(error), cls="obstacle")
    return told(values, make_job)


def kind_changed(kind: str, other: str, lora: str, prompt: str) -> list[Any]:
    """Values that fit what an axis is now, and the checkpoints where one of both asks for them."""
    return [field(kind, lora, prompt), gr.update(visible="checkpoint" in (kind, other))]


def field(kind: str, lora: str, prompt: str) -> Any:
    if kind in ("", "checkpoint"):
        return gr.update(visible=False)
    return gr.update(value=usual(kind, lora, prompt), visible=True, lines=3 if kind == "prompt" else 1)


def usual(kind: str, lora: str, prompt: str) -> str:
    """Values to begin with."""
    if kind == "prompt":
        return "\n".join(dict.fromkeys(filter(None, [prompt.strip(), *prompts(lora)])))
    if kind == "rank" and (ranks := ranks_below(lora)):
        return ", ".join(map(str, ranks))
    return VALUES[kind]


def prompts(lora: str) -> list[str]:
    """Those of the previews of the run that made a LoRA."""
    found = loras.run_of(lora or "")
    pictures = story.read(found).pictures if found else {}
    return list(dict.fromkeys(picture.prompt for _, picture in sorted(pictures.items())))


def ranks_below(lora: str) -> list[int]:
    """1, 4, 16 … up to the rank of a LoRA."""
    try:
        most = max(inspect(loras.file(lora)).ranks, default=0)
    except ValueError:
        return []
    return sorted({*(4**i for i in range(5) if 4**i < most), most} - {0})


def checkpoints_of(lora: str) -> Any:
    """The menu of the checkpoints of a LoRA's run, some of them chosen."""
    found = loras.run_of(lora or "")
    files = story.checkpoints(found) if found else []
    menu = [(loras.step(path), f"{found.name}/{path.name}") for path in files]
    chosen = [menu[i][1] for i in story.thin(len(menu), MOST_CHOSEN)]
    return gr.update(choices=menu, value=chosen)


def answered(click: Mapping[str, str]) -> None:
    if click.get("act") == "cancel-grid":
        maker.cancel()


# -- what is shown ---------------------------------------------------------------------------------------------------


def draw(made: Grid | None) -> Node | None:
    if made is None:
        return None
    return node("div", draw_state(made), draw_table(made), cls="grid")


def draw_state(made: Grid) -> Node:
    done, total = len(made.pictures), len(made.cells)
    match made.status:
        case "drawing":
            text = (
                say("Picture {number} of {total}", number=min(done + 1, total), total=total)
                if drawing.client.alive
                else say("Loading the model")
            )
            bar = view.bar((done + made.share) / total, text)
            stop = view.button(say("Cancel the grid"), "cancel-grid")
            return node("div", node("span", f"{text} …", cls="quiet"), bar, stop, cls="state")
        case "failed":
            return node("p", made.text, cls="obstacle", role="alert")
        case "cancelled":
            text = say("Cancelled after {count} of {total} pictures; they stay.", count=done, total=total)
        case _:
            text = say("{count} pictures.", count=total)
    return node("div", node("span", text, cls="quiet"), link(made), cls="state")


def link(made: Grid) -> Node | None:
    if made.sheet is None:
        return None
    return node("a", say("Download the sheet"), href=view.url(made.sheet), download="grid.png", cls="act")


def draw_table(made: Grid) -> Node:
    columns, rows = headings(made.x), headings(made.y)
    alone = "unseen" if made.y == ALONE else None  # nothing changes along the rows
    corner = node("th", node("span", say("Rows"), cls="unseen"), scope="col", cls=alone)
    head = [node("th", heading, scope="col") for heading in columns]
    body = [
        node(
            "tr",
            node("th", heading, scope="row", cls=alone),
            *(draw_cell(made, column, row, columns, rows) for column in range(len(columns))),
        )
        for row, heading in enumerate(rows)
    ]
    table = node("table", node("thead", node("tr", corner, *head)), node("tbody", *body))
    return node("div", table, cls="matrix", data_words=json.dumps(watch_view.comparing()))


def draw_cell(made: Grid, column: int, row: int, columns: list[str], rows: list[str]) -> Node:
    picture = made.pictures.get((column, row))
    if picture is None:
        return node("td", node("span", "", cls="waiting"))
    title = " · ".join(filter(None, (columns[column], rows[row])))
    image = node("img", src=view.url(made.small[column, row]), alt=title)
    cell = node(
        "button",
        image,
        type="button",
        cls="picture",
        data_after=view.url(picture),
        data_title=title,
    )
    return node("td", cell)


def headings(axis: Axis) -> list[str]:
    names = axis.names or tuple(f"{v:g}" if isinstance(v, float) else str(v) for v in axis.values)
    return [heading(axis.kind, name) for name in names]


def heading(kind: str, name: str) -> str:
    match kind:
        case "strength":
            return say("strength {value}", value=name)
        case "rank":
            return say("rank {value}", value=name)
        case "seed":
            return say("seed {value}", value=name)
        case "steps":
            return say("{value} steps", value=name)
        case "guidance":
            return say("guidance {value}", value=name)
    return name


# -- layout and wiring -----------------------------------------------------------------------------------------------


def build() -> Part:
    with gr.Accordion("Grid: many pictures side by side", open=False, elem_classes="fold", elem_id="grid"):
        with gr.Row():
            with gr.Column(min_width=260):
                x_kind = gr.Dropdown(
                    KINDS, value="strength", label="Along the columns", elem_id="grid-x", interactive=True
                )
                x_values = gr.Textbox(
                    VALUES["strength"],
                    label="Values of the columns",
                    elem_id="grid-x-values",
                    info="Numbers like 0, 0.5, 1, or a range like 0-1 by 0.25; prompts one a line.",
                )
            with gr.Column(min_width=260):
                y_kind = gr.Dropdown(
                    [("Nothing", ""), *KINDS],
                    value="",
                    label="Along the rows",
                    elem_id="grid-y",
                    interactive=True,
                )
                y_values = gr.Textbox("", label="Values of the rows", elem_id="grid-y-values", visible=False)
        checkpoints = gr.Dropdown(
            [],
            value=[],
            multiselect=True,
            label="Checkpoints",
            info="Of the run that made the first LoRA.",
            elem_id="grid-checkpoints",
            visible=False,
            interactive=True,
        )
        about = view.component("grid-about")
        button = gr.Button("Draw the grid", variant="primary", size="md", elem_id="draw-grid")
        table = view.component("grid-view")
    return Part(x_kind, x_values, y_kind, y_values, checkpoints, about, button, table)


def wire(
    part: Part,
    inputs: dict[str, gr.components.Component],
    make_job: MakeJob,
    lora: gr.Dropdown,
    prompt: gr.Textbox,
) -> None:
    """`inputs` are the fields of the page that `make_job` makes a drawing job of; `lora` is the first LoRA's."""
    quiet = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    fields = {**inputs, **part.inputs()}
    part.draw.click(lambda **values: begin(values, make_job), None, part.about, inputs_kwargs=fields, **quiet)
    gr.on(
        [one.change for one in part.inputs().values()],
        lambda **values: told(values, make_job),
        None,
        part.about,
        inputs_kwargs=fields,
        trigger_mode="always_last",
        **quiet,
    )
    x_asked, y_asked = [part.x_kind, part.y_kind, lora, prompt], [part.y_kind, part.x_kind, lora, prompt]
    part.x_kind.change(kind_changed, x_asked, [part.x_values, part.checkpoints], **quiet)
    part.y_kind.change(kind_changed, y_asked, [part.y_values, part.checkpoints], **quiet)
    lora.change(checkpoints_of, lora, part.checkpoints, **quiet)

    def act(event: gr.EventData) -> None:
        answered(event._data)

    part.table.click(act, None, None, **quiet)
