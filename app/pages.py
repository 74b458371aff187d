"""The whole page: status bar, Make, Images, Watch, Try it, Tools; what leads from one to another; launch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from starlette.middleware import Middleware

from lora_sd import run
from lora_sd.models import find

from . import (
    api,
    bar,
    caption_part,
    cards,
    guide,
    images_page,
    line,
    loras,
    make_page,
    make_view,
    mask_part,
    models,
    news,
    past_runs,
    places,
    reach,
    reuse,
    story,
    tools_page,
    try_page,
    view,
    watch_page,
    watch_view,
    words,
)
from .addresses import bracketed
from .guard import Guard
from .project import names, open_project
from .theme import theme
from .view import node
from .words import say

TITLE = "LoRA SD"
TABS = ("make", "images", "watch", "try", "tools")
ABOUT = """LoRA SD trains Stable Diffusion LoRAs on your own computer. Nothing leaves it: pictures, captions and
results stay in its folders, and models are downloaded only when you ask for one."""
LOGIN = "After five wrong passwords, wait a minute before the next."
# Until the page is open the address is what was asked for, and must stay.
OPENED = f"""() => {{
  window.pageIsOpen = true;
  const known = Object.entries({json.dumps(words.ASKED)});
  const [language] = known.find(([, asked]) => new RegExp(`^${{asked}}`, 'i').test(navigator.language)) ?? ['{words.ENGLISH}'];
  document.documentElement.lang = language;
}}"""
TOUR = "() => { window.startTour(); }"
KEEP_IN_ADDRESS = "(value) => {{ if (!window.pageIsOpen) return; const url = new URL(location); url.searchParams.set('{name}', {value}); history.replaceState(null, '', url); }}"
# Gradio forgets no page that was opened, at half a MiB each, unless told; the open ones are the latest it heard of.
SESSIONS = 200
PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}


class Pages(NamedTuple):
    tabs: gr.Tabs
    status: gr.HTML
    make: make_page.Page
    images: images_page.Page
    captions: caption_part.Part
    masks: mask_part.Part
    mask_fold: gr.Accordion
    watch: watch_page.Page
    attempt: try_page.Page
    tools: tools_page.Page
    news: gr.HTML
    guide: gr.HTML
    clock: gr.Timer

    def destinations(self) -> list[gr.components.Component]:
        """What a button may change that leads to Watch or Try it."""
        return [self.tabs, self.watch.run, *self.attempt.loras, *self.attempt.of_lora()]

    def following(self) -> list[gr.components.Component]:
        """What follows facts that change seldom."""
        make, attempt = self.make, self.attempt
        mine = [make.start, make.download, make.cancel_download, make.base, *attempt.loras, attempt.on_cpu]
        return [*mine, *self.captions.following(), *self.tools.following(), self.watch.run, self.clock]


Updates = dict[Any, Any]


# -- handlers --------------------------------------------------------------------------------------------------------


def opened(pages: Pages, asked: Mapping[str, str]) -> Updates:
    """The page as it opens: the last project, and the tab and run of its address."""
    models.refresh()
    latest = names()
    lora = loras.newest(asked["run"]) if "run" in asked else None
    project = open_project(latest[0] if latest else None)
    updates = make_page.opened(pages.make, project) | images_page.shown(pages.images, project.name)
    updates |= mask_part.opened(pages.masks, project)
    updates |= try_page.opened(pages.attempt, lora)
    updates |= tools_page.offered(pages.tools)
    updates |= watch(pages, watch_page.choose(asked.get("run")))
    updates[pages.guide] = guide.tour()
    updates[pages.tabs] = gr.Tabs(selected=asked["tab"]) if asked.get("tab") in TABS else gr.skip()
    return updates


def watch(pages: Pages, run_id: str | None) -> Updates:
    """Watch, on that run."""
    menu = gr.update(choices=watch_view.menu(story.runs()), value=run_id)
    return {pages.tabs: gr.Tabs(selected="watch"), pages.watch.run: menu}


def begun(pages: Pages, values: Mapping[str, Any]) -> Updates:
    """A training begins."""
    try:
        return taught(pages, make_page.create(values))
    except ValueError as error:
        return {pages.make.obstacle: node("p", str(error), cls="obstacle")}


def answered(pages: Pages, click: Mapping[str, str]) -> Updates:
    """Do what a button of the bar or of Watch asks for; where it leads."""
    try:
        return done(pages, click)
    except ValueError as error:
        view.warn(str(error))
        return {}


def done(pages: Pages, click: Mapping[str, str]) -> Updates:
    if click["act"] in ("up", "down", "leave"):
        line.change(click["act"], click.get("run", ""))
        return {}
    if click["act"] == "make":
        return {pages.tabs: gr.Tabs(selected="make")}
    folder = run.find(click.get("run", ""))
    if folder is None:
        return {}
    match click["act"]:
        case "watch":
            return watch(pages, folder.name)
        case "try":
            return {pages.tabs: gr.Tabs(selected="try")} | try_page.offered(
                pages.attempt, loras.newest(folder.name)
            )
        case "resume":
            return taught(pages, folder)
        case "remedy":
            return taught(pages, folder, *cards.options(story.read(folder)))
        case "delete":
            past_runs.delete(folder)
            return watch(pages, watch_page.choose())
        case "extend":
            return taught(pages, folder, "--extend", line.steps(str(click.get("steps", ""))))
        case "stop" | "pause" | "preview" | "save" as asked:
            run.command(folder, asked)
    return {}


def reused(pages: Pages, run_id: str) -> Updates:
    """Make, with the settings of a run."""
    folder = run.find(run_id)
    if folder is None:
        return {}
    try:
        project, found = reuse.taken(folder)
    except ValueError as error:
        view.warn(str(error))
        return {}
    updates = make_page.opened(pages.make, project)
    told = {pages.make.imported: make_view.draw_imported(found)}
    return updates | told | {pages.tabs: gr.Tabs(selected="make")}


def taught(pages: Pages, folder: Path, *options: str) -> Updates:
    """Train the run of `folder`, now or when those before it are done, and watch it."""
    line.begin(folder, *options)
    return watch(pages, folder.name)


def followed(pages: Pages, run_id: str | None, session: str) -> Updates:
    """Menus and buttons that are behind."""
    updates: Updates = {}
    for name, fact in news.late(run_id, session).items():
        updates |= follow(pages, name, fact) | caption_part.follow(pages.captions, name, fact)
    return updates


def follow(pages: Pages, name: str, fact: Any) -> Updates:
    """What a new fact changes in menus and buttons."""
    match name:
        case "runs":
            return {pages.watch.run: gr.update(choices=fact)}
        case "loras":
            menus = {menu: gr.update(choices=[(say("no LoRA"), ""), *fact]) for menu in pages.attempt.loras}
            return menus | tools_page.of_loras(pages.tools)
        case "models":
            return {pages.make.base: gr.update(choices=models.menu())} | tools_page.of_models(pages.tools)
        case "work":
            return tools_page.of_work(pages.tools)
        case "downloading":
            return {
                pages.make.download: gr.update(interactive=not fact),
                pages.make.cancel_download: gr.update(visible=fact),
            }
        case "busy":
            return {pages.attempt.on_cpu: gr.update(visible=fact, value=fact)}
        case "waits":
            return {pages.make.start: say("Add to the queue") if fact else say("Start training")}
        case "pause":
            return {pages.clock: gr.Timer(fact)}
    return {}


# -- layout and wiring -----------------------------------------------------------------------------------------------


def build(*, remote: bool = False) -> gr.Blocks:
    """The page; `remote` when other computers can reach it."""
    reach.confined = remote
    with gr.Blocks(title=TITLE, analytics_enabled=False) as demo:
        status = bar.component()
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Make", id="make"):
                make = make_page.build(remote=remote)
            with gr.Tab("Images", id="images"):
                images = images_page.build()
                with images.tools:
                    with gr.Accordion("Captions by a model", open=False, elem_classes="fold"):
                        captions = caption_part.build(remote=remote)
                    with gr.Accordion("Masks", open=False, elem_id="mask-fold", elem_classes="fold") as fold:
                        masks = mask_part.build()
            with gr.Tab("Watch", id="watch"):
                watching = watch_page.build()
            with gr.Tab("Try it", id="try") as trying:
                attempt = try_page.build(remote=remote)
            with gr.Tab("Tools", id="tools"):
                tools = tools_page.build(remote=remote)
        with gr.Accordion("About", open=False, elem_id="about", elem_classes="fold"):
            gr.Markdown(ABOUT)
            again = gr.Button("Show the tour again", size="sm", elem_id="tour-again")
            gr.Markdown(credits(), elem_id="credits")
        again.click(lambda: gr.Tabs(selected="make"), None, tabs, js=TOUR, queue=False, **PRIVATE)
        make_page.wire(make)
        watch_page.script()
        watch_page.wire(demo, watching)
        try_page.wire(attempt, trying)
        tools_page.wire(tools)
        wire(
            demo,
            Pages(
                tabs=tabs,
                status=status,
                make=make,
                images=images,
                captions=captions,
                masks=masks,
                mask_fold=fold,
                watch=watching,
                attempt=attempt,
                tools=tools,
                guide=guide.component(),
                news=news.component(),
                clock=gr.Timer(1),
            ),
        )
        api.build()
    view.tell_errors_as_text(demo)
    return demo


def wire(demo: gr.Blocks, pages: Pages) -> None:
    make, images, watching = pages.make, pages.images, pages.watch

    def open_page(request: gr.Request) -> Updates:
        return opened(pages, dict(request.query_params))

    attempt = pages.attempt.results()
    shown = [
        *make.outputs(),
        *images.outputs(),
        *pages.masks.outputs(),
        *pages.destinations(),
        *attempt,
        *pages.tools.following(),
        pages.tools.about,
        pages.guide,
    ]
    opening = demo.load(open_page, None, shown, **PRIVATE)
    opening.then(None, js=OPENED, **PRIVATE)
    for tab in pages.tabs.children:
        tab.select(None, js=KEEP_IN_ADDRESS.format(name="tab", value=f"'{tab.id}'"), **PRIVATE)
    watching.run.change(None, watching.run, js=KEEP_IN_ADDRESS.format(name="run", value="value"), **PRIVATE)

    make.project.change(
        lambda name: images_page.shown(images, name), make.project, images.outputs(), **PRIVATE
    )
    images.project.input(
        lambda name: make_page.opened(make, open_project(name)), images.project, make.outputs(), **PRIVATE
    )
    images.grid.edited(
        lambda **values: make_page.recounted(make, values),
        None,
        make.outputs(),
        inputs_kwargs=make.inputs(),
        **PRIVATE,
    )
    wire_images(pages)

    started = [make.obstacle, pages.tabs, watching.run]
    make.start.click(
        lambda **values: begun(pages, values), None, started, inputs_kwargs=make.inputs(), **PRIVATE
    )

    def act(event: gr.EventData) -> Any:
        return answered(pages, event._data) or gr.skip()

    def use_again(event: gr.EventData) -> Any:
        return reused(pages, str(event._data.get("run", ""))) or gr.skip()

    for part in (pages.status, *watching.clickable()):
        part.click(act, None, pages.destinations(), **PRIVATE)
    for part in watching.clickable():
        part.reuse(use_again, None, [*make.outputs(), pages.tabs], **PRIVATE)

    def poll(run_id: str | None, count: int, columns: str, request: gr.Request) -> Any:
        return news.poll(run_id, request.session_hash, count, columns)

    def draw_chart(run_id: str | None, shown: str, request: gr.Request) -> Any:
        return news.chart(run_id, request.session_hash, shown)

    def catch_up(run_id: str | None, request: gr.Request) -> Any:
        return followed(pages, run_id, request.session_hash) or gr.skip()

    at_once = {"inputs": watching.run, "queue": False, **PRIVATE}
    asking = {
        "inputs": [watching.run, pages.news, watching.columns],
        "js": "(run, news, columns) => [run, window.newsCount ?? 0, columns]",
    }
    moments = [pages.clock.tick, watching.run.change, watching.columns.input]
    gr.on(moments, poll, outputs=pages.news, **(at_once | asking))
    charted = at_once | {"inputs": [watching.run, watching.shown], "outputs": watching.chart}
    pages.news.chart(draw_chart, **charted)
    watching.shown.input(draw_chart, **charted)
    pages.news.menus(catch_up, outputs=pages.following(), **at_once)


def wire_images(pages: Pages) -> None:
    """The parts of Images: captions by a model, which its history has as one edit, and masks, which the plan follows."""
    make, images, masks = pages.make, pages.images, pages.masks
    caption_part.wire(pages.captions, make.project, images_page.writer)
    masked = mask_part.wire(masks, make.project)
    replanned = {"inputs_kwargs": make.inputs(), "outputs": make.outputs(), **PRIVATE}
    masked.success(lambda **values: make_page.replan(make, values), **replanned)

    def paint(project: str, event: gr.EventData) -> Updates:
        opened = mask_part.opened(masks, open_project(project), str(event._data.get("name", "")))
        return {pages.mask_fold: gr.Accordion(open=True)} | opened

    shown = images.grid.mask(paint, make.project, [pages.mask_fold, *masks.outputs()], **PRIVATE)
    shown.then(None, js="() => document.querySelector('#mask-fold').scrollIntoView()", **PRIVATE)
    for tab in pages.tabs.children:
        if tab.id == "images":  # pictures may have come meanwhile
            tab.select(
                lambda project, name: mask_part.opened(masks, open_project(project), name),
                [make.project, masks.picture],
                masks.outputs(),
                **PRIVATE,
            )


def credits() -> str:
    """Whom the starter model and the example set are owed to, from the model's own card."""
    card = (find.STARTER.parent / "MODEL_CARD.md").read_text(encoding="utf-8")
    return card.replace("\n# ", "\n### ").replace("# ", "### ", 1)


def launch(
    demo: gr.Blocks, *, address: str, port: int, browser: bool, share: bool, auth: tuple[str, str] | None
) -> None:
    """Serve the page until the program is ended."""
    line.keep_going()
    gr.set_static_paths([places.thumbs(), places.pictures()])
    guard = Middleware(Guard, listen=address, share=share)
    demo.launch(
        app_kwargs={"middleware": [guard], "openapi_url": None},
        server_name=bracketed(address),
        server_port=port,
        inbrowser=browser,
        share=share,
        auth=auth,
        auth_message=LOGIN,
        theme=theme(),
        css_paths=sorted(view.STATIC.glob("*.css")),  # app.css first
        i18n=words.translated(demo),
        max_file_size="4gb",
        show_error=True,
        run_history=False,
        footer_links=[],
        enable_monitoring=False,
        state_session_capacity=SESSIONS,
        mcp_server=False,
        ssr_mode=False,
    )
