"""The LoRAs of Try it, a row for each: which, how strongly, and how strongly each part of it."""

from typing import NamedTuple

import gradio as gr

from . import view

MOST_LORAS = 4  # at once
FIRST, OTHERS = 1.0, 0.5  # strengths to begin with


class Row(NamedTuple):
    row: gr.Column
    lora: gr.Dropdown
    strength: gr.Slider
    unet: gr.Slider
    text: gr.Slider
    down: gr.Slider
    mid: gr.Slider
    up: gr.Slider
    blocks: gr.Textbox

    def inputs(self, number: int) -> dict[str, gr.components.Component]:
        """By the names that `drawing.job` takes."""
        return {f"{name}_{number}": getattr(self, name) for name in self._fields if name != "row"}

    @property
    def strengths(self) -> list[gr.components.Component]:
        return [self.strength, self.unet, self.text, self.down, self.mid, self.up]


def build(number: int, remote: bool) -> Row:
    suffix = f" {number + 1}" if number else ""
    with gr.Column(visible=number == 0, elem_classes="lora-row") as row:
        with gr.Row():
            menu = gr.Dropdown(
                [("no LoRA", "")],
                value="",
                label=f"LoRA{suffix}",
                allow_custom_value=not remote,
                elem_id=f"lora-{number}",
                info="From your runs, or paste a path." if not number else None,
                scale=1,
                min_width=220,
            )
            strength = gr.Slider(
                -1,
                2,
                OTHERS if number else FIRST,
                step=0.05,
                label=f"Strength{suffix}",
                elem_id=f"strength-{number}",
                elem_classes="amount",
                scale=1,
                min_width=220,
                info="0 is the model without it." if not number else None,
            )
        with gr.Accordion(
            f"Parts of LoRA{suffix}", open=False, elem_id=f"parts-{number}", elem_classes="parts"
        ):
            gr.Markdown(
                "Each part counts this many times the strength above: 1 as it is, 0 not at all.",
                elem_classes="quiet",
            )
            with gr.Row():
                unet = factor("U-Net", f"unet-{number}")
                text = factor("Text encoder", f"text-{number}")
            with gr.Row():
                down = factor("Down blocks", f"down-{number}")
                mid = factor("Middle block", f"mid-{number}")
                up = factor("Up blocks", f"up-{number}")
            blocks = gr.Textbox(
                "",
                label="Single blocks",
                placeholder="IN04=0.5 OUT03=0",
                info="By the names of block weights: IN00 … IN11, MID, OUT00 … OUT11, TE1, TE2. OUT* is all that begin so.",
                elem_id=f"blocks-{number}",
            )
    return Row(row, menu, strength, unet, text, down, mid, up, blocks)


def script() -> gr.HTML:
    """A strength that was reset, or cut to the largest, is told as any other."""
    return view.script("amounts", "amount.js")


def factor(label: str, elem_id: str) -> gr.Slider:
    return gr.Slider(
        0, 2, 1, step=0.05, label=label, elem_id=elem_id, elem_classes="amount", min_width=170, buttons=[]
    )
