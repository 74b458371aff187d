"""A card for a run that ended early: what happened, why, one button that goes on, and the details folded below.

What each button does comes from lora_sd/remedies.py, as for the command line.
"""

import contextlib
from functools import lru_cache
from pathlib import Path

from lora_sd import config as cfg
from lora_sd import remedies, run
from lora_sd.events import Failed
from lora_sd.files import changed
from lora_sd.remedies import Options

from . import view
from .story import Story
from .view import Node, node
from .words import say

LOG_LINES = 40
LOG_BYTES = 20_000


def draw(told: Story) -> Node | None:
    """The card of a run that failed or was cut off; None for any other."""
    if told.state.status == "interrupted":
        return interrupted(told)
    return failed(told) if told.state.status == "failed" else None


def failed(told: Story) -> Node:
    failure = told.failure or Failed(told.state.error)
    options = go_on_with(told.folder, failure)
    why = told.state.error or failure.text
    return card(
        title(failure.code),
        [why, advice(failure.code, options)],
        _button(told, failure, options),
        details(told, failure.details),
        told.folder.name,
    )


def interrupted(told: Story) -> Node:
    """What is known of a run whose process is gone, and what is kept of it."""
    saved = run.saved_step(told.folder)
    why = say(
        "It ended without a word: the computer slept or lost power, or the process was ended (too little memory does that, too)."
    )
    kept = (
        say("All was saved at step {step}; it goes on from there.", step=f"{saved:,}")
        if saved
        else say("It can start again.")
    )
    step = told.state.step
    heading = (
        say("Stopped unexpectedly at step {step}", step=f"{step:,}")
        if step
        else say("Stopped unexpectedly before the first step")
    )
    return card(
        heading,
        [why, kept],
        view.button(from_where(told), "resume", cls="primary", run=told.folder.name),
        details(told, told.state.error),
        told.folder.name,
    )


def card(heading: str, sentences: list[str], button: Node, folded: str, run_id: str) -> Node:
    """Title, why, one button; Details, Copy and Save report beside it."""
    return node(
        "section",
        node("h3", node("span", "⚠ ", aria_hidden="true"), heading),
        *(node("p", sentence) for sentence in sentences if sentence),
        node(
            "div",
            button,
            view.button(
                say("Copy details"), "copy", copy=".error pre", copied=say("Copied"), failed=say("Not copied")
            ),
            view.button(say("Save report"), "report", event="report", run=run_id),
            cls="actions",
        ),
        node("details", node("summary", say("Details")), node("pre", folded, tabindex="0")),
        cls="error",
        role="alert",
    )


def title(code: str) -> str:
    match code:
        case "memory":
            return say("Memory ran out")
        case "disk":
            return say("The disk is full")
        case "place":
            return say("A file or folder could not be used")
        case "numbers":
            return say("The numbers broke")
        case "card":
            return say("The graphics card gave up")
        case "model":
            return say("The base model could not be used")
        case "pictures":
            return say("The pictures could not be used")
        case "changed":
            return say("Something is not as it was")
        case "input":
            return say("It can't be trained like this")
    return say("Something unexpected happened")


def advice(code: str, options: Options | None) -> str:
    """What the button will do, or what to do first."""
    match code, options:
        case "memory", ("--machine.memory", *_):
            return say("Next it saves memory in another way, which is slower; nothing else changes.")
        case "memory", ("--optim.batch_size", size, *_):
            return say(
                "Next it takes {size} at a time, more often: each step sees as many as now.", size=size
            )
        case "memory", ("--data.resolution", side, *_):
            return say("Next it trains on smaller pictures, of {side} pixels.", side=side)
        case "memory", _:
            return say("Choose smaller pictures or another base model, or close what else uses the memory.")
        case "numbers", _:
            return say("A lower learning rate usually helps; so does taking out a damaged picture.")
        case "card", _:
            return say("Often it is well again after a moment, or once the computer was started anew.")
        case (("disk" | "place"), _):
            return say("Mend that first, then go on: what was learned up to the last save is kept.")
        case (("model" | "pictures" | "input"), _):
            return say("Take its settings to Make, change what is wrong there, and start anew.")
        case "", _:
            return say("What was learned up to the last save is kept. A report helps to find out why.")
    return ""


def _button(told: Story, failure: Failed, options: Options | None) -> Node:
    name = told.folder.name
    if options is None:
        return view.button(say("Change the settings"), "reuse", cls="primary", event="reuse", run=name)
    match failure.code:
        case "memory":
            words = say("Restart with less memory")
        case "numbers":
            words = say("Resume at half the learning rate")
        case "changed":
            words = say("Resume with the changes")
        case _:
            words = from_where(told)
    return view.button(words, "remedy", cls="primary", run=name)


def from_where(told: Story) -> str:
    """What the button to go on is called: where it will begin."""
    if saved := run.saved_step(told.folder):
        return say("Resume from step {step}", step=f"{saved:,}")
    return say("Start again") if told.steps else say("Start")


def go_on_with(folder: Path, failure: Failed) -> Options | None:
    """As remedies.options; nothing can go on whose settings can't be read."""
    with contextlib.suppress(ValueError, OSError):
        return remedies.options(folder, failure)
    return None


def options(told: Story) -> Options:
    """What the button of a run's card goes on with; of one that did not fail, what its button for less memory does."""
    failure = told.failure or Failed("", code="" if told.state.status == "failed" else "memory")
    return go_on_with(told.folder, failure) or ()


def details(told: Story, first: str) -> str:
    """Traceback, the end of the log, and the settings that are not at their default."""
    parts = [first.strip(), tail(told.folder, LOG_LINES), settings(told.folder)]
    return "\n\n".join(part for part in parts if part) or say("Nothing more is known.")


def settings(folder: Path) -> str:
    """The run's settings as TOML, those at their default left out; or why they can't be read."""
    file = folder / "config.toml"
    return _settings(file, changed(file))


@lru_cache(maxsize=32)
def _settings(file: Path, stamp: int) -> str:
    try:
        return cfg.dumps(cfg.load(file), brief=True).strip()
    except (ValueError, OSError) as error:
        return str(error)


def tail(folder: Path, lines: int) -> str:
    """The last lines that the trainer printed."""
    path = folder / "log.txt"
    if not path.exists():
        return ""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_BYTES))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(line.rpartition("\r")[2] for line in text.splitlines()[-lines:])
