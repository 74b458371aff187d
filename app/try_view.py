"""What the Try it page shows of a LoRA, of a picture on its way, and of a training that holds the machine."""

from lora_sd import hardware
from lora_sd.lora.inspection import Inspection

from . import story, view
from .view import Node, node


def draw_about(known: Inspection, *, complete: bool = True) -> Node:
    """`complete`: the vectors of its word lie beside it, where it has one."""
    ranks = ", ".join(map(str, known.ranks))
    facts = [f"rank {ranks}" if ranks else "", _vectors(known), _size(known.size)]
    word = [node("span", "Trigger word "), node("b", known.trigger), " · "] if known.trigger else []
    about = node("p", *word, node("span", " · ".join(filter(None, facts)), cls="quiet"))
    if complete or not (known.word and known.word.file):
        return about
    missing = f"It goes with {known.word.file}, which is not here; open that file, too."
    return node("div", about, node("p", missing, cls="obstacle"))


def _vectors(known: Inspection) -> str:
    if not known.word:
        return ""
    return "1 vector" if known.word.vectors == 1 else f"{known.word.vectors} vectors"


def _size(size: int) -> str:
    return f"{size / 2**20:.1f} MB" if size >= 2**18 else f"{size / 2**10:.0f} KB"


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
