"""Watch: how a run is going (progress, previews, loss, log), what can be done about it, and the runs before it."""

import time
from typing import Any, NamedTuple

import gradio as gr

from lora_sd import events, queue, run

from . import queue_view, story, view, watch_view
from .view import Node, node

CHART_SECONDS = 4  # at most one new chart in this time


class Page(NamedTuple):
    run: gr.Dropdown
    header: gr.HTML
    previews: gr.HTML
    words: gr.HTML
    chart: gr.LinePlot
    log: gr.HTML
    line: gr.HTML
    past: gr.HTML

    def outputs(self) -> list[gr.components.Component]:
        return [self.header, self.previews, self.words, self.chart, self.log, self.line, self.past]


# -- handlers --------------------------------------------------------------------------------------------------------


def views(run_id: str | None) -> dict[str, Node | None]:
    """What the page shows of a run and of all runs, by the names of its parts."""
    folder = run.find(run_id or "")
    runs = story.runs()
    line = queue.places()
    shown: dict[str, Node | None] = {"past": watch_view.draw_past(runs), "line": queue_view.draw(line)}
    if folder is None and runs:  # the page is still opening and will choose one
        return shown
    if folder is None:
        empty = node("p", "Nothing is training. Start something on Make.", cls="quiet")
        return shown | {"header": empty, "previews": None, "words": None, "log": None}
    told = story.read(folder)
    return shown | {
        "header": watch_view.draw_header(told, queue_view.where(folder, line)),
        "previews": watch_view.draw_previews(told),
        "words": watch_view.draw_words(told),
        "log": watch_view.draw_log(told),
    }


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


def chart(curve: Curve) -> dict[str, Any]:
    told = story.read(run.find(curve.run_id))
    return gr.update(value=watch_view.points(told), x_lim=[0, max(1, told.state.total)])


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
    with gr.Row():
        menu_of_runs = gr.Dropdown(
            [], label="Run", elem_id="run", show_label=False, container=False, interactive=True
        )
    with gr.Column(elem_classes="card"):
        header = view.component("header")
    with gr.Row():
        with gr.Column(scale=3, min_width=320, elem_classes="card"):
            gr.Markdown("### Pictures on the way")
            previews = view.component("previews")
        with gr.Column(scale=2, min_width=320, elem_classes="card"):
            gr.Markdown("### Learning curve")
            chart = gr.LinePlot(
                x="step",
                y="loss",
                color="line",
                color_map=watch_view.LINES,
                height=260,
                elem_id="chart",
                show_label=False,
                x_title="step",
                color_title="",
                y_title="loss",
                buttons=[],
            )
            words = view.component("words")
    with gr.Accordion("Log", open=False, elem_classes="fold"):
        log = view.component("log")
    line = view.component("line")
    with gr.Column(elem_classes="card"):
        gr.Markdown("### All runs")
        past = view.component("past")
    return Page(menu_of_runs, header, previews, words, chart, log, line, past)
