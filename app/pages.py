"""The whole page: status bar, Make, Watch, Try it; what crosses from one to another; theme and launch."""

from pathlib import Path
from typing import Any

import gradio as gr

from lora_sd import run
from lora_sd.models import find

from . import (
    bar,
    drawing,
    loras,
    make_page,
    make_view,
    models,
    places,
    story,
    try_page,
    view,
    watch_page,
    watch_view,
)
from .project import names, open_project
from .view import node

TITLE = "LoRA SD"
ABOUT = """LoRA SD trains Stable Diffusion LoRAs on your own computer. Nothing leaves it: pictures, captions and
results stay in its folders, and models are downloaded only when you ask for one."""
OPENED = "() => { window.pageIsOpen = true; }"  # until then the address is what was asked for, and must stay
KEEP_IN_ADDRESS = "(value) => {{ if (!window.pageIsOpen) return; const url = new URL(location); url.searchParams.set('{name}', {value}); history.replaceState(null, '', url); }}"
GREEN = gr.themes.Color(
    "#f1f7f4", "#dcebe4", "#bad7ca", "#92bfac", "#6aa58c", "#4b8c71",
    "#3b775e", "#2f6b53", "#285c47", "#214c3b", "#183a2d", name="moss",
)  # fmt: skip
PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}


def theme() -> gr.themes.Base:
    return gr.themes.Base(
        primary_hue=GREEN,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_md,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    ).set(
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_padding="0",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_title_text_weight="600",
        block_info_text_size="*text_sm",
        block_shadow="none",
        form_gap_width="14px",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        input_background_fill="white",
        input_background_fill_dark="*neutral_800",
        input_border_width="1px",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        checkbox_label_background_fill="white",
        checkbox_label_background_fill_dark="*neutral_800",
        checkbox_label_border_width="1px",
        checkbox_label_border_color="*neutral_300",
        checkbox_label_border_color_dark="*neutral_700",
        button_primary_background_fill="#2f6b53",
        button_primary_background_fill_hover="#285c47",
        button_primary_background_fill_dark="#3f7d63",
        button_primary_text_color="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_dark="*neutral_800",
        button_border_width="1px",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
    )


def build(*, remote: bool = False) -> gr.Blocks:
    """The page; `remote` when other computers can reach it."""
    with gr.Blocks(title=TITLE, analytics_enabled=False) as demo:
        status = bar.component()
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Make", id="make") as make_tab:
                make = make_page.build(remote=remote)
            with gr.Tab("Watch", id="watch") as watch_tab:
                watch = watch_page.build()
            with gr.Tab("Try it", id="try") as try_tab:
                attempt = try_page.build(remote=remote)
        with gr.Accordion("About", open=False, elem_id="about", elem_classes="fold"):
            gr.Markdown(ABOUT)
            gr.Markdown(credits(), elem_id="credits")
        seen = gr.State({})
        timer = gr.Timer(1)

        make_page.wire(make)
        try_page.wire(attempt)

        def poll(run_id: str | None, seen: dict[str, Any]) -> Any:
            return {**changes(status, make, watch, attempt, run_id, seen), seen_state: seen}

        seen_state = seen
        polled = [status, *watch.outputs(), watch.run, *attempt.loras, attempt.notice, attempt.on_cpu]
        polled += [make.download_state, make.download, make.cancel_download, make.base, seen]
        timer.tick(poll, [watch.run, seen], polled, queue=False, **PRIVATE)
        watch.run.change(poll, [watch.run, seen], polled, queue=False, **PRIVATE)

        goes_to_watch = [tabs, watch.run]
        goes_to_try = [
            attempt.base,
            attempt.prompt,
            attempt.negative,
            attempt.seed,
            attempt.steps,
            attempt.guidance,
        ]
        goes_to_try += [
            attempt.sampler,
            attempt.about,
            attempt.download,
            attempt.download_plain,
            *attempt.loras,
        ]

        def begin(**values: Any) -> Any:
            try:
                folder = make_page.create(values)
            except ValueError as error:
                return {make.obstacle: node("p", str(error), cls="obstacle")}
            drawing.client.free()
            run.start(folder)
            return {
                tabs: gr.Tabs(selected="watch"),
                watch.run: gr.update(choices=watch_view.menu(story.runs()), value=folder.name),
            }

        make.start.click(
            begin, inputs_kwargs=make.inputs(), outputs=[*goes_to_watch, make.obstacle], **PRIVATE
        )

        def act(event: gr.EventData) -> Any:
            return answer(event._data, tabs, watch, attempt) or gr.skip()

        for part in (status, watch.header, watch.past):
            part.click(act, None, [*goes_to_watch, *goes_to_try], **PRIVATE)

        def open_page(request: gr.Request) -> Any:
            asked = dict(request.query_params)
            chosen = watch_page.choose(asked.get("run"))
            latest = names()
            models.refresh()
            updates = make_page.opened(make, open_project(latest[0] if latest else None))
            updates |= try_page.offered(attempt, loras.newest(asked["run"]) if "run" in asked else None)
            updates[watch.run] = gr.update(choices=watch_view.menu(story.runs()), value=chosen)
            if asked.get("tab") in ("make", "watch", "try"):
                updates[tabs] = gr.Tabs(selected=asked["tab"])
            return updates

        opening = demo.load(open_page, None, [*make.outputs(), *goes_to_watch, *goes_to_try], **PRIVATE)
        opening.then(None, None, None, js=OPENED, api_visibility="private")
        for tab, name in ((make_tab, "make"), (watch_tab, "watch"), (try_tab, "try")):
            tab.select(
                None,
                None,
                None,
                js=KEEP_IN_ADDRESS.format(name="tab", value=f"'{name}'"),
                api_visibility="private",
            )
        watch.run.change(
            None,
            watch.run,
            None,
            js=KEEP_IN_ADDRESS.format(name="run", value="value"),
            api_visibility="private",
        )
    return demo


