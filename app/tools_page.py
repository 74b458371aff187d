"""Tools: what can be done with LoRA files, one form for each thing; a process of its own does it (desk.py)."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from . import desk, housekeeping_part, loras, models, tools_view, view
from .tools_act import MOST_LORAS, TEXTS, act, told
from .tools_forms import FORMS, NONE, lora_menu, sources, weight_row
from .view import node
from .words import say

TOOLS = [
    ("Look into", "look"),
    ("Shrink or grow", "shrink"),
    ("Combine", "combine"),
    ("Merge into a model", "merge"),
    ("Extract from a model", "extract"),
    ("Convert", "convert"),
    ("Check", "check"),
    ("Edit what it tells", "edit"),
]
WITHOUT_LORA = ("extract",)
WITH_WEIGHTS = ("combine", "merge")
WITHOUT_FILE = ("look", "check")
WITH_FORMAT = ("shrink", "combine", "extract")
WITHOUT_FAMILY = ("extract", "edit")
Updates = dict[Any, Any]
PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}


class Page(NamedTuple):
    tool: gr.Radio
    about: gr.HTML
    fields: dict[str, gr.components.Component]  # by name, as tools_act.py takes them
    first: gr.Column  # the LoRA that most of them are about
    weight: gr.Row
    rows: tuple[gr.Row, ...]
    more: gr.Button
    upload: gr.UploadButton
    forms: dict[str, gr.Column]
    name: gr.Textbox
    format: gr.Row
    family: gr.Row
    options: gr.Accordion
    go: gr.Button
    state: gr.HTML
    download: gr.DownloadButton
    command: gr.Textbox
    python: gr.Textbox

    def inputs(self) -> dict[str, gr.components.Component]:
        return {"tool": self.tool, **self.fields}

    def loras(self) -> list[gr.components.Component]:
        """The menus of LoRAs."""
        return [self.fields[name] for name in ("lora", "other", *(f"lora_{n}" for n in range(1, MOST_LORAS)))]

    def models(self) -> list[gr.components.Component]:
        """The menus of base models."""
        return [self.fields[name] for name in ("look_base", "merge_base", "tuned", "extract_base")]

    def of_tool(self) -> list[gr.components.Component]:
        """What another tool changes."""
        edited = [self.fields[name] for name in TEXTS]
        shown = [
            self.first,
            self.weight,
            *self.rows,
            self.more,
            self.upload,
            *self.forms.values(),
            self.name,
            self.format,
        ]
        return [self.tool, self.about, *shown, self.family, self.options, self.go, *edited]

    def following(self) -> list[gr.components.Component]:
        """What follows facts that change seldom."""
        return [*self.loras(), *self.models(), self.download]


def about(tool: str) -> str:
    return {
        "look": say(
            "How much of its rank a LoRA uses, which layers do the work, and how two LoRAs or checkpoints differ."
        ),
        "shrink": say("The same LoRA with fewer directions, the strongest kept, or with room to learn more."),
        "combine": say(
            "One LoRA that does what several do together. A weight of −1 takes one away: the difference."
        ),
        "merge": say(
            "A model with LoRAs in its weights, as a new file. A weight of −1 takes out one that is in it."
        ),
        "extract": say("The LoRA between a fine-tuned model and the model it was made from."),
        "convert": say("The same numbers under the names that another program reads."),
        "check": say("Which programs use all of a LoRA, and what each leaves out without a word."),
        "edit": say(
            "Title, author, trigger words, licence and thumbnail, as other programs show them; the numbers stay."
        ),
    }[tool]


def button(tool: str) -> str:
    return {
        "look": say("Look into it"),
        "shrink": say("Make the new LoRA"),
        "combine": say("Combine"),
        "merge": say("Merge"),
        "extract": say("Extract"),
        "convert": say("Convert"),
        "check": say("Check"),
        "edit": say("Save as a new file"),
    }[tool]


# -- handlers --------------------------------------------------------------------------------------------------------


def offered(page: Page) -> Updates:
    """The page as it opens: what its first tool is for, the menus of LoRAs and models, the newest LoRA chosen."""
    menu = loras.menu()
    updates = of_loras(page) | of_models(page) | {page.about: node("p", about("look"), cls="quiet")}
    updates[page.fields["lora"]] = gr.update(choices=[NONE, *menu], value=menu[0][1] if menu else "")
    return updates


def of_loras(page: Page) -> Updates:
    return {menu: gr.update(choices=[NONE, *loras.menu()]) for menu in page.loras()}


def of_models(page: Page) -> Updates:
    none_first = page.fields["look_base"]
    return {
        menu: gr.update(choices=[*([NONE] if menu is none_first else []), *models.menu()])
        for menu in page.models()
    }


def of_work(page: Page) -> Updates:
    """The new file to take away, where there is one."""
    offer = desk.current.offer
    return {page.download: gr.update(value=str(offer) if offer else None, visible=offer is not None)}


def choose(page: Page, tool: str, shown: int, lora: str) -> Updates:
    """The form of a tool."""
    updates: Updates = {
        page.about: node("p", about(tool), cls="quiet"),
        page.first: gr.update(visible=tool not in WITHOUT_LORA),
        page.weight: gr.update(visible=tool in WITH_WEIGHTS),
        page.upload: gr.update(visible=tool not in WITHOUT_LORA),
        page.more: gr.update(visible=tool in WITH_WEIGHTS and shown < MOST_LORAS),
        page.name: gr.update(visible=tool not in WITHOUT_FILE),
        page.format: gr.update(visible=tool in WITH_FORMAT),
        page.family: gr.update(visible=tool not in WITHOUT_FAMILY),
        page.options: gr.update(visible=tool != "edit"),
        page.go: gr.update(value=button(tool)),
    }
    updates |= {form: gr.update(visible=name == tool) for name, form in page.forms.items()}
    updates |= {
        row: gr.update(visible=tool in WITH_WEIGHTS and number < shown)
        for number, row in enumerate(page.rows, 1)
    }
    return updates | (edited(page, lora) if tool == "edit" else {})


def edited(page: Page, lora: str | None) -> Updates:
    """What the chosen LoRA says of itself, to be changed."""
    try:
        known = told(loras.file(lora)) if lora else dict.fromkeys(TEXTS, "")
    except ValueError:  # said when it is used
        known = dict.fromkeys(TEXTS, "")
    return {page.fields[name]: text for name, text in known.items()}


def begin(page: Page, values: Mapping[str, Any]) -> Updates:
    """Begin what the page's values ask for; why not is a sentence in the page."""
    try:
        desk.current.begin(values["tool"], act(values))
    except ValueError as error:
        return {page.state: node("p", str(error), cls="obstacle")}
    return {page.state: tools_view.draw(desk.current), page.download: gr.update(visible=False)}


