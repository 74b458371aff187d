"""What the Try it page shows of a LoRA, of a picture on its way, and of a training that holds the machine."""

from lora_sd import hardware
from lora_sd.lora.inspection import Inspection

from . import story, view
from .view import Node, node


def draw_about(known: Inspection) -> Node:
    ranks = ", ".join(map(str, known.ranks))
    facts = [f"rank {ranks}" if ranks else "", f"{known.size / 2**20:.1f} MB"]
    word = [node("span", "Trigger word "), node("b", known.trigger), " · "] if known.trigger else []
    return node("p", *word, node("span", " · ".join(filter(None, facts)), cls="quiet"))


def draw_progress(text: str, done: int, total: int) -> Node:
    return node("div", node("span", f"{text} …", cls="quiet"), view.bar(done / total, text))


def draw_notice() -> Node | None:
    """That a training holds the machine, and what that means here."""
    busy = story.active()
    if busy is None:
        return None
    if hardware.best().kind == "cuda":
        text = f"{busy.name} is training on the graphics card. Pictures can be made on the processor meanwhile, slowly."
    else:
        text = f"{busy.name} is training. Pictures can be made meanwhile; both get slower."
    return node("p", text, cls="note")


def on_card() -> bool:
    """Whether a training holds the graphics card now."""
    return hardware.best().kind == "cuda" and story.active() is not None
