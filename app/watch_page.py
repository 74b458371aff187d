"""Watch: how a run is going (progress, previews, loss, log), what can be done about it, and the runs before it."""

import time
from typing import Any, NamedTuple

import gradio as gr

from lora_sd import run

from . import story, view, watch_view
from .view import node

CHART_SECONDS = 2  # at most one new chart in this time


class Page(NamedTuple):
    run: gr.Dropdown
    header: gr.HTML
    previews: gr.HTML
    words: gr.HTML
    chart: gr.LinePlot
    log: gr.HTML
    past: gr.HTML

    def outputs(self) -> list[gr.components.Component]:
        return [self.header, self.previews, self.words, self.chart, self.log, self.past]


# -- handlers --------------------------------------------------------------------------------------------------------


def poll(page: Page, run_id: str | None, seen: dict[str, Any]) -> dict[gr.components.Component, Any]:
    """What has changed on the page since `seen`, which is brought up to date."""
    folder = run.find(run_id or "")
    runs = story.runs()
    shown: dict[gr.components.Component, Any] = {page.past: watch_view.draw_past(runs)}
    if folder is None and runs:  # the page is still opening and will choose one
        return fresh(seen, shown)
    if folder is None:
        empty = node("p", "Nothing is training. Start something on Make.", cls="quiet")
        return fresh(
            seen, shown | {page.header: empty, page.previews: None, page.words: None, page.log: None}
        )
    told = story.read(folder)
    shown |= {
        page.header: watch_view.draw_header(told),
        page.previews: watch_view.draw_previews(told),
        page.words: watch_view.draw_words(told),
        page.log: watch_view.draw_log(told),
    }
    updates = fresh(seen, shown)
    drawn = (run_id, len(told.steps), told.steps[-1] if told.steps else None)
    due = seen.get("chart time", 0) < time.time() - CHART_SECONDS or not told.state.active
    if seen.get("chart") != drawn and due:
        seen["chart"], seen["chart time"] = drawn, time.time()
        updates[page.chart] = gr.update(value=watch_view.points(told), x_lim=[0, told.state.total])
    return updates


def fresh(
    seen: dict[str, Any], shown: dict[gr.components.Component, Any]
) -> dict[gr.components.Component, Any]:
    """Only what this tab does not show already."""
    news = {
        part: value
        for part, value in shown.items()
        if part.elem_id not in seen or seen[part.elem_id] != value
    }
    seen.update({part.elem_id: value for part, value in news.items()})
    return news


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
    with gr.Column(elem_classes="card"):
        gr.Markdown("### All runs")
        past = view.component("past")
    return Page(menu_of_runs, header, previews, words, chart, log, past)