def brought(page: Page, path: str) -> Updates:
    """Take an uploaded LoRA in, and choose it."""
    lora = str(loras.bring(Path(path)))
    updates = of_loras(page)
    return updates | {page.fields["lora"]: gr.update(choices=[NONE, *loras.menu()], value=lora)}


def restate(page: Page, values: Mapping[str, Any]) -> Updates:
    """The same as a command and in Python."""
    try:
        wanted = act(values)
    except ValueError as error:
        return {page.command: str(error), page.python: ""}
    return {page.command: wanted.command, page.python: wanted.python}


def answered(page: Page, click: Mapping[str, str], shown: int) -> Updates:
    """Do what a button of the result asks for."""
    match click["act"]:
        case "cancel":
            desk.current.cancel()
        case "shrink":
            rank = int(click.get("rank", 8))
            chosen = {page.tool: "shrink", page.fields["by"]: "rank"} | of_rank(page, "rank")
            chosen[page.fields["rank"]] = gr.update(value=rank, visible=True)
            return choose(page, "shrink", shown, "") | chosen
        case "look":
            lora = gr.update(choices=[NONE, *loras.menu()], value=click.get("lora", ""))
            return choose(page, "look", shown, "") | {page.tool: "look", page.fields["lora"]: lora}
    return {}


def of_rank(page: Page, by: str) -> Updates:
    """The field of Shrink that is asked for."""
    return {page.fields[name]: gr.update(visible=name == by) for name in ("rank", "energy", "size")}


def of_cut(page: Page, cut: str) -> Updates:
    return {page.fields[f"combine_{name}"]: gr.update(visible=name == cut) for name in ("rank", "energy")}


def of_method(page: Page, method: str) -> Updates:
    dense = method in ("ties", "dare")
    return {
        page.fields["density"]: gr.update(visible=dense),
        page.fields["seed"]: gr.update(visible=method == "dare"),
    }


# -- layout ----------------------------------------------------------------------------------------------------------