def changes(
    status: gr.HTML,
    make: make_page.Page,
    watch: watch_page.Page,
    attempt: try_page.Page,
    run_id: str | None,
    seen: dict[str, Any],
) -> dict[Any, Any]:
    """What a tab has to show anew; `seen` is what it shows already."""
    current = story.active()
    updates = watch_page.poll(watch, run_id, seen)
    simple = {
        status: bar.draw(story.read(current.folder) if current else None),
        attempt.notice: try_page.draw_notice(),
        make.download_state: make_view.draw_download(models.current),
    }
    updates |= watch_page.fresh(seen, simple)
    menus = {"runs": watch_view.menu(story.runs()), "loras": loras.menu(), "models": models.current.finished}
    for name in [name for name, value in menus.items() if seen.get(name) != value]:
        seen[name] = menus[name]
        updates |= {
            "runs": lambda: {watch.run: gr.update(choices=menus["runs"])},
            "loras": lambda: {
                part: gr.update(choices=[("none", ""), *menus["loras"]]) for part in attempt.loras
            },
            "models": lambda: {make.base: gr.update(choices=models.menu())},
        }[name]()
    busy = try_page.on_card()
    if seen.get("busy") != busy:
        seen["busy"] = busy
        updates[attempt.on_cpu] = gr.update(visible=busy, value=busy)
    if seen.get("downloading") != models.current.running:
        seen["downloading"] = models.current.running
        updates |= {
            make.download: gr.update(interactive=not models.current.running),
            make.cancel_download: gr.update(visible=models.current.running),
        }
    return updates


def answer(
    click: dict[str, str], tabs: gr.Tabs, watch: watch_page.Page, attempt: try_page.Page
) -> dict[Any, Any]:
    """Do what a button of the bar or of Watch asks for; where it leads."""
    folder = run.find(click.get("run", ""))
    if folder is None:
        return {}
    opened = {tabs: gr.Tabs(selected="watch"), watch.run: folder.name}
    match click["act"]:
        case "watch":
            return opened
        case "try":
            return {tabs: gr.Tabs(selected="try")} | try_page.offered(attempt, loras.newest(folder.name))
        case "resume":
            if busy := story.active():
                gr.Warning(f"{busy.name} is still training; stop it first, or wait until it is done.")
                return {}
            drawing.client.free()
            run.start(folder)
            return opened
        case "stop" | "preview" | "save" as asked:
            run.command(folder, asked)
    return {}


def credits() -> str:
    """Whom the starter model and the example set are owed to, from the model's own card."""
    card = (find.STARTER.parent / "MODEL_CARD.md").read_text(encoding="utf-8")
    return card.replace("\n# ", "\n### ").replace("# ", "### ", 1)


def launch(*, address: str, port: int, browser: bool, share: bool, auth: tuple[str, str] | None) -> None:
    """Serve the page until the program is ended."""
    gr.set_static_paths([places.thumbs(), places.pictures()])
    demo = build(remote=auth is not None)
    demo.launch(
        server_name=address,
        server_port=port,
        inbrowser=browser,
        share=share,
        auth=auth,
        theme=theme(),
        css_paths=[Path(view.STATIC / "app.css")],
        max_file_size="4gb",
        show_error=True,
        run_history=False,
        footer_links=[],
        enable_monitoring=False,
    )
