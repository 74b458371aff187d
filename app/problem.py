"""The problem report on the page: what would be in it, to read first, and the zip to save."""

import secrets
from pathlib import Path

from lora_sd import report
from lora_sd.report import Part

from . import places
from .view import Node, node
from .words import say

NAME = "lora-sd-report.zip"
SHOWN = 20_000  # signs of a part on the page


def made(folder: Path) -> tuple[Node, Path]:
    """What is in the report of a run, and the zip, in a place that the page may hand out."""
    parts = report.parts(folder)
    target = places.uploads() / "report" / secrets.token_hex(8) / NAME
    return draw(parts), report.save(parts, target)


def draw(parts: list[Part]) -> Node:
    rows = [
        node(
            "details",
            node("summary", node("b", part.name), " ", node("span", size(part.text), cls="quiet")),
            node("pre", part.text[-SHOWN:], tabindex="0"),
        )
        for part in parts
    ]
    return node(
        "div",
        node("p", say("It is not sent anywhere. Read what is in it, then save it and hand it on yourself.")),
        *rows,
        node(
            "p",
            say(
                "Taken out: your home folder, your name and this computer's, folders that the settings name, tokens and passwords, captions, prompts, the trigger word, and the names of the run and of the pictures."
            ),
            cls="quiet",
        ),
        cls="contents",
    )


def size(text: str) -> str:
    return say("{size} KB", size=f"{len(text.encode()) / 1024:.1f}")
