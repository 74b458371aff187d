"""The lower part of Tools: what this computer can do, where models were found, and temporary files."""

import subprocess
import sys

import gradio as gr

from lora_sd import run
from lora_sd.models import find
from lora_sd.paths import shown

from . import housekeeping, loras, models, reach, view
from .tools_view import size, table
from .view import Node, node
from .words import say

PRIVATE = {"api_visibility": "private"}
QUIET = {**PRIVATE, "show_progress": "hidden"}
SECONDS = 180  # for the doctor, who imports torch


# -- handlers ----------------------------------------------------------------------------------------------------------


def examine() -> str:
    """The lines of `python -m lora_sd doctor`."""
    command = [sys.executable, "-m", "lora_sd", "doctor"]
    done = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        env=run.child_environment(),
        timeout=SECONDS,
        check=False,
    )
    return done.stdout or done.stderr


def found() -> Node:
    """The base models on this computer, and the folders that were looked into."""
    rows = [
        [model.title, models.FAMILIES.get(model.family or "", ""), size(model.size), model.where]
        for model in models.refresh()
    ]
    parts = [table([say("Model"), say("Family"), say("Size"), say("Found in")], rows, words=True)]
    if not reach.confined:
        folders = [*find.model_folders(), (say("LoRAs"), loras.folder())]
        places = (
            node("li", node("b", shown(whose)), node("span", f" {shown(path)}", cls="quiet"))
            for whose, path in folders
        )
        parts += [node("p", say("Looked into:")), node("ul", *places)]
        parts.append(node("p", say("More folders: set LORA_SD_MODELS before the start."), cls="quiet"))
    return node("div", *parts)


def tell() -> Node:
    """How much there is to take away."""
    rubbish = housekeeping.temporary()
    text = say(
        "{size} in {count} temporary files: encoded pictures and captions, thumbnails. They are made again when they are needed. {free} are free.",
        size=size(rubbish.size),
        count=len(rubbish.files),
        free=size(housekeeping.free()),
    )
    button = view.button(say("Remove temporary files …"), "ask") if rubbish.files else None
    return node("div", node("p", text), node("p", button, cls="after"))


def ask() -> Node:
    question = say("Remove {size} for good?", size=size(housekeeping.temporary().size))
    buttons = view.button(say("Remove"), "remove", cls="primary"), view.button(say("Keep"), "keep")
    return node("div", node("p", question, role="alert"), node("p", *buttons, cls="actions"))


def answered(event: gr.EventData) -> Node:
    match event._data["act"]:
        case "ask":
            return ask()
        case "remove":
            try:
                gone = say("{size} removed.", size=size(housekeeping.remove()))
            except ValueError as error:
                return node("p", str(error), cls="obstacle")
            return node("p", gone, role="status")
    return tell()


# -- layout and wiring -------------------------------------------------------------------------------------------------


def build() -> None:
    with gr.Accordion("Doctor: what this computer can do", open=False, elem_id="doctor", elem_classes="fold"):
        look = gr.Button("Examine", size="sm", elem_id="examine")
        report = gr.Textbox(
            label="Report",
            lines=6,
            max_lines=30,
            interactive=False,
            buttons=["copy"],
            elem_id="doctor-report",
            elem_classes="code",
        )
        look.click(examine, None, report, **PRIVATE)
    with gr.Accordion(
        "Folders and models", open=False, elem_id="models-found", elem_classes="fold"
    ) as folders:
        again = gr.Button("Look again", size="sm", elem_id="look-again")
        models_found = view.component("found-models")
        gr.on([again.click, folders.expand], found, None, models_found, **QUIET)
    with gr.Accordion("Temporary files", open=False, elem_id="temporary", elem_classes="fold") as temporary:
        told = view.component("temporary-files")
        temporary.expand(tell, None, told, **QUIET)
        told.click(answered, None, told, **QUIET)
