"""What the Watch page shows of a run: header, previews, words on its curves, log, and details."""

import json
from datetime import datetime

from lora_sd import hardware, run
from lora_sd.run import Run, State

from . import bar, cards, curves, places, reach, story, view
from .story import Picture, Story, duration
from .uploads import thumbnail
from .view import Node, node
from .words import say

MOST_COLUMNS = 9  # steps side by side, unless all are asked for
MOST_OF_ALL = 60  # even then
LOG_LINES = 200
SMALL, LARGE = 256, 1024  # pixels of a preview in the table and beside another


def draw_header(told: Story, place: int = 0) -> Node:
    """`place` is that of a waiting run in the line, 1 for the next."""
    state = told.state
    share = state.step / state.total if state.total else 0
    return node(
        "div",
        node(
            "div",
            node("h2", bar.title(told)),
            node("span", word(state), cls=f"badge {state.status}"),
            cls="title",
        ),
        view.bar(share, say("Progress of this run")),
        node("p", progress(told), cls="quiet"),
        cards.draw(told) or draw_reason(told, place),
        draw_warning(told),
        draw_actions(told),
        *(node("p", note, cls="note") for note in told.notes[-3:]),
        cls="header",
    )


def progress(told: Story) -> str:
    state = told.state
    parts = [story.place(state)]
    if state.active and (not state.step or state.status != "training"):
        parts.insert(0, state.phase)
    if told.seconds_left is not None:
        parts.append(say("{time} left", time=duration(told.seconds_left)))
    if told.seconds_per_step:
        parts.append(say("{seconds} s per step", seconds=f"{told.seconds_per_step:.2g}"))
    if told.memory:
        parts.append(say("{size} GB of memory", size=f"{told.memory / bar.GB:.1f}"))
    return " · ".join(part for part in parts if part)


def draw_reason(told: Story, place: int = 0) -> Node | None:
    """What there is to say of a run that did not fail."""
    sentence = reason(told, place)
    return node("p", sentence, cls="note") if sentence else None


def reason(told: Story, place: int) -> str:
    status = told.state.status
    if status == "queued":
        return waiting(place)
    if told.stopping:
        return say("Stopping after this step, and saving …")
    if told.pausing:
        return say("Pausing after this step; everything is kept …")
    if status == "stopped" and not told.state.step:
        return say("It has not begun. Nothing is lost: start it whenever you like.")
    if status == "stopped":
        return say("Stopped as you asked. What it had learned is saved; it can go on from there.")
    if status == "paused":
        return say("Paused as you asked. Everything is kept; it goes on exactly where it was.")
    return say("Your LoRA is ready.") if status == "finished" else ""


def draw_warning(told: Story) -> Node | None:
    """What a run that is on should be looked at for, and pictures that it does without."""
    warnings = []
    if told.silence is not None:
        warnings.append(node("p", silent(told.silence)))
    if spilled(told) and told.state.active:
        text = say(
            "The card's memory is full and steps have become far slower: it uses the computer's memory. Close other programs, or pause it and go on with less memory."
        )
        warnings.append(node("p", text))
    if told.left_out:
        items = node("ul", *(node("li", sentence) for sentence in told.left_out))
        warnings.append(node("details", node("summary", left_out(len(told.left_out))), items))
    return node("div", *warnings, cls="warnings", role="status") if warnings else None


def left_out(number: int) -> str:
    if number == 1:
        return say("1 picture is left out — see which")
    return say("{number} pictures are left out — see which", number=number)


def spilled(told: Story) -> bool:
    best = hardware.best()
    return best.kind == "cuda" and told.spilled(best.total)


def silent(seconds: float) -> str:
    return say(
        "No news for {time}. The disk or a network share may not answer, or the card has run out of memory and uses the computer's. Wait, or stop it: what was saved stays.",
        time=duration(seconds),
    )


def waiting(place: int) -> str:
    """What a waiting run at that place says of itself."""
    if place > 1:
        return say("Number {place} in line. It begins by itself when those before it are done.", place=place)
    return say("Next in line. It begins by itself when the one that is training is done.")


def word(state: State) -> str:
    """The status of a run in a person's words; one of a later version as it is."""
    match state.status:
        case "stopped":
            return say("stopped and saved") if state.step else say("not begun")
        case "queued":
            return say("waiting")
        case "starting":
            return say("starting")
        case "caching":
            return say("preparing")
        case "training":
            return say("training")
        case "paused":
            return say("paused")
        case "finished":
            return say("finished")
        case "failed":
            return say("failed")
        case "interrupted":
            return say("interrupted")
    return state.status


def draw_actions(told: Story) -> Node:
    """What can be asked of a run; the card of one that failed has its own button first."""
    name, status = told.folder.name, told.state.status
    saved = run.saved_step(told.folder)
    buttons = []
    if told.state.active:
        buttons += [view.button(say("Sample now"), "preview", run=name)]
        buttons += [view.button(say("Save now"), "save", run=name)]
        buttons += [view.button(say("Pause"), "pause", run=name)]
        buttons += [view.button(say("Stop and save"), "stop", run=name)]
    elif status == "queued":
        buttons += [view.button(say("Remove from the line"), "leave", run=name)]
    elif status == "failed":
        buttons += [view.button(say("Try again as it is"), "resume", run=name)]
    elif status in ("stopped", "paused"):
        buttons += [view.button(cards.from_where(told), "resume", run=name)]
        buttons += [view.button(say("Resume with less memory"), "remedy", run=name)] if spilled(told) else []
    if story.checkpoints(told.folder):
        cls = "primary" if status in ("finished", "stopped", "paused") else ""
        buttons += [view.button(say("Try it"), "try", cls=cls, run=name)]
    if status in ("finished", "stopped", "paused") and saved:
        buttons += [draw_longer(name)]
    return node("div", *buttons, cls="actions")