def build(*, remote: bool = False) -> Page:
    """`remote`: the page is open to other computers, so it takes no paths of this one."""
    fields: dict[str, gr.components.Component] = {}
    tool = gr.Radio(TOOLS, value="look", label="What do you want to do?", elem_id="tool")
    with gr.Row(elem_classes="tools"):
        with gr.Column(scale=2, min_width=320, elem_classes="card"):
            explained = view.component("tool-about")
            with gr.Column() as first:
                fields["lora"] = lora_menu("LoRA", "tool-lora", remote, "From your runs, or paste a path.")
                weight = weight_row(fields, 0, visible=False)
            rows = sources(fields, remote)
            with gr.Row():
                more = gr.Button("Add another LoRA", size="sm", visible=False, elem_id="tool-more")
                upload = gr.UploadButton(
                    "Open a .safetensors", size="sm", file_types=[".safetensors"], elem_id="tool-open"
                )
            forms = {}
            for name, form in FORMS.items():
                with gr.Column(visible=name == "look", elem_id=f"form-{name}") as forms[name]:
                    form(fields, remote)
            fields["name"] = gr.Textbox(
                "",
                label="Name of the new file",
                placeholder="chosen for you",
                max_length=80,
                visible=False,
                elem_id="tool-name",
            )
            with gr.Accordion("More", open=False, elem_id="tool-options") as options:
                with gr.Row(visible=False) as format_row:
                    fields["layout"] = gr.Dropdown(
                        [("as it is", ""), "kohya", "peft"],
                        value="",
                        label="Layout",
                        elem_id="tool-layout",
                        min_width=130,
                    )
                    fields["dtype"] = gr.Dropdown(
                        [("as it is", ""), "fp16", "bf16", "fp32"],
                        value="",
                        label="Number format",
                        elem_id="tool-dtype",
                        min_width=130,
                    )
                with gr.Row() as family:
                    fields["family"] = gr.Dropdown(
                        [
                            ("as the file tells", ""),
                            *((title, name) for name, title in models.FAMILIES.items()),
                        ],
                        value="",
                        label="Made for",
                        info="For a file that does not tell.",
                        elem_id="tool-family",
                    )
            go = gr.Button("Look into it", variant="primary", elem_id="tool-go")
            with gr.Accordion("Show as command or Python", open=False, elem_id="tool-recipes"):
                command, python = (
                    gr.Textbox(
                        label=label,
                        lines=lines,
                        max_lines=20,
                        interactive=False,
                        buttons=["copy"],
                        elem_id=elem_id,
                        elem_classes="code",
                    )
                    for label, lines, elem_id in (
                        ("Command line", 2, "tool-command"),
                        ("Python", 4, "tool-python"),
                    )
                )
        with gr.Column(scale=3, min_width=320, elem_classes="card"):
            state = view.component("tool-state")
            download = gr.DownloadButton("Download", visible=False, elem_id="tool-download")
    housekeeping_part.build()
    return Page(
        tool=tool, about=explained, fields=fields, first=first, weight=weight, rows=rows, more=more, upload=upload,
        forms=forms, name=fields["name"], format=format_row, family=family, options=options, go=go, state=state,
        download=download, command=command, python=python,
    )  # fmt: skip


# -- wiring ----------------------------------------------------------------------------------------------------------


def wire(page: Page) -> None:
    at_once = {**PRIVATE, "queue": False}
    fields = page.fields
    shown = gr.State(2)  # rows of LoRAs

    def chosen(tool: str, rows: int, lora: str) -> Updates:
        return choose(page, tool, rows, lora)

    page.tool.input(chosen, [page.tool, shown, fields["lora"]], page.of_tool(), **at_once)

    def another(rows: int, tool: str) -> Updates:
        return {shown: rows + 1, **choose(page, tool, rows + 1, "")}

    page.more.click(another, [shown, page.tool], [shown, *page.of_tool()], **at_once)
    follow = (
        (fields["lora"], edited, TEXTS),
        (fields["by"], of_rank, ("rank", "energy", "size")),
        (fields["cut"], of_cut, ("combine_rank", "combine_energy")),
        (fields["method"], of_method, ("density", "seed")),
    )
    for part, update, names in follow:
        part.input(partial(update, page), part, [fields[name] for name in names], **at_once)

    page.upload.upload(partial(brought, page), page.upload, page.loras(), **PRIVATE)
    changes = [part.change for part in page.inputs().values()]
    stating = {"inputs_kwargs": page.inputs(), "trigger_mode": "always_last", **at_once}
    gr.on(changes, lambda **values: restate(page, values), None, [page.command, page.python], **stating)

    starting = {"inputs_kwargs": page.inputs(), **at_once}
    page.go.click(lambda **values: begin(page, values), None, [page.state, page.download], **starting)

    def press(rows: int, event: gr.EventData) -> Any:
        return answered(page, event._data, rows) or gr.skip()

    pressed = [*page.of_tool(), *(fields[name] for name in ("lora", "by", "rank", "energy", "size"))]
    page.state.click(press, shown, pressed, **at_once)
