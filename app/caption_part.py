"""Captions by a model, a part of the page: which model, what becomes of captions that are there, progress, and what came of it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gradio as gr

from lora_sd.captioning import folder
from lora_sd.captioning.folder import Write
from lora_sd.models import captioners

from . import captioning, models, reach, story, try_view, uploads, view
from .captioning import Order
from .models import GB
from .project import Project, open_project
from .view import Node, node
from .words import say

LATEST = 6  # captions that are shown while they come
ABOUT = """Downloaded models look at your pictures on this computer. BLIP writes a sentence, a WD tagger the tags
that drawings are found by."""
EXISTING = [("Leave them alone", "skip"), ("Write them anew", "replace"), ("Add to them", "append")]


class Part(NamedTuple):
    model: gr.Dropdown
    get: gr.Button
    stop_getting: gr.Button
    existing: gr.Radio
    trigger: gr.Textbox
    threshold: gr.Slider
    character_threshold: gr.Slider
    without: gr.Textbox
    max_tokens: gr.Slider
    on_cpu: gr.Checkbox
    write: gr.Button
    cancel: gr.Button
    obstacle: gr.HTML
    state: gr.HTML

    def inputs(self) -> dict[str, gr.components.Component]:
        own = "model existing trigger threshold character_threshold without max_tokens on_cpu".split()
        return {name: getattr(self, name) for name in own}

    def by_kind(self) -> dict[captioners.Kind, list[gr.components.Component]]:
        """What only one kind of model asks for."""
        return {"tagger": [self.threshold, self.character_threshold, self.without], "blip": [self.max_tokens]}

    def following(self) -> list[gr.components.Component]:
        """What follows `facts`."""
        return [self.model, self.get, self.stop_getting, self.write, self.cancel, self.on_cpu]


Updates = dict[gr.components.Component, Any]
Writer = Callable[[Project], Write]  # who writes the captions of a project
getting = models.Download()


# -- what it shows ---------------------------------------------------------------------------------------------------


def menu() -> list[tuple[str, str]]:
    """(label, source) of the models that are here, then of those that can be downloaded."""
    here = [model.source for model in captioners.installed()]
    offered = [name for name in captioners.OFFERS if name not in here]
    return [(short(name), name) for name in here] + [
        (say("{name} · to download", name=short(name)), name) for name in offered
    ]


def short(name: str) -> str:
    """A Hugging Face name without its owner."""
    return name.rpartition("/")[2]


def kind_of(source: str) -> captioners.Kind | None:
    """What a chosen model is, here or not; None where that is not known."""
    known = {model.source: model.kind for model in captioners.installed()} | dict(captioners.OFFERS)
    if source in known:
        return known[source]
    try:
        return captioners.describe(checked(source)).kind
    except (OSError, ValueError):
        return None


def picked(part: Part, source: str | None) -> Updates:
    """A model was chosen: what it asks for, and whether it has to be downloaded."""
    kind = kind_of(source or "")
    updates: Updates = {
        control: gr.update(visible=kind in (None, of))
        for of, controls in part.by_kind().items()
        for control in controls
    }
    return updates | {part.get: gr.update(visible=not is_here(source or ""))}


def is_here(source: str) -> bool:
    try:
        captioners.describe(checked(source.strip()))
    except (OSError, ValueError):
        return False
    return True


def views() -> dict[str, Any]:
    """The state of the work, and for the grid of Images that captions were written."""
    job = captioning.current
    written = {"project": job.order.project.name, "count": len(job.written)} if job.order else None
    return {"caption-state": draw(job, getting), "captions-written": written}


def facts() -> dict[str, Any]:
    """What `follow` answers."""
    return {
        "captioners": getting.finished,
        "getting-captioner": getting.running,
        "captioning": captioning.current.running,
    }


def follow(part: Part, name: str, fact: Any) -> Updates:
    """What a new fact changes in menu and buttons."""
    match name:
        case "captioners":
            return {part.model: gr.update(choices=menu())}
        case "getting-captioner" if fact:
            return {part.get: gr.update(visible=False), part.stop_getting: gr.update(visible=True)}
        case "getting-captioner":
            return {
                part.get: gr.update(visible=getting.error != ""),
                part.stop_getting: gr.update(visible=False),
            }
        case "captioning":
            return {part.write: gr.update(interactive=not fact), part.cancel: gr.update(visible=fact)}
        case "busy":
            return {part.on_cpu: gr.update(visible=fact, value=fact)}
    return {}


def draw(job: captioning.Captioning, download: models.Download) -> Node | None:
    parts = [draw_beside(), draw_download(download), draw_job(job)]
    return node("div", *parts) if any(parts) else None


def draw_download(state: models.Download) -> Node | None:
    if state.running:
        share = state.done / state.total if state.total else 0
        text = (
            say(
                "Downloading {name}: {done} of {total} GB",
                name=state.name,
                done=f"{state.done / GB:.2f}",
                total=f"{state.total / GB:.2f}",
            )
            if state.total
            else say("Downloading {name}: asking for its size", name=state.name)
        )
        return node("div", node("p", text), view.bar(share, say("Download")))
    if state.error:
        return node("p", state.error, cls="obstacle")
    return node("p", say("{name} is here; choose it above.", name=state.name)) if state.finished else None


def draw_job(job: captioning.Captioning) -> Node | None:
    if job.order is None:
        return None
    if job.running:
        text = (
            say("{done} of {total} pictures", done=job.done, total=job.total)
            if job.loaded
            else say("Loading {model}", model=job.order.model)
        )
        progress = [node("p", text), view.bar(job.done / job.total, say("Captions"))]
        return node("div", *progress, draw_latest(job))
    told = [node("p", job.error, cls="obstacle")] if job.error else []
    skipped = [node("li", why) for why in job.skipped.values()]
    left_out = (
        node("details", node("summary", say("Pictures that were left out")), node("ul", *skipped))
        if skipped
        else None
    )
    return node("div", *told, node("p", outcome(job)), left_out, draw_latest(job))


def draw_beside() -> Node | None:
    """That a training goes on, and what that means here."""
    busy = story.active()
    if busy is None:
        return None
    text = (
        say(
            "{run} is training on the graphics card. Beside it both get slower, and the card's memory may run out.",
            run=busy.name,
        )
        if try_view.on_card()
        else say("{run} is training. Captions can be written meanwhile; both get slower.", run=busy.name)
    )
    return node("p", text, cls="note")


def outcome(job: captioning.Captioning) -> str:
    count = len(job.written)
    if job.cancelled:
        return (
            say("Cancelled; 1 caption was written.")
            if count == 1
            else say("Cancelled; {count} captions were written.", count=count)
        )
    return say("1 caption was written.") if count == 1 else say("{count} captions were written.", count=count)


def draw_latest(job: captioning.Captioning) -> Node | None:
    """The captions that came last, the latest first."""
    latest = [item for item in reversed(job.new.items()) if item[0].exists()][:LATEST]
    if not latest or job.order is None:
        return None
    rows = [
        node(
            "li",
            node(
                "img",
                src=view.url(uploads.thumbnail(path, job.order.project.thumbs)),
                alt=path.name,
                loading="lazy",
            ),
            node("span", job.written.get(path, text) or say("(nothing)")),
        )
        for path, text in latest
    ]
    return node("ul", *rows, cls="captions-made")


# -- handlers --------------------------------------------------------------------------------------------------------


def checked(source: str) -> str:
    """A model of the menu, or one that a person at this computer named."""
    if source not in {known for _, known in menu()}:
        reach.not_in_menu(source, say("The model for captions"))
    return source


def write(values: Mapping[str, Any], writer: Writer) -> Node | None:
    """Begin to write captions; why not, where it can't be."""
    try:
        project = open_project(values["project"])
        if not project.pictures():
            raise ValueError(say("No usable pictures yet: drop some on the Make page."))
        source = checked((values["model"] or "").strip())
        if source in captioners.OFFERS and not is_here(source):
            raise ValueError(say("{name} is not on this computer yet; press Download first.", name=source))
        options = {name: values[name] for name in ("threshold", "character_threshold")}
        options |= {"without": values["without"].split(","), "max_tokens": int(values["max_tokens"])}
        order = Order(
            project,
            source,
            existing=values["existing"],
            trigger=values["trigger"].strip(),
            device="cpu" if values["on_cpu"] else "auto",
            options=options,
        )
        captioning.current.start(order, writer(project))
    except ValueError as error:
        return node("p", str(error), cls="obstacle")
    return None


