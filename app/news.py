"""What the open tabs are told every second: looked up and drawn once for all, sent where a tab does not show it yet.

Gradio builds anew every component that an event may change, even one that it leaves alone; that took nine tenths of a
poll. So a poll changes one component that is never seen: static/news.js hands its trees to the views of the page, and
asks for the rest, menus and chart, where the tab is behind.
"""

import time
from typing import Any

import gradio as gr

from lora_sd import queue

from . import (
    bar,
    caption_part,
    desk,
    grid_maker,
    grid_part,
    loras,
    make_view,
    models,
    story,
    tools_view,
    try_view,
    view,
    watch_page,
    watch_view,
)
from .tabs import Shared, Tabs
from .view import Node

tabs = Tabs()


def look(run_id: str | None) -> tuple[dict[str, Node | None], dict[str, Any]]:
    """The views of a tab that watches that run, and the facts that its menus, buttons and chart follow."""
    current, waiting = story.active(), queue.waiting()
    training = story.read(current.folder) if current else None
    views = {
        "bar": bar.draw(training, len(waiting)),
        "signal": bar.signal(training, story.runs()),
        "try-notice": try_view.draw_notice(),
        "grid-view": grid_part.draw(grid_maker.maker.grid),
        "tool-state": tools_view.draw(desk.current),
        "download-state": make_view.draw_download(models.current),
        **caption_part.views(),
        **watch_page.views(run_id),
    }
    facts = {
        "runs": watch_view.menu(story.runs()),
        "loras": loras.menu(),
        "models": (models.current.finished, desk.current.finished),
        "work": desk.current.finished,
        "downloading": models.current.running,
        "busy": try_view.on_card(),
        "waits": bool(current or waiting),
        **caption_part.facts(),
        "curve": watch_page.curve(run_id),
    }
    return views, facts


now = Shared(look)
previews = Shared(watch_page.previews)
charts = Shared(watch_page.chart)


def poll(run_id: str | None, session: str, count: int, columns: str = "spread") -> dict[str, Any] | None:
    """What is new for a tab: {"count": 7, "shown": {"header": tree}, "behind": ["menus", "chart"]}.

    `count` is that of the news it showed last, `columns` which previews it shows. An answer can get lost, or be overtaken in a busy browser by the next.
    """
    tab = tabs[session]
    if count != tab.count:
        tab.views.clear()
    views, facts = now(run_id)
    shown = tab.fresh(views | previews((run_id, columns)))
    late = tab.behind({**facts, "pause": tabs.pause})
    behind = ["menus"] if late - {"curve"} else []
    if "curve" in late and watch_page.is_chart_due(facts["curve"], tab.charted):
        behind.append("chart")
    if not shown and not behind:
        return None
    tab.count += 1
    return {"count": tab.count, "shown": shown, "behind": behind}


def late(run_id: str | None, session: str) -> dict[str, Any]:
    """The facts that a tab's menus and buttons do not follow yet; from now on they do."""
    tab = tabs[session]
    facts = {**now(run_id)[1], "pause": tabs.pause}
    found = {name: facts[name] for name in tab.behind(facts) - {"curve"}}
    tab.facts.update(found)
    return found


def chart(run_id: str | None, session: str, shown: str = "loss") -> Any:
    """The chart as it is now."""
    tab, curve = tabs[session], now(run_id)[1]["curve"]
    tab.facts["curve"], tab.charted = curve, time.time()
    return charts((curve, shown)) if curve else gr.skip()


def component() -> gr.HTML:
    return view.script("news", "news.js")
