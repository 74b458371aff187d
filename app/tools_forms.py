"""The forms of Tools: what each asks for, by the names that tools_act.py takes."""

import gradio as gr

from .tools_act import MOST_LORAS

NONE = ("none", "")
STARTER = ("Starter · small, built in", "starter")
TARGETS = ["attention-qv", "attention", "transformer", "full", "everything"]
Fields = dict[str, gr.components.Component]


def sources(fields: Fields, remote: bool) -> tuple[gr.Row, ...]:
    """The rows of LoRAs after the first."""
    return tuple(_source_row(fields, number, remote) for number in range(1, MOST_LORAS))


def lora_menu(label: str, elem_id: str, remote: bool, info: str | None = None) -> gr.Dropdown:
    return gr.Dropdown(
        [NONE],
        value="",
        label=label,
        info=info,
        allow_custom_value=not remote,
        elem_id=elem_id,
        min_width=200,
    )


def weight_row(fields: Fields, number: int, *, visible: bool) -> gr.Row:
    with gr.Row(visible=visible) as row:
        suffix = f" {number + 1}" if number else ""
        info = (None, None) if number else ("−1 takes it away.", "Factors of single ones.")
        fields[f"weight_{number}"] = gr.Number(
            1.0,
            label=f"Weight{suffix}",
            step=0.1,
            info=info[0],
            elem_id=f"tool-weight-{number}",
            min_width=90,
        )
        fields[f"blocks_{number}"] = gr.Textbox(
            "",
            label=f"Blocks{suffix}",
            placeholder="OUT*=0.5, MID=0",
            info=info[1],
            elem_id=f"tool-blocks-{number}",
            min_width=160,
        )
    return row


def _source_row(fields: Fields, number: int, remote: bool) -> gr.Row:
    with gr.Row(visible=False) as row, gr.Column():
        fields[f"lora_{number}"] = lora_menu(f"LoRA {number + 1}", f"tool-lora-{number}", remote)
        weight_row(fields, number, visible=True)
    return row


def _model_menu(
    label: str, elem_id: str, remote: bool, value: str = "starter", info: str | None = None
) -> gr.Dropdown:
    choices = [STARTER] if value else [NONE, STARTER]
    return gr.Dropdown(
        choices, value=value, label=label, info=info, allow_custom_value=not remote, elem_id=elem_id
    )


def _look(fields: Fields, remote: bool) -> None:
    fields["other"] = lora_menu(
        "Compare with", "tool-other", remote, "Another LoRA, or another checkpoint of the run."
    )
    with gr.Accordion("With the base model", open=False, elem_id="look-more"):
        fields["look_base"] = _model_menu(
            "Base model",
            "look-base",
            remote,
            "",
            "Tells how much the update amplifies what the model has (slower).",
        )
        fields["of"] = gr.Dropdown(
            [("the update (usual)", "delta"), ("down, as the paper", "down"), ("up", "up")],
            value="delta",
            label="Directions compared",
            elem_id="look-of",
        )


def _shrink(fields: Fields, remote: bool) -> None:
    fields["by"] = gr.Radio(
        [("Rank", "rank"), ("Energy", "energy"), ("File size", "size"), ("Ranks as they are", "keep")],
        value="rank",
        label="By",
        elem_id="shrink-by",
    )
    fields["rank"] = gr.Number(
        8,
        label="Rank",
        precision=0,
        minimum=1,
        elem_id="shrink-rank",
        info="More than it has gives room to learn.",
    )
    fields["energy"] = gr.Slider(
        0.5,
        1,
        0.99,
        step=0.005,
        label="Energy to keep",
        visible=False,
        elem_id="shrink-energy",
        info="Of each layer; ranks differ then.",
    )
    fields["size"] = gr.Number(
        20,
        label="File size in MB",
        minimum=0,
        visible=False,
        elem_id="shrink-size",
        info="Layers that gain most get most rank.",
    )