def get(source: str | None) -> Node | None:
    """Download the chosen model."""
    try:
        getting.start(source or "")
    except ValueError as error:
        return node("p", str(error), cls="obstacle")
    return None


# -- layout and wiring -----------------------------------------------------------------------------------------------


def build(*, remote: bool = False) -> Part:
    """`remote`: the page is open to other computers, so it takes no paths of this one."""
    gr.Markdown(ABOUT, elem_classes="quiet")
    source = menu()[0][1]
    kind = kind_of(source)
    with gr.Row(elem_classes="captioner"):
        model = gr.Dropdown(
            menu(),
            value=source,
            label="Model",
            allow_custom_value=not remote,
            elem_id="captioner",
            scale=4,
            min_width=220,
            info="One of the menu, or the path of a folder or a Hugging Face name.",
        )
        get_button = gr.Button(
            "Download", visible=not is_here(source), scale=1, min_width=110, elem_id="get-captioner"
        )
        stop_getting = gr.Button("Cancel", scale=1, min_width=110, visible=False, elem_id="stop-captioner")
    existing = gr.Radio(
        EXISTING, value="skip", label="Pictures that have a caption", elem_id="caption-existing"
    )
    with gr.Accordion("More", open=False, elem_id="caption-more"):
        trigger = gr.Textbox(
            "",
            label="First word",
            max_length=200,
            elem_id="caption-trigger",
            info="Each caption begins with it. Your trigger word needs no mention: training puts it in front.",
        )
        threshold = gr.Slider(
            0.05,
            0.95,
            0.35,
            visible=kind != "blip",
            step=0.05,
            label="How sure of a tag",
            elem_id="caption-threshold",
            info="Lower writes more tags.",
        )
        character_threshold = gr.Slider(
            0.05,
            0.95,
            0.85,
            visible=kind != "blip",
            step=0.05,
            label="How sure of a character's name",
            elem_id="caption-character-threshold",
        )
        without = gr.Textbox(
            "",
            label="Tags never to write",
            visible=kind != "blip",
            elem_id="caption-without",
            info="With commas between them.",
            max_length=5000,
        )
        max_tokens = gr.Slider(
            5,
            100,
            40,
            step=1,
            label="Longest sentence",
            visible=kind != "tagger",
            elem_id="caption-tokens",
            info="In tokens, about three for two words.",
        )
    on_cpu = gr.Checkbox(False, label="Use the processor", visible=False, elem_id="caption-on-cpu")
    with gr.Row():
        write_button = gr.Button("Write captions", variant="primary", elem_id="write-captions")
        cancel = gr.Button("Cancel", visible=False, elem_id="cancel-captions")
    obstacle = view.component("caption-obstacle")
    state = view.component("caption-state")
    return Part(
        model=model, get=get_button, stop_getting=stop_getting, existing=existing, trigger=trigger, threshold=threshold,
        character_threshold=character_threshold, without=without, max_tokens=max_tokens, on_cpu=on_cpu,
        write=write_button, cancel=cancel, obstacle=obstacle, state=state,
    )  # fmt: skip


def wire(
    part: Part, project: gr.components.Component, writer: Writer = lambda project: folder.write_files
) -> None:
    """`project` holds the name of the project; `writer` gives who writes its captions."""
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    kinds = [control for controls in part.by_kind().values() for control in controls]
    part.model.change(
        lambda source: picked(part, source), part.model, [*kinds, part.get], queue=False, **quiet
    )
    part.get.click(get, part.model, part.obstacle, queue=False, **quiet)
    part.stop_getting.click(getting.cancel, queue=False, **quiet)
    part.write.click(
        lambda **values: write(values, writer),
        None,
        part.obstacle,
        inputs_kwargs=part.inputs() | {"project": project},
        **quiet,
    )
    part.cancel.click(captioning.current.cancel, queue=False, **quiet)
