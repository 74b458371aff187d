"""What the Watch page shows of a run: header, previews, curve, log, and the list of all runs."""

from datetime import datetime
from pathlib import Path

import pandas as pd

from lora_sd import run
from lora_sd.run import Run, State

from . import bar, places, story, view
from .story import Picture, Story, duration
from .uploads import thumbnail
from .view import Node, node

MOST_POINTS = 500  # in the chart
MOST_COLUMNS = 9  # steps side by side
MOST_RUNS = 40  # in the list
LOG_LINES = 60
SMALL, LARGE = 256, 1024  # pixels of a preview in the table and beside another
LINES = {"each step": "#c9c4bd", "smoothed": "#4f7a6b", "held-out": "#c9772f"}
WORDS = {
    "queued": "waiting",
    "starting": "starting",
    "caching": "preparing",
    "training": "training",
    "paused": "paused",
    "stopped": "stopped and saved",
    "finished": "finished",
    "failed": "failed",
    "interrupted": "interrupted",
}
NOT_BEGUN = "not begun"  # taken out of the line
REASONS = {
    "stopped": "Stopped as you asked. What it had learned is saved; it can go on from there.",
    "paused": "Paused as you asked. Everything is kept; it goes on exactly where it was.",
    "finished": "Your LoRA is ready.",
}


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
        view.bar(share, "Progress of this run"),
        node("p", progress(told), cls="quiet"),
        draw_reason(told, place),
        draw_actions(told),
        *(node("p", note, cls="note") for note in told.notes[-3:]),
        cls="header",
    )


def progress(told: Story) -> str:
    state = told.state
    parts = [state.place]
    if state.active and (not state.step or state.status != "training"):
        parts.insert(0, state.phase)
    if told.seconds_left is not None:
        parts.append(f"{duration(told.seconds_left)} left")
    if told.seconds_per_step:
        parts.append(f"{told.seconds_per_step:.2g} s per step")
    if told.memory:
        parts.append(f"{told.memory / bar.GB:.1f} GB of memory")
    return " · ".join(part for part in parts if part)


def draw_reason(told: Story, place: int = 0) -> Node | None:
    """Why a run is not going on; for a failed one the sentence first, the details folded."""
    if told.state.status == "queued":
        return node("p", waiting(place), cls="note")
    if told.state.status == "failed":
        details = told.failure.details if told.failure else tail(told.folder)
        return node(
            "div",
            node("p", node("b", told.state.error or "It failed.")),
            node("details", node("summary", "Details"), node("pre", details or tail(told.folder))),
            cls="error",
            role="alert",
        )
    if told.stopping:
        return node("p", "Stopping after this step, and saving …", cls="note")
    if told.pausing:
        return node("p", "Pausing after this step; everything is kept …", cls="note")
    if word(told.state) == NOT_BEGUN:
        return node("p", "It has not begun. Nothing is lost: start it whenever you like.", cls="note")
    if told.state.status == "interrupted":
        return node("p", interrupted(told), cls="note")
    if told.silence is not None:
        return node("p", silent(told.silence), cls="note")
    reason = REASONS.get(told.state.status)
    return node("p", reason, cls="note") if reason else None


def interrupted(told: Story) -> str:
    """What is known of a run whose process is gone, and what is kept of it."""
    saved = run.saved_step(told.folder)
    kept = f"All was saved at step {saved:,}; it goes on from there." if saved else "It can start again."
    return f"It ended without a word: the computer slept or lost power, or the process was ended. {kept}"


def silent(seconds: float) -> str:
    return (
        f"No news for {duration(seconds)}. The disk or a network share may not answer, or the card has run out of memory "
        "and uses the computer's. Wait, or stop it: what was saved stays."
    )


def waiting(place: int) -> str:
    """What a waiting run at that place says of itself."""
    if place > 1:
        return f"{ordinal(place)} in line. It begins by itself when those before it are done."
    return "Next in line. It begins by itself when the one that is training is done."


def ordinal(number: int) -> str:
    """`1 -> "1st"`, `12 -> "12th"`."""
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def word(state: State) -> str:
    """The status of a run in a person's words."""
    return NOT_BEGUN if state.status == "stopped" and not state.step else WORDS[state.status]


def draw_actions(told: Story) -> Node:
    name, status = told.folder.name, told.state.status
    saved = run.saved_step(told.folder)
    buttons = []
    if told.state.active:
        buttons += [view.button("Sample now", "preview", run=name), view.button("Save now", "save", run=name)]
        buttons += [view.button("Pause", "pause", run=name), view.button("Stop and save", "stop", run=name)]
    elif status == "queued":
        buttons += [view.button("Remove from the line", "leave", run=name)]
    elif status != "finished":
        where = f"Resume from step {saved:,}" if saved else "Start again" if told.steps else "Start"
        buttons += [view.button(where, "resume", run=name)]
    if status == "failed" and told.failure and told.failure.code == "changed":
        buttons += [view.button("Resume with the changes", "accept", cls="primary", run=name)]
    if story.checkpoints(told.folder):
        buttons += [view.button("Try it", "try", cls="" if told.state.active else "primary", run=name)]
    if status in ("finished", "stopped", "paused") and saved:
        buttons += [draw_longer(name)]
    return node("div", *buttons, cls="actions")


