"""Watch: how a run is going (progress, previews, curves, log), what can be done about it, and the runs before it."""

import time
from typing import Any, NamedTuple

import gradio as gr

from lora_sd import events, queue, run

from . import curves, past_runs, problem, queue_view, story, view, watch_view
from .view import Node, node
from .words import say

CHART_SECONDS = 4  # at most one new chart in this time


COLUMNS = [("A selection", "spread"), ("The latest", "latest"), ("All", "all")]
KEPT = "lora-sd-sound"  # in the browser's memory: whether it makes a sound when a run has ended
KEEP_SOUND = f"(on) => {{ localStorage.setItem('{KEPT}', on); }}"
KEPT_SOUND = f"() => localStorage.getItem('{KEPT}') === 'true'"
PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}


class Page(NamedTuple):
    run: gr.Dropdown
    header: gr.HTML
    report: gr.Column
    report_contents: gr.HTML
    report_file: gr.DownloadButton
    report_close: gr.Button
    columns: gr.Radio
    previews: gr.HTML
    shown: gr.Radio
    words: gr.HTML
    chart: gr.LinePlot
    log: gr.HTML
    details: gr.HTML
    sound: gr.Checkbox
    line: gr.HTML
    past: gr.HTML

    def clickable(self) -> list[gr.HTML]:
        """The views with buttons."""
        return [self.header, self.line, self.past, self.details]

    def reporting(self) -> list[gr.components.Component]:
        return [self.report, self.report_contents, self.report_file]


# -- handlers --------------------------------------------------------------------------------------------------------


def views(run_id: str | None) -> dict[str, Node | None]:
    """What the page shows of a run and of all runs, by the names of its parts."""
    folder = run.find(run_id or "")
    runs = story.runs()
    line = queue.places()
    shown: dict[str, Node | None] = {"past": past_runs.draw(runs), "line": queue_view.draw(line)}
    if folder is None and runs:  # the page is still opening and will choose one
        return shown
    if folder is None:
        text = say(
            "Nothing is training. Drop some pictures on Make and press Start; you can watch it learn here."
        )
        empty = node("div", node("p", text), view.button(say("Go to Make"), "make"), cls="none-yet")
        return shown | {"header": empty, "words": None, "log": None, "details": None}
    told = story.read(folder)
    return shown | {
        "header": watch_view.draw_header(told, queue_view.where(folder, line)),
        "words": watch_view.draw_words(told),
        "log": watch_view.draw_log(told),
        "details": watch_view.draw_details(told),
    }


def previews(wanted: tuple[str | None, str]) -> dict[str, Node | None]:
    """The table of pictures of a run, with a selection of its columns; of itself, for each tab may choose another."""
    run_id, columns = wanted
    folder = run.find(run_id or "")
    if folder is None:
        return {} if story.runs() else {"previews": None}
    return {"previews": watch_view.draw_previews(story.read(folder), columns)}


class Curve(NamedTuple):
    """What a chart is drawn from; equal ones look the same."""

    run_id: str
    num_steps: int
    last: events.Step | None
    active: bool


def curve(run_id: str | None) -> Curve | None:
    folder = run.find(run_id or "")
    if folder is None:
        return None
    told = story.read(folder)
    return Curve(run_id, len(told.steps), told.steps[-1] if told.steps else None, told.state.active)


def is_chart_due(curve: Curve | None, drawn: float) -> bool:
    """Whether a tab whose chart was drawn at that time may have another."""
    return drawn < time.time() - CHART_SECONDS or not (curve and curve.active)


def chart(wanted: tuple[Curve, str]) -> dict[str, Any]:
    """The chart of what a tab wants to see: "loss", "rate", "speed" or "memory"."""
    curve, shown = wanted
    return gr.update(**curves.chart(story.read(run.find(curve.run_id)), shown))


