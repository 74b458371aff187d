"""The search for a run's best checkpoint on Try it: a process of its own, which writes what it finds into the run's folder."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import pandas as pd

from lora_sd import best, run
from lora_sd.best import Found, Row, Suggestion

from . import drawing, loras, places, try_view, view, watch_view
from .uploads import thumbnail
from .view import Node, node
from .words import say

SMALL, LARGE = 160, 1024  # pixels of a picture in the table and alone
SECONDS = 0.7  # between two looks at a search
EXPLAINED = """Draws the preview prompts with the checkpoints of the run that made the first LoRA, and compares the
pictures with the training pictures. What it finds stays with the run."""
Updates = dict[Any, Any]


class Part(NamedTuple):
    find: gr.Button
    view: gr.HTML
    losses: gr.LinePlot
    distances: gr.LinePlot
    charts: gr.Row

    def outputs(self) -> list[gr.components.Component]:
        return [self.view, self.losses, self.distances, self.charts, self.find]


# -- the process -----------------------------------------------------------------------------------------------------


class Finder:
    """The searches that this program has begun."""

    def __init__(self) -> None:
        self.processes: dict[Path, subprocess.Popen[bytes]] = {}

    def start(self, folder: Path) -> None:
        """Search a run's best checkpoint, unless that is being done."""
        best.checkpoints(folder)  # says what is wrong with the run
        if self.running(folder):
            return
        drawing.free()  # two models may not fit
        place = folder / best.FOLDER
        place.mkdir(exist_ok=True)
        best.forget_cancel(folder)
        device = "cpu" if try_view.on_card() else "auto"
        with open(place / "log.txt", "wb") as log:
            self.processes[folder] = subprocess.Popen(
                [sys.executable, "-m", "lora_sd", "best", str(folder), "--device", device],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=run.child_environment(),
            )

    def running(self, folder: Path) -> bool:
        """Whether somebody searches it; the lock is that of a search of another program, too."""
        process = self.processes.get(folder)
        return process is not None and process.poll() is None

    def found(self, folder: Path) -> Found | None:
        """What is known of a run. A process that has just begun has not written yet; one that ended badly says so in its log."""
        found = best.read(folder)
        process = self.processes.get(folder)
        if process is None or (found and found.status == "drawing"):
            return found
        if process.poll() is None:
            return Found() if not found or found.status != "done" else found
        if process.returncode in (1, 2) and not (found and found.status in ("failed", "done")):
            return Found(status="failed", text=last_line(folder))
        return found


def last_line(folder: Path) -> str:
    log = (folder / best.FOLDER / "log.txt").read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(log) if line.strip()), say("The search ended early."))


finder = Finder()


# -- handlers --------------------------------------------------------------------------------------------------------


def find(part: Part, lora: str) -> Iterator[Updates]:
    """Begin the search for the run of a LoRA, and follow it."""
    folder = loras.run_of(lora or "")
    try:
        if folder is None:
            raise ValueError(
                say("Choose a LoRA of one of your runs first; only of those the checkpoints are known.")
            )
        finder.start(folder)
    except ValueError as error:
        yield {part.view: node("p", str(error), cls="obstacle")}
        return
    yield from follow(part, lora)


def follow(part: Part, lora: str) -> Iterator[Updates]:
    """What is known of the run of a LoRA, and what comes while it is searched."""
    folder = loras.run_of(lora or "")
    shown = None
    while True:
        found = finder.found(folder) if folder else None
        if found != shown or not found:
            yield shown_of(part, folder, found)
        shown = found
        if not (found and found.status == "drawing"):
            return
        time.sleep(SECONDS)


def shown_of(part: Part, folder: Path | None, found: Found | None) -> Updates:
    rows = found.rows if found else []
    losses, distances = points(rows)
    searching = found is not None and found.status == "drawing"
    return {
        part.view: draw(folder, found) if folder and found else None,
        part.charts: gr.update(visible=bool(len(losses) > 1 or len(distances) > 1)),
        part.losses: gr.update(value=losses, visible=len(losses) > 1),
        part.distances: gr.update(value=distances, visible=len(distances) > 1),
        part.find: gr.update(interactive=not searching),
    }