def draw_longer(run_id: str) -> Node:
    steps = node("input", type="number", name="steps", value="500", min="1", aria_label="Steps more")
    return node(
        "span",
        view.button("Train longer", "extend", run=run_id),
        steps,
        node("span", "steps more"),
        cls="ask",
    )


def draw_previews(told: Story) -> Node:
    """Prompts × steps; column 0 is the base model without the LoRA."""
    if not told.pictures:
        text = "The first pictures come before the first step: what the model draws without your LoRA."
        ahead = told.state.active or told.state.status == "queued"
        return node("p", text if ahead else "This run made no preview pictures.", cls="quiet")
    steps = sorted({step for step, _ in told.pictures})
    shown = [steps[i] for i in story.thin(len(steps), MOST_COLUMNS)]
    prompts = {index: picture.prompt for (_, index), picture in sorted(told.pictures.items())}
    head = node("tr", node("th", "", scope="col"), *(node("th", column(step), scope="col") for step in shown))
    rows = [
        node(
            "tr",
            node("th", prompt, scope="row", title=prompt),
            *(draw_cell(told, step, index) for step in shown),
        )
        for index, prompt in prompts.items()
    ]
    return node("div", node("table", node("thead", head), node("tbody", *rows)), cls="matrix")


def column(step: int) -> str:
    return "without LoRA" if step == 0 else f"step {step:,}"


def draw_cell(told: Story, step: int, index: int) -> Node:
    picture = told.pictures.get((step, index))
    if picture is None:
        return node("td")
    before = told.pictures.get((0, index)) if step else None
    image = node(
        "img", src=served(told, picture, SMALL), alt=f"{picture.prompt}, {column(step)}", data_step=step
    )
    cell = node(
        "button",
        image,
        type="button",
        cls="picture",
        data_before=served(told, before, LARGE) if before else None,
        data_after=served(told, picture, LARGE),
        data_title=f"{picture.prompt} · {column(step)}",
    )
    return node("td", cell)


def served(told: Story, picture: Picture, size: int) -> str:
    folder = places.thumbs() / "runs" / told.folder.name
    return view.url(thumbnail(picture.path, folder, size))


def points(told: Story) -> pd.DataFrame:
    """The chart's rows: loss of each step, smoothed, and held-out; at most MOST_POINTS together."""
    trained = [step for step in told.steps if step.loss is not None]
    held_out = [step for step in told.steps if step.held_out is not None]
    smoothed = story.smooth([step.loss for step in trained])
    kept = story.thin(len(trained), (MOST_POINTS - len(held_out)) // 2)
    rows = [(trained[i].step, trained[i].loss, "each step") for i in kept]
    rows += [(trained[i].step, smoothed[i], "smoothed") for i in kept]
    rows += [(step.step, step.held_out, "held-out") for step in held_out]
    return pd.DataFrame(rows, columns=["step", "loss", "line"])


def draw_words(told: Story) -> Node:
    """The curve in words, for those who can't see it, and what to make of it."""
    trained = [step.loss for step in told.steps if step.loss is not None]
    held_out = [step.held_out for step in told.steps if step.held_out is not None]
    sentences = []
    if trained:
        sentences.append(f"Loss {story.smooth(trained)[-1]:.3f}.")
    if len(held_out) > 1:
        change = held_out[-1] / held_out[0] - 1
        sentences.append(
            f"Held-out loss {held_out[-1]:.4f}, {abs(change):.0%} {'lower' if change < 0 else 'higher'} than at the start."
        )
    sentences.append("The curve is noisy by nature; the pictures tell more.")
    return node("p", " ".join(sentences), cls="quiet")


def draw_log(told: Story) -> Node:
    return node("pre", tail(told.folder) or "Nothing yet.", cls="log", tabindex="0")


def tail(folder: Path) -> str:
    """The last lines that the trainer printed."""
    path = folder / "log.txt"
    if not path.exists():
        return ""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(line.rpartition("\r")[2] for line in text.splitlines()[-LOG_LINES:])


def draw_past(runs: list[Run]) -> Node:
    if not runs:
        return node("p", "No runs yet.", cls="quiet")
    return node("ul", *(draw_run(found) for found in runs[:MOST_RUNS]), cls="runs")


def draw_run(found: Run) -> Node:
    name, state = found.folder.name, found.state
    buttons = [view.button("Open", "watch", run=name)]
    if state.status in ("interrupted", "stopped", "failed", "paused"):
        buttons.append(view.button("Resume" if state.step else "Start", "resume", run=name))
    if story.checkpoints(found.folder):
        buttons.append(view.button("Try it", "try", run=name))
    return node(
        "li",
        node("b", found.name),
        node("span", word(state), cls=f"badge {state.status}"),
        node("span", f"{when(found.started)} · {state.place}", cls="quiet"),
        node("span", *buttons, cls="actions"),
    )


def when(moment: datetime) -> str:
    return f"{moment:%d %B %Y, %H:%M}".lstrip("0")


def menu(runs: list[Run]) -> list[tuple[str, str]]:
    return [(f"{found.name} · {when(found.started)}", found.folder.name) for found in runs]
