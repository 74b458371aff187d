"""What the Try it page shows: of a LoRA, of a picture on its way and made, and of a training that holds the machine."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lora_sd import hardware
from lora_sd.lora.inspection import Inspection
from lora_sd.paths import shown
from lora_sd.run import safe_name

from . import export, gallery, story, view
from .view import Node, node
from .words import say


def draw_about(known: Inspection, *, complete: bool = True) -> Node:
    """`complete`: the vectors of its word lie beside it, where it has one."""
    ranks = ", ".join(map(str, known.ranks))
    facts = [say("rank {ranks}", ranks=ranks) if ranks else "", _vectors(known), size(known.size)]
    word = (
        [node("span", say("Trigger word:") + " "), node("b", known.trigger), " · "] if known.trigger else []
    )
    about = node("p", *word, node("span", " · ".join(filter(None, facts)), cls="quiet"))
    if complete or not (known.word and known.word.file):
        return about
    missing = say("It goes with {file}, which is not here; open that file, too.", file=known.word.file)
    return node("div", about, node("p", missing, cls="obstacle"))


def draw_empty() -> Node:
    """That there is no LoRA yet, and what to do."""
    text = say(
        "You have no LoRA yet. Train one on Make, or open a .safetensors file; until then you see what the base model draws."
    )
    return node("p", text, cls="note")


def _vectors(known: Inspection) -> str:
    if not known.word:
        return ""
    return say("1 vector") if known.word.vectors == 1 else say("{number} vectors", number=known.word.vectors)


def size(number: int) -> str:
    if number >= 2**30:
        return f"{number / 2**30:.1f} GB"
    return f"{number / 2**20:.1f} MB" if number >= 2**18 else f"{number / 2**10:.0f} KB"


def draw_progress(text: str, done: int, total: int) -> Node:
    return node(
        "div",
        node(
            "p", node("span", f"{text} …", cls="quiet"), view.button(say("Cancel"), "cancel"), cls="under-way"
        ),
        view.bar(done / total, text),
        role="status",
    )


# -- pictures ----------------------------------------------------------------------------------------------------------


def draw_waiting() -> Node:
    return node("p", say("Your picture appears here."), cls="waiting quiet")


def draw_pictures(paths: Sequence[Path], counts: Mapping[str, int]) -> Node:
    """Pictures that were just made; `counts` are those of the drawing process, for whoever measures."""
    one = "one" if len(paths) == 1 else "several"
    figures = (_figure(path) for path in paths)
    return node("div", *figures, cls=f"made {one}", data_counts=json.dumps(counts))


def _figure(path: Path) -> Node:
    kept = gallery.of_path(path)
    prompt, text = (kept.job["prompt"], kept.text) if kept else ("", "")
    return node(
        "figure",
        node("img", src=view.url(path), alt=shown(prompt) or say("The picture")),
        node("figcaption", download(path, prompt), how(text)),
    )


def download(path: Path, prompt: str) -> Node:
    """A link that hands out the file itself, with the text in it."""
    name = f"{safe_name(prompt)[:60]}.png"
    return node("a", say("Download"), href=view.url(path), download=name, cls="act")


def how(text: str) -> Node | None:
    if not text:
        return None
    return node("details", node("summary", say("How it was made")), node("pre", text, cls="log"))


def draw_pair(before: Path, after: Path) -> Node:
    """Without and with, one over the other, and how far which is seen."""
    labels = say("Without"), say("With")
    pair = node(
        "div",
        node("img", src=view.url(after), alt=say("with the LoRA")),
        node("img", src=view.url(before), alt=say("without the LoRA"), cls="before"),
        cls="pair",
    )
    slide = node(
        "label",
        node("span", labels[0]),
        node(
            "input",
            type="range",
            min="0",
            max="100",
            step="1",
            aria_label=say("How much is shown with the LoRA"),
        ),
        node("span", labels[1]),
    )
    return node("div", pair, slide, id="compare-slider", cls="cut", data_cut="")


# -- the machine ---------------------------------------------------------------------------------------------------------


def draw_notice() -> Node | None:
    """That a training holds the machine, and what that means here."""
    busy = story.active()
    if busy is None:
        return None
    if hardware.best().kind == "cuda":
        text = say(
            "{name} is training on the graphics card. Pictures can be made on the processor meanwhile, slowly.",
            name=busy.name,
        )
    else:
        text = say("{name} is training. Pictures can be made meanwhile; both get slower.", name=busy.name)
    return node("p", text, cls="note")


def on_card() -> bool:
    """Whether a training holds the graphics card now."""
    return hardware.best().kind == "cuda" and story.active() is not None


# -- other programs --------------------------------------------------------------------------------------------------------


def draw_programs(programs: Sequence[export.Program]) -> Node:
    """A button for each program that was found."""
    if not programs:
        return node(
            "p",
            say(
                "ComfyUI, A1111, Forge or StabilityMatrix were not found in the usual places; type the folder of LoRAs."
            ),
            cls="quiet",
        )
    return node("ul", *map(_program, programs), cls="programs")


def _program(program: export.Program) -> Node:
    copy = view.button(say("Copy into {program}", program=program.name), "copy", folder=str(program.loras))
    return node("li", copy, node("span", str(program.loras), cls="quiet"))


def draw_copied(copied: export.Copied) -> Node:
    lines = [node("p", say("Copied to {file}", file=str(copied.lora)))]
    if copied.word:
        lines.append(node("p", say("Its word to {file}", file=str(copied.word))))
    if copied.note:
        lines.append(node("p", copied.note, cls="quiet"))
    return node("div", *lines, role="status", cls="note")


def draw_obstacle(text: str) -> Node:
    return node("p", text, cls="obstacle", role="alert")
