"""A part of Try it: the LoRA copied into ComfyUI, A1111, Forge or another folder of this computer."""

from typing import Any, NamedTuple

import gradio as gr

from . import export, reach, try_view, view
from .view import Node
from .words import say

QUIET = {"api_visibility": "private", "show_progress": "hidden"}


class Part(NamedTuple):
    name: gr.Textbox
    plain: gr.Checkbox
    programs: gr.HTML
    folder: gr.Textbox
    copy: gr.Button
    told: gr.HTML


def copy(lora: str, name: str, plain: bool, folder: str, typed: str) -> Node:
    """Copy a LoRA into a program's folder, or where there is none into one that was typed; what became of it."""
    try:
        if not lora:
            raise ValueError(say("Choose a LoRA first."))
        if folder:
            return try_view.draw_copied(export.into_program(lora, folder, name, plain=plain))
        return try_view.draw_copied(export.into_folder(lora, typed, name, plain=plain))
    except (ValueError, OSError) as error:
        return try_view.draw_obstacle(str(error))


def programs() -> Node:
    """The programs that were found here, each with its button."""
    return try_view.draw_programs([] if reach.confined else export.programs())


def build(*, remote: bool) -> Part:
    """Only at this computer can files be copied into other programs; for others it stays hidden, and is refused."""
    with gr.Accordion("Copy into another program", open=False, elem_id="copying", visible=not remote):
        with gr.Row():
            name = gr.Textbox("", label="Name of the copy", elem_id="copy-name", min_width=160)
            plain = gr.Checkbox(False, label="Without training details", elem_id="copy-plain", min_width=160)
        programs = view.component("programs")
        with gr.Row():
            folder = gr.Textbox(
                "",
                label="Or a folder",
                placeholder="Path of a folder on this computer",
                elem_id="copy-folder",
                min_width=200,
                scale=3,
            )
            button = gr.Button("Copy there", size="sm", elem_id="copy-there", min_width=100, scale=1)
        told = view.component("copied")
        gr.Markdown("Nothing is overwritten: a name that is taken gets -2.", elem_classes="quiet")
    return Part(name, plain, programs, folder, button, told)


def wire(part: Part, lora: gr.components.Component) -> None:
    """`lora` is the menu of what is copied."""

    def into_program(lora: str, name: str, plain: bool, event: gr.EventData) -> Any:
        return copy(lora, name, plain, str(event._data.get("folder", "")), "")

    def into_folder(lora: str, name: str, plain: bool, folder: str) -> Any:
        return copy(lora, name, plain, "", folder)

    given = [lora, part.name, part.plain]
    part.programs.click(into_program, given, part.told, **QUIET)
    gr.on(
        [part.copy.click, part.folder.submit],
        into_folder,
        [*given, part.folder],
        part.told,
        **QUIET,
    )