def points(rows: list[Row]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Held-out loss and distance over the steps."""
    losses = [(row.step, row.held_out) for row in rows if row.held_out is not None]
    distances = [(row.step, row.look) for row in rows if row.look is not None]
    return pd.DataFrame(losses, columns=["step", "loss"]), pd.DataFrame(
        distances, columns=["step", "distance"]
    )


def answered(click: Mapping[str, str]) -> str | None:
    """The LoRA to use, where that is what a button asks for."""
    folder = run.find(click.get("run", ""))
    if folder is None:
        return None
    if click.get("act") == "cancel-best":
        best.cancel(folder)
        return None
    lora = f"{folder.name}/{click.get('file', '')}"
    return lora if click.get("act") == "use" and loras.run_of(lora) else None


# -- what is shown ---------------------------------------------------------------------------------------------------


def draw(folder: Path, found: Found) -> Node:
    return node(
        "div",
        draw_state(folder, found),
        draw_suggestion(folder, found),
        draw_table(folder, found) if found.rows else None,
        node("p", explanation(found), cls="quiet") if found.rows else None,
        cls="best",
    )


def draw_state(folder: Path, found: Found) -> Node | None:
    match found.status:
        case "drawing":
            text = (
                say("Picture {number} of {total}", number=min(found.done + 1, found.total), total=found.total)
                if found.done
                else say("Loading the model")
            )
            bar = view.bar(found.done / found.total if found.total else 0, text)
            stop = view.button(say("Cancel the search"), "cancel-best", run=folder.name)
            return node("div", node("span", f"{text} …", cls="quiet"), bar, stop, cls="state")
        case "failed":
            return node("p", found.text, cls="obstacle", role="alert")
        case "cancelled":
            text = say("Cancelled; what was found stays, and another search goes on from there.")
            return node("p", text, cls="quiet")
    return None


def draw_suggestion(folder: Path, found: Found) -> Node | None:
    """The checkpoint to take, with its reason."""
    if found.suggested is None:
        return None
    words = (
        reason(found.suggested)
        if found.status == "done"
        else say("So far: {reason}", reason=reason(found.suggested))
    )
    use = view.button(
        say("Use it"), "use", cls="primary" if found.status == "done" else "",
        run=folder.name, file=found.suggested.file,
    )  # fmt: skip
    return node("div", node("p", words), use, cls="suggestion", role="status")


def reason(suggested: Suggestion) -> str:
    """The sentence of `best.REASONS`, in the reader's language."""
    step = f"{suggested.step:,}"
    match suggested.code:
        case "both":
            return say(
                "Step {step}: the lowest held-out loss of the checkpoints whose pictures have the look of the training pictures without copying them.",
                step=step,
            )
        case "far":
            return say(
                "Step {step}: the lowest held-out loss, but its pictures are still far from the look of the training pictures; if they are to have it, train longer.",
                step=step,
            )
        case "loss":
            return say(
                "Step {step}: the lowest held-out loss; the distance of the pictures does not tell more in this run.",
                step=step,
            )
        case "look":
            return say(
                "Step {step}: the first whose pictures are about as near the training pictures as they get, without copying them. No held-out loss was measured; it tells more.",
                step=step,
            )
        case "copies":
            return say(
                "Step {step}: the one with the fewest copies, for every checkpoint draws pictures that are nearly training pictures; train shorter, or with more pictures.",
                step=step,
            )
    return say(
        "Step {step}: the last one, for neither a held-out loss nor the distance of the pictures tells more.",
        step=step,
    )


def explanation(found: Found) -> str:
    if found.text and found.status != "failed":  # why there are no distances
        return found.text
    return say(
        "Distance is how far the pictures are from the look of the training pictures: about 1 is as near as those are to each other. ≈ is between two measurements."
    )


def draw_table(folder: Path, found: Found) -> Node:
    head = node(
        "tr",
        node("th", say("Checkpoint"), scope="col"),
        node("th", say("Held-out loss"), scope="col"),
        node("th", say("Distance"), scope="col"),
        node("th", say("Pictures"), scope="col", cls="pictures"),
        node("td", ""),
    )
    chosen = found.suggested.file if found.suggested else None
    rows = [draw_row(folder, found, row, row.file == chosen) for row in found.rows]
    words = json.dumps(watch_view.comparing())
    return node(
        "div",
        node("table", node("thead", head), node("tbody", *rows)),
        cls="matrix",
        data_words=words,
        data_pairs="",
    )


def draw_row(folder: Path, found: Found, row: Row, chosen: bool) -> Node:
    name = say("step {step}", step=f"{row.step:,}") if row.file else say("without LoRA")
    loss = "–" if row.held_out is None else f"{'' if row.measured else '≈ '}{row.held_out:.4f}"
    look = "–" if row.look is None else f"{row.look:.2f}"
    copies = say("{count} of {total} nearly copies", count=row.copies, total=len(row.places))
    use = view.button(say("Use"), "use", run=folder.name, file=row.file) if row.file else node("span", "")
    return node(
        "tr",
        node("th", name, node("span", say("suggested"), cls="mark") if chosen else None, scope="row"),
        node("td", loss, cls="number"),
        node("td", look, node("span", copies, cls="flag") if row.copies else None, cls="number"),
        node("td", node("div", *pictures(folder, found, row, name)), cls="drawn"),
        node("td", use),
        cls="suggested" if chosen else None,
    )


def pictures(folder: Path, found: Found, row: Row, name: str) -> list[Node]:
    """Those of a row, each beside what the base model draws for the same prompt and noise."""
    without = found.rows[0].pictures if row.file else ()
    each = len(row.pictures) // max(1, len(found.prompts))
    drawn = []
    for i, path in enumerate(row.pictures):
        title = f"{found.prompts[i // each]} · {name}"
        image = node("img", src=served(folder, path, SMALL), alt=title)
        drawn.append(
            node(
                "button",
                image,
                type="button",
                cls="picture",
                data_before=served(folder, without[i], LARGE) if i < len(without) else None,
                data_after=served(folder, path, LARGE),
                data_title=title,
            )
        )
    return drawn


def served(folder: Path, path: str, size: int) -> str:
    return view.url(thumbnail(folder / path, places.thumbs() / "runs" / folder.name, size))


# -- layout and wiring -----------------------------------------------------------------------------------------------


def build() -> Part:
    with gr.Accordion("Which checkpoint is best?", open=False, elem_classes="fold", elem_id="best"):
        gr.Markdown(EXPLAINED, elem_classes="quiet")
        button = gr.Button("Find the best checkpoint", size="md", elem_id="find-best")
        part = view.component("best-view")
        with gr.Row(visible=False) as charts:
            losses = chart("loss", "loss", "best-losses")
            distances = chart("distance", "distance", "best-distances")
    return Part(button, part, losses, distances, charts)


def chart(y: str, title: str, elem_id: str) -> gr.LinePlot:
    return gr.LinePlot(
        x="step",
        y=y,
        height=200,
        x_title="step",
        y_title=title,
        show_label=False,
        buttons=[],
        elem_id=elem_id,
        min_width=260,
        visible=False,
    )


def wire(
    part: Part,
    lora: gr.Dropdown,
    use: Callable[[str], Updates],
    outputs: list[gr.components.Component],
) -> None:
    """`lora` is the menu whose run is searched; `use` chooses another there, which changes `outputs`."""
    quiet = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    part.find.click(lambda lora: (yield from find(part, lora)), lora, part.outputs(), **quiet)
    lora.change(
        lambda lora: (yield from follow(part, lora)), lora, part.outputs(), trigger_mode="multiple", **quiet
    )

    def act(event: gr.EventData) -> Any:
        chosen = answered(event._data)
        return use(chosen) if chosen else gr.skip()

    part.view.click(act, None, outputs, **quiet)