def reported(page: Page, run_id: str) -> dict[gr.components.Component, Any]:
    """The problem report of a run: what is in it, and the file."""
    folder = run.find(run_id)
    if folder is None:
        return {}
    contents, path = problem.made(folder)
    return {
        page.report: gr.update(visible=True),
        page.report_contents: contents,
        page.report_file: gr.update(value=str(path)),
    }


def choose(wanted: str | None = None) -> str | None:
    """The run to show: the one asked for, else the one that is training, else the newest."""
    runs = story.runs()
    if wanted and run.find(wanted):
        return wanted
    training = next((found for found in runs if found.state.active), None)
    found = training or (runs[0] if runs else None)
    return found.folder.name if found else None


# -- layout ----------------------------------------------------------------------------------------------------------


def build() -> Page:
    with gr.Row(elem_classes="of-a-run"):
        menu_of_runs = gr.Dropdown(
            [], label="Run", elem_id="run", show_label=False, container=False, interactive=True
        )
    with gr.Column(elem_classes="card"):
        header = view.component("header")
    with gr.Column(elem_classes="card", visible=False, elem_id="report-part") as report:
        gr.Markdown("### Problem report")
        contents = view.component("report")
        with gr.Row():
            report_file = gr.DownloadButton(
                "Save report (zip)", variant="primary", size="md", elem_id="save-report"
            )
            report_close = gr.Button("Close", size="md", elem_id="close-report")
    with gr.Row(elem_classes="of-a-run"):
        with gr.Column(scale=3, min_width=320, elem_classes="card"):
            gr.Markdown("### Pictures on the way")
            columns = gr.Radio(
                COLUMNS,
                value="spread",
                label="Which of the many steps",
                elem_id="columns",
                elem_classes="chooser",
            )
            previews = view.component("previews")
        with gr.Column(scale=2, min_width=320, elem_classes="card"):
            gr.Markdown("### Curves")
            shown = gr.Radio(
                curves.CHOICES,
                value="loss",
                label="What the chart shows",
                show_label=False,
                elem_id="shown",
                elem_classes="chooser",
            )
            chart = gr.LinePlot(
                x="step",
                y="value",
                color="line",
                color_map={},
                height=260,
                elem_id="chart",
                show_label=False,
                x_title="step",
                color_title="",
                y_title="loss",
                buttons=[],
            )
            words = view.component("words")
    with gr.Accordion("Log", open=False, elem_classes="fold of-a-run"):
        gr.Checkbox(value=True, label="Follow its end", elem_id="follow", container=False)
        log = view.component("log")
    with gr.Accordion("Details and settings", open=False, elem_classes="fold of-a-run"):
        details = view.component("details")
    sound = gr.Checkbox(
        label="Make a sound when a training has ended", elem_id="sound", container=False, elem_classes="plain"
    )
    line = view.component("line")
    with gr.Column(elem_classes="card"):
        gr.Markdown("### All runs")
        past = view.component("past")
    return Page(
        run=menu_of_runs,
        header=header,
        report=report,
        report_contents=contents,
        report_file=report_file,
        report_close=report_close,
        columns=columns,
        previews=previews,
        shown=shown,
        words=words,
        chart=chart,
        log=log,
        details=details,
        sound=sound,
        line=line,
        past=past,
    )


def script() -> gr.HTML:
    """Comparing pictures, following the log, searching, the tab's title, the sound."""
    return view.script("watching", "watch.js")


def wire(demo: gr.Blocks, page: Page) -> None:
    """What changes nothing but this page."""

    def report(event: gr.EventData) -> Any:
        return reported(page, str(event._data.get("run", ""))) or gr.skip()

    for part in page.clickable():
        part.report(report, None, page.reporting(), **PRIVATE)
    page.report_close.click(lambda: gr.update(visible=False), None, page.report, **PRIVATE)
    page.sound.input(None, page.sound, js=KEEP_SOUND, **PRIVATE)
    demo.load(None, None, page.sound, js=KEPT_SOUND, **PRIVATE)