def _combine(fields: Fields, remote: bool) -> None:
    fields["method"] = gr.Dropdown(
        [("Sum: exact, ranks add", "sum"), ("Average", "average"), ("TIES", "ties"), ("DARE", "dare")],
        value="sum",
        label="Method",
        elem_id="combine-method",
        info="TIES and DARE choose single numbers of the updates, so that they hinder each other less.",
    )
    fields["density"] = gr.Slider(
        0.05,
        1,
        0.5,
        step=0.05,
        label="Density",
        visible=False,
        elem_id="combine-density",
        info="The part of each update that is kept.",
    )
    fields["seed"] = gr.Number(
        0, label="Seed", precision=0, visible=False, elem_id="combine-seed", min_width=90
    )
    fields["cut"] = gr.Radio(
        [("Exact", "exact"), ("To a rank", "rank"), ("To an energy", "energy")],
        value="exact",
        label="Cut the result",
        elem_id="combine-cut",
    )
    fields["combine_rank"] = gr.Number(
        32, label="Rank", precision=0, minimum=1, visible=False, elem_id="combine-rank"
    )
    fields["combine_energy"] = gr.Slider(
        0.5, 1, 0.99, step=0.005, label="Energy to keep", visible=False, elem_id="combine-energy"
    )


def _merge(fields: Fields, remote: bool) -> None:
    fields["merge_base"] = _model_menu(
        "Base model", "merge-base", remote, info="As large as the model: look at the free space."
    )


def _extract(fields: Fields, remote: bool) -> None:
    fields["tuned"] = _model_menu("Fine-tuned model", "extract-tuned", remote)
    fields["extract_base"] = _model_menu("Its base model", "extract-base", remote)
    with gr.Row():
        fields["extract_rank"] = gr.Number(
            32,
            label="Rank",
            precision=0,
            minimum=1,
            elem_id="extract-rank",
            min_width=120,
            info="Of every layer.",
        )
        fields["extract_energy"] = gr.Number(
            1,
            label="Energy",
            minimum=0,
            maximum=1,
            step=0.01,
            elem_id="extract-energy",
            min_width=120,
            info="Below 1: less rank.",
        )
    fields["targets"] = gr.Dropdown(TARGETS, value="full", label="Layers", elem_id="extract-targets")


def _convert(fields: Fields, remote: bool) -> None:
    fields["to_layout"] = gr.Dropdown(
        [
            ("kohya · every program", "kohya"),
            ("kohya with diffusers' numbers", "kohya-diffusers"),
            ("ComfyUI's own", "comfyui"),
            ("PEFT", "peft"),
            ("diffusers, its old one", "diffusers"),
        ],
        value="kohya",
        label="Layout",
        elem_id="convert-layout",
    )
    fields["projections"] = gr.Dropdown(
        [("as they are", ""), ("matrices", "linear"), ("convolutions", "conv")],
        value="",
        label="Projections",
        elem_id="convert-projections",
        info="Of Stable Diffusion 2.x only.",
    )


def _check(fields: Fields, remote: bool) -> None:
    """It asks for nothing more."""


def _edit(fields: Fields, remote: bool) -> None:
    labels = {
        "title": "Title",
        "author": "Author",
        "trigger": "Trigger words",
        "licence": "Licence",
        "tags": "Tags",
        "description": "Description",
        "usage": "How to use it",
    }
    for name, label in labels.items():
        fields[name] = gr.Textbox(
            "",
            label=label,
            max_length=20_000,
            lines=3 if name == "description" else 1,
            elem_id=f"edit-{name}",
        )
    fields["thumbnail"] = gr.Image(
        label="New thumbnail",
        type="filepath",
        sources=["upload", "clipboard"],
        height=180,
        elem_id="edit-thumbnail",
    )
    fields["no_thumbnail"] = gr.Checkbox(
        False, label="Take the old thumbnail away", elem_id="edit-no-thumbnail"
    )


FORMS = {
    "look": _look,
    "shrink": _shrink,
    "combine": _combine,
    "merge": _merge,
    "extract": _extract,
    "convert": _convert,
    "check": _check,
    "edit": _edit,
}
