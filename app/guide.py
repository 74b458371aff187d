"""What leads a person on the page: "Change" links to the controls behind a line of the plan, and the first-run tour."""

from typing import Any

import gradio as gr

from . import story, view
from .words import say


def component() -> gr.HTML:
    """It listens for "Change" links and shows the tour."""
    return view.script("guide", "lead.js", "tour.js")


def tour() -> dict[str, Any]:
    """The three steps; `fresh`: nothing was trained here yet, so they are shown by themselves."""
    return {
        "fresh": not story.runs(),
        "steps": [
            {
                "at": "files",
                "title": say("1 · Drop your pictures"),
                "text": say(
                    "15 to 30 varied ones, or a .zip. Copies are used; your own files stay as they are. "
                    "None at hand? There is an example set."
                ),
            },
            {
                "at": "trigger",
                "title": say("2 · Choose a word"),
                "text": say(
                    "You will write it in prompts to call your LoRA. Everything else is chosen for you, "
                    "with its reason, and can be changed."
                ),
            },
            {
                "at": "start",
                "title": say("3 · Start, and watch"),
                "text": say(
                    "The first picture comes soon, still without your LoRA. You can close this page: "
                    "training goes on, and Try it waits at the end."
                ),
            },
        ],
        "texts": {
            "name": say("Tour"),
            "next": say("Next"),
            "back": say("Back"),
            "done": say("Done"),
            "close": say("Skip the tour"),
        },
    }