def draw_longer(run_id: str) -> Node:
    steps = node("input", type="number", name="steps", value="500", min="1", aria_label=say("Steps more"))
    return node(
        "span",
        view.button(say("Train longer"), "extend", run=run_id),
        steps,
        node("span", say("steps more")),
        cls="ask",
    )


def draw_previews(told: Story, columns: str = "spread") -> Node:
    """Prompts × steps; column 0 is the base model without the LoRA. `columns`: "spread", "latest" or "all" of many."""
    if not told.pictures:
        ahead = told.state.active or told.state.status == "queued"
        text = (
            say("The first pictures come before the first step: what the model draws without your LoRA.")
            if ahead
            else say("This run made no preview pictures. Prompts for them are under Advanced on Make.")
        )
        return node("p", text, cls="quiet")
    steps = sorted({step for step, _ in told.pictures})
    shown = chosen(steps, columns)
    prompts = {index: picture.prompt for (_, index), picture in sorted(told.pictures.items())}
    head = node(
        "tr",
        node("th", node("span", say("Prompt"), cls="unseen"), scope="col"),
        *(node("th", column(step), scope="col") for step in shown),
    )
    rows = [
        node(
            "tr",
            node("th", prompt, scope="row", title=prompt),
            *(draw_cell(told, step, index) for step in shown),
        )
        for index, prompt in prompts.items()
    ]
    return node(
        "div",
        node("table", node("thead", head), node("tbody", *rows)),
        cls="matrix",
        data_words=json.dumps(comparing()),
        data_many="" if len(steps) > MOST_COLUMNS else None,
    )


def chosen(steps: list[int], columns: str) -> list[int]:
    """Which steps are shown: without the LoRA always, and as many others as `columns` says."""
    if columns == "latest" and len(steps) > MOST_COLUMNS:
        return [steps[0], *steps[1 - MOST_COLUMNS :]]
    return [steps[i] for i in story.thin(len(steps), MOST_OF_ALL if columns == "all" else MOST_COLUMNS)]


def comparing() -> dict[str, str]:
    """What the window says in which two pictures are compared."""
    return {
        "left": say("Left"),
        "right": say("Right"),
        "cut": say("Where the left picture ends"),
        "before": say("One picture back"),
        "after": say("One picture on"),
        "up": say("Prompt before"),
        "down": say("Next prompt"),
        "keys": say("Arrow keys: ← → change the right picture, ↑ ↓ the prompt."),
        "close": say("Close"),
        "without": say("without LoRA"),
        "with": say("with LoRA"),
    }


def column(step: int) -> str:
    return say("step {step}", step=f"{step:,}") if step else say("without LoRA")


def draw_cell(told: Story, step: int, index: int) -> Node:
    picture = told.pictures.get((step, index))
    if picture is None:
        return node("td")
    try:
        small, large = served(told, picture, SMALL), served(told, picture, LARGE)
    except (OSError, ValueError):
        text = say("This picture is gone, or damaged.")
        return node("td", node("span", text, cls="quiet gone"))
    image = node("img", src=small, alt=f"{picture.prompt}, {column(step)}", data_step=step, loading="lazy")
    cell = node(
        "button",
        image,
        type="button",
        cls="picture",
        data_after=large,
        data_title=f"{picture.prompt} · {column(step)}",
    )
    return node("td", cell)


def served(told: Story, picture: Picture, size: int) -> str:
    folder = places.thumbs() / "runs" / told.folder.name
    return view.url(thumbnail(picture.path, folder, size))


def draw_words(told: Story) -> Node:
    """The curves in words, for those who can't see them, and what to make of them."""
    said = [*curves.words(told), say("The curve is noisy by nature; the pictures tell more.")]
    return node("p", " ".join(said), cls="quiet")


def draw_log(told: Story) -> Node:
    text = cards.tail(told.folder, LOG_LINES)
    copying = {"copy": "pre", "copied": say("Copied"), "failed": say("Not copied")}
    return node(
        "div",
        view.button(say("Copy the log"), "copy", **copying) if text else None,
        node("pre", text or say("Nothing yet."), cls="log", tabindex="0"),
        cls="copied",
    )


def draw_details(told: Story) -> Node:
    """Everything else that is known of a run: when, where, all it noted, files, settings."""
    folder = told.folder
    began = next((found.started for found in story.runs() if found.folder == folder), None)
    rows = {
        say("Began"): when(began) if began else "",
        say("Folder"): "" if reach.confined else str(folder),
        say("Files"): ", ".join(f"{name} ({column(step)})" for name, step in told.saved.items()),
    }
    facts = [node("div", node("dt", name), node("dd", text)) for name, text in rows.items() if text]
    notes = [node("li", text) for text in told.notes]
    return node(
        "div",
        node("dl", *facts, cls="summary"),
        node(
            "div",
            view.button(say("Use these settings"), "reuse", event="reuse", run=folder.name),
            view.button(say("Save a problem report"), "report", event="report", run=folder.name),
            cls="actions",
        ),
        node("h4", say("What it noted")) if notes else None,
        node("ul", *notes) if notes else None,
        node("h4", say("Settings that are not at their default")),
        node(
            "pre",
            cards.settings(folder) or say("All settings are at their default."),
            cls="log",
            tabindex="0",
        ),
        cls="details",
    )


def when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def menu(runs: list[Run]) -> list[tuple[str, str]]:
    return [(f"{found.name} · {when(found.started)}", found.folder.name) for found in runs]
