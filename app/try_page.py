"""Try it: pictures with a LoRA at any strength, beside the model without it, and the file to take away."""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from lora_sd import infotext
from lora_sd.lora.inspection import inspect
from lora_sd.lora.strength import Strength, as_strength
from lora_sd.settings import PreviewSettings

from . import (
    best_part,
    copy_part,
    drawing,
    gallery,
    gallery_view,
    grid_part,
    lora_rows,
    loras,
    models,
    story,
    try_view,
    view,
)
from .lora_rows import MOST_LORAS
from .view import node
from .words import say

MOST_PICTURES = 4  # at once
MOST_SEED = 2**32
TOLD_EVERY = 0.2  # seconds between two looks at a picture's progress
SIZES = ["512 × 512", "512 × 768", "768 × 512", "768 × 768", "1024 × 1024", "832 × 1216", "1216 × 832"]
SAMPLERS = [
    ("DPM++ 2M Karras", "dpmpp_2m_karras"),
    ("Euler", "euler"),
    ("Euler a", "euler_a"),
    ("DDIM", "ddim"),
    ("UniPC", "unipc"),
]


class Page(NamedTuple):
    notice: gr.HTML
    on_cpu: gr.Checkbox
    rows: tuple[lora_rows.Row, ...]
    shown: gr.State  # how many of them are seen
    more: gr.Button
    upload: gr.UploadButton
    star: gr.Button
    base: gr.Dropdown
    about: gr.HTML
    prompt: gr.Textbox
    negative: gr.Textbox
    seed: gr.Number
    new_seed: gr.Button
    keep_seed: gr.Checkbox
    count: gr.Radio
    steps: gr.Slider
    guidance: gr.Slider
    sampler: gr.Dropdown
    size: gr.Dropdown
    reading: gr.UploadButton
    generate: gr.Button
    compare: gr.Button
    progress: gr.HTML
    picture: gr.HTML
    download: gr.DownloadButton
    download_plain: gr.DownloadButton
    download_word: gr.DownloadButton
    copying: copy_part.Part
    grid: grid_part.Part
    best: best_part.Part
    gallery: gr.HTML

    @property
    def loras(self) -> list[gr.Dropdown]:
        return [row.lora for row in self.rows]

    def inputs(self) -> dict[str, gr.components.Component]:
        own = "base prompt negative seed keep_seed count steps guidance sampler size on_cpu".split()
        rows = [row.inputs(number) for number, row in enumerate(self.rows)]
        return {name: getattr(self, name) for name in own} | {
            name: p for row in rows for name, p in row.items()
        }

    def of_lora(self) -> list[gr.components.Component]:
        """What follows from the first LoRA."""
        own = [
            self.about,
            self.download,
            self.download_plain,
            self.download_word,
            self.base,
            self.prompt,
            self.negative,
            self.star,
            self.copying.name,
        ]
        return [*own, self.seed, self.steps, self.guidance, self.sampler]

    def results(self) -> list[gr.components.Component]:
        return [self.progress, self.picture]

    def of_picture(self) -> list[gr.components.Component]:
        """All that settings of a picture made before fill in."""
        own = [
            self.base,
            self.prompt,
            self.negative,
            self.seed,
            self.steps,
            self.guidance,
            self.sampler,
            self.size,
        ]
        return [*own, self.shown, self.more, *(part for row in self.rows for part in row)]


Updates = dict[gr.components.Component, Any]
Arrange = Callable[[drawing.Job], list[drawing.Job]]
Show = Callable[[Page, list[str]], Updates]


# -- pictures --------------------------------------------------------------------------------------------------------


def make(
    page: Page, values: dict[str, Any], arrange: Arrange, show: Show, tab: str = ""
) -> Iterator[Updates]:
    """Make the pictures of the jobs that `arrange` makes of the page's job, and `show` them.

    What goes wrong is a sentence in the page. When the tab `tab` wants something else meanwhile, this is given up.
    """
    try:
        jobs = arrange(drawing.job(values, MOST_LORAS))
        drawing.want(tab, jobs)
        pictures = []
        for number, job in enumerate(jobs, 1):
            title = (
                say("Picture {number} of {count}", number=number, count=len(jobs))
                if len(jobs) > 1
                else say("Drawing")
            )
            told = 0.0
            if gallery.known(job) is None:
                start = title if drawing.client.ready else say("Loading the model")
                yield {page.progress: try_view.draw_progress(start, 0, 1)}
            for news in drawing.latest(tab, job):
                if isinstance(news, Path):
                    pictures.append(str(news))
                elif time.monotonic() - told > TOLD_EVERY:
                    told = time.monotonic()
                    yield {page.progress: try_view.draw_progress(title, *news)}
        yield show(page, pictures) | finished(page)
    except drawing.Cancelled as cancelled:
        if tab not in drawing.wanted:  # by a person; else the next picture is on its way
            yield finished(page, str(cancelled))
    except (ValueError, OSError) as error:
        yield finished(page, str(error))


def generate(page: Page, values: dict[str, Any], tab: str = "") -> Iterator[Updates]:
    """As many pictures as were asked for."""
    return make(page, values, lambda job: drawing.seeds(job, number_of(values)), made, tab)


def number_of(values: Mapping[str, Any]) -> int:
    return min(max(int(values.get("count") or 1), 1), MOST_PICTURES)


def made(page: Page, pictures: list[str]) -> Updates:
    return {page.picture: try_view.draw_pictures([Path(picture) for picture in pictures], drawing.counts)}


def compare(page: Page, values: dict[str, Any], tab: str = "") -> Iterator[Updates]:
    """Without and with the LoRAs, from the same noise."""

    def show(page: Page, both: list[str]) -> Updates:
        return {page.picture: try_view.draw_pair(*map(Path, both))}

    return make(page, values, drawing.without_and_with, show, tab)


def finished(page: Page, text: str = "") -> Updates:
    return {page.progress: node("p", text, cls="obstacle", role="alert") if text else None}


def overtake(values: dict[str, Any], tab: str) -> None:
    """Give up a picture that the tab has under way where its settings are others by now."""
    try:
        drawing.want(tab, drawing.seeds(drawing.job(values, MOST_LORAS), number_of(values)))
    except ValueError:
        return  # told where the picture is made


def seed_for(values: dict[str, Any]) -> dict[str, Any]:
    """The page's values with a seed of their own, where it is not to be kept."""
    return values if values["keep_seed"] else {**values, "seed": secrets.randbelow(MOST_SEED)}


# -- choices ---------------------------------------------------------------------------------------------------------


def opened(page: Page, chosen: str | None = None) -> Updates:
    """The page as it opens, before any picture."""
    hint = say(
        "Press Generate, or move the strength. The first picture takes longest: the model is loaded once, then kept."
    )
    waiting = {page.progress: node("p", hint, cls="quiet"), page.picture: try_view.draw_waiting()}
    return offered(page, chosen) | waiting


def offered(page: Page, chosen: str | None = None) -> Updates:
    """The menus of LoRAs and base models, and what goes with the chosen one."""
    menu = loras.menu()
    first = chosen or (menu[0][1] if menu else None)
    updates: Updates = {part: gr.update(choices=[(say("no LoRA"), ""), *menu]) for part in page.loras[1:]}
    updates[page.loras[0]] = gr.update(choices=[(say("no LoRA"), ""), *menu], value=first or "")
    updates[page.base] = gr.update(choices=models.menu())
    return updates | picked(page, first)


def picked(page: Page, lora: str | None) -> Updates:
    """What goes with a LoRA: its base model, its preview's prompt and settings, its files to download."""
    off = dict.fromkeys((page.download, page.download_plain), gr.update(interactive=False))
    off[page.download_word] = gr.update(visible=False)
    off[page.star] = gr.update(visible=False)
    if not lora:
        return {page.about: None if loras.menu() else try_view.draw_empty(), **off}
    try:
        path = loras.file(lora)
        known, word = inspect(path), loras.embedding(path)
    except ValueError as error:
        return {page.about: node("p", str(error), cls="obstacle"), **off}
    updates: Updates = {
        page.about: try_view.draw_about(known, complete=word is not None),
        page.download: gr.update(value=str(loras.offered(path)), interactive=True),
        page.download_plain: gr.update(value=str(loras.without_details(path)), interactive=True),
        page.download_word: gr.update(value=str(loras.without_details(word, known.word.text)), visible=True)
        if word
        else off[page.download_word],
        page.star: star_button(lora),
        page.copying.name: path.stem,
    }
    found = loras.run_of(lora)
    return updates | (from_run(page, story.read(found)) if found else {})


def star_button(lora: str) -> Any:
    """The button as it is for a LoRA: it says what pressing it does."""
    return gr.update(
        value=say("★ Take its star away") if loras.starred(lora) else say("☆ Star this LoRA"), visible=True
    )


def give_star(page: Page, lora: str) -> Updates:
    try:
        loras.give_star(lora)
    except ValueError as error:
        view.warn(str(error))
        return {}
    menu = {part: gr.update(choices=[(say("no LoRA"), ""), *loras.menu()]) for part in page.loras}
    return {**menu, page.star: star_button(lora)}


def from_job(page: Page, job: drawing.Job) -> Updates:
    """The page as it was when a picture was made."""
    size = job["size"]
    updates: Updates = {
        page.base: job["base"],
        page.prompt: job["prompt"],
        page.negative: job["negative"],
        page.seed: job["seed"],
        page.steps: job["steps"],
        page.guidance: job["guidance"],
        page.sampler: job["sampler"],
        page.size: f"{size[0]} × {size[1]}" if size else "",
    }
    rows = [(loras.of_path(path), _strength(given)) for path, given in job["loras"]]
    return updates | from_rows(page, rows)


def _strength(given: float | dict[str, Any]) -> Strength:
    return Strength(**given) if isinstance(given, dict) else as_strength(given)


def from_rows(page: Page, chosen: Sequence[tuple[str, Strength]]) -> Updates:
    """The rows of LoRAs with these, and no others."""
    shown = max(1, len(chosen))
    updates: Updates = {page.shown: shown, page.more: gr.update(visible=shown < MOST_LORAS)}
    for number, row in enumerate(page.rows):
        lora, strength = chosen[number] if number < len(chosen) else ("", Strength(lora_rows.OTHERS))
        blocks = dict(strength.blocks)
        updates |= {
            row.row: gr.update(visible=number < shown),
            row.lora: lora,
            row.strength: strength.whole,
            row.unet: strength.unet,
            row.text: strength.text,
            row.down: blocks.pop("down", 1),
            row.mid: blocks.pop("mid", 1),
            row.up: blocks.pop("up", 1),
            row.blocks: " ".join(f"{name}={value:g}" for name, value in blocks.items()),
        }
    return updates


def from_text(page: Page, path: str) -> Updates:
    """The settings that a picture's file tells, of ours or another program's."""
    text = infotext.of_picture(Path(path))
    if text is None:
        raise ValueError(
            say("This picture does not say how it was made; it may have been saved anew by another program.")
        )
    told = infotext.parse(text)
    samplers = {name: ours for ours, (name, _) in infotext.SAMPLERS.items()}
    w, _, h = told.pairs.get("Size", "").partition("x")
    updates: Updates = {page.prompt: told.prompt, page.negative: told.negative}
    if (sampler := samplers.get(told.pairs.get("Sampler", "").removesuffix(" Karras"))) is not None:
        updates[page.sampler] = sampler
    numbers = {page.seed: "Seed", page.steps: "Steps", page.guidance: "CFG scale"}
    updates |= {
        part: float(told.pairs[key]) for part, key in numbers.items() if _is_number(told.pairs.get(key, ""))
    }
    if w.isdecimal() and h.isdecimal():
        updates[page.size] = f"{w} × {h}"
    by_name = {loras.file(lora).stem: lora for _, lora in reversed(loras.menu())}
    found = [(by_name[used.name], used.strength) for used in told.loras if used.name in by_name][:MOST_LORAS]
    missing = [used.name for used in told.loras if used.name not in by_name]
    if missing:
        view.warn(
            say(
                "These LoRAs are not here: {names}. Open their files to draw with them.",
                names=", ".join(missing),
            )
        )
    return updates | from_rows(page, found)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal() and len(text) < 20


def look(page: Page, click: dict[str, str]) -> Updates:
    """Do what a button of the gallery asks for."""
    here = gallery_view.place(click)
    kept = gallery.get(here.opened)
    match click.get("act"):
        case "star" if kept:
            gallery.star(kept.id, not kept.starred)
        case "delete":
            here = here._replace(deleting=True)
        case "really" if kept:
            gallery.delete(kept.id)
        case "use" if kept:
            return {page.gallery: gallery_view.draw(here), **from_job(page, kept.job)}
    return {page.gallery: gallery_view.draw(here)}


def from_run(page: Page, told: story.Story) -> Updates:
    settings = told.settings()
    preview: PreviewSettings = settings.preview
    prompt = next((picture.prompt for _, picture in sorted(told.pictures.items())), settings.data.trigger)
    return {
        page.base: settings.model.base,
        page.prompt: prompt,
        page.negative: preview.negative,
        page.seed: preview.seed,
        page.steps: preview.steps,
        page.guidance: preview.guidance,
        page.sampler: preview.sampler,
    }


def bring(path: str) -> str:
    """Take an uploaded LoRA in; its path."""
    if Path(path).suffix.lower() != ".safetensors":
        raise ValueError(say("Only .safetensors files are safe to open."))
    return str(loras.bring(Path(path)))


# -- layout ----------------------------------------------------------------------------------------------------------


def build(*, remote: bool = False) -> Page:
    """`remote`: the page is open to other computers, so it takes no paths of this one."""
    defaults = PreviewSettings()
    notice = view.component("try-notice")
    on_cpu = gr.Checkbox(False, label="Use the processor", visible=False, elem_id="on-cpu")
    with gr.Row():
        with gr.Column(scale=2, min_width=320, elem_classes="card"):
            rows = tuple(lora_rows.build(number, remote) for number in range(MOST_LORAS))
            lora_rows.script()
            about = view.component("about-lora")
            with gr.Row(elem_classes="small-buttons"):
                star = gr.Button(
                    "☆ Star this LoRA", size="sm", visible=False, elem_id="star-lora", min_width=120
                )
                more = gr.Button("Add another LoRA", size="sm", elem_id="more-loras")
                upload = gr.UploadButton(
                    "Open a .safetensors", size="sm", file_types=[".safetensors"], elem_id="open-lora"
                )
            prompt = gr.Textbox("", label="Prompt", lines=3, elem_id="prompt")
            with gr.Row():
                generate_button = gr.Button(
                    "Generate", variant="primary", size="md", elem_id="generate", min_width=90
                )
                compare_button = gr.Button("Compare", size="md", elem_id="compare", min_width=90)
            with gr.Accordion("More", open=False, elem_id="try-more"):
                base = gr.Dropdown(
                    [("Starter · small, built in", "starter")],
                    value="starter",
                    label="Base model",
                    allow_custom_value=not remote,
                    elem_id="try-base",
                )
                negative = gr.Textbox(
                    "", label="Negative prompt", elem_id="negative", info="What the picture should not show."
                )
                with gr.Row():
                    seed = gr.Number(
                        defaults.seed, label="Seed", precision=0, minimum=0, elem_id="seed", min_width=100
                    )
                    with gr.Column(min_width=140):
                        new_seed = gr.Button("New seed", size="sm", elem_id="new-seed")
                        keep_seed = gr.Checkbox(True, label="Keep the seed", elem_id="keep-seed")
                count = gr.Radio([1, 2, 3, 4], value=1, label="Pictures", elem_id="count")
                with gr.Row():
                    sampler = gr.Dropdown(
                        SAMPLERS, value=defaults.sampler, label="Sampler", elem_id="sampler", min_width=140
                    )
                steps = gr.Slider(1, 100, defaults.steps, step=1, label="Steps", elem_id="steps")
                guidance = gr.Slider(1, 20, defaults.guidance, step=0.5, label="Guidance", elem_id="guidance")
                size = gr.Dropdown(
                    [("The model's own", ""), *SIZES],
                    value="",
                    label="Size",
                    info="Width × height; type another one like 640 × 448.",
                    allow_custom_value=True,
                    elem_id="size",
                )
                reading = gr.UploadButton(
                    "Take the settings of a picture", size="sm", file_types=["image"], elem_id="read-picture"
                )
        with gr.Column(scale=3, min_width=320, elem_classes="card"):
            progress = view.component("drawing")
            picture = view.component("picture")
            with gr.Row():
                download = gr.DownloadButton(
                    "Download .safetensors", size="md", interactive=False, elem_id="download-lora"
                )
                plain = gr.DownloadButton(
                    "Without training details", size="md", interactive=False, elem_id="download-plain"
                )
                word = gr.DownloadButton(
                    "Its word (embedding)", size="md", visible=False, elem_id="download-word"
                )
            gr.Markdown(
                "The file loads in ComfyUI, AUTOMATIC1111, Forge and diffusers. “Without training details” leaves out captions and folder names.",
                elem_classes="quiet",
            )
            copying = copy_part.build(remote=remote)
    best = best_part.build()
    grid = grid_part.build()
    with gr.Column(elem_classes="card"):
        kept = view.component("gallery")
    return Page(
        notice=notice, on_cpu=on_cpu, rows=rows, shown=gr.State(1), more=more, upload=upload, star=star, base=base, about=about,
        prompt=prompt, negative=negative, seed=seed, new_seed=new_seed, keep_seed=keep_seed, count=count, steps=steps,
        guidance=guidance, sampler=sampler, size=size, reading=reading, generate=generate_button,
        compare=compare_button, progress=progress, picture=picture, download=download,
        download_plain=plain, download_word=word, copying=copying, gallery=kept, grid=grid, best=best,
    )  # fmt: skip


# -- wiring ----------------------------------------------------------------------------------------------------------


QUIET = {"api_visibility": "private", "show_progress": "hidden"}
Handler = Callable[..., Iterator[Updates]]


def wire(page: Page, tab: gr.Tab) -> None:
    """`tab` is the one that the page is in: the gallery is read, and the model loaded, when it is opened."""
    at_once = {**QUIET, "queue": False}
    wire_pictures(page)

    def open_tab(request: gr.Request, **values: Any) -> Updates:
        drawing.warm(values, MOST_LORAS)
        return {
            page.gallery: gallery_view.draw(),
            page.copying.programs: copy_part.programs(),
        }

    opened = [page.gallery, page.copying.programs]
    tab.select(open_tab, None, opened, inputs_kwargs=page.inputs(), **at_once)

    page.rows[0].lora.input(lambda lora: picked(page, lora), page.rows[0].lora, page.of_lora(), **QUIET)
    page.star.click(
        lambda lora: give_star(page, lora) or gr.skip(), page.rows[0].lora, [*page.loras, page.star], **QUIET
    )
    page.upload.upload(
        lambda path: offered(page, bring(path)), page.upload, [*page.loras, *page.of_lora()], **QUIET
    )
    page.reading.upload(lambda path: from_text(page, path), page.reading, page.of_picture(), **QUIET)
    page.new_seed.click(lambda: secrets.randbelow(MOST_SEED), None, page.seed, **at_once)
    page.more.click(
        show_another,
        page.shown,
        [page.shown, *(row.row for row in page.rows), page.more],
        queue=False,
        **QUIET,
    )

    def in_gallery(event: gr.EventData) -> Updates:
        return look(page, event._data)

    page.gallery.click(in_gallery, None, [page.gallery, *page.of_picture()], **QUIET)
    copy_part.wire(page.copying, page.rows[0].lora)
    lora = page.rows[0].lora
    grid_part.wire(
        page.grid, page.inputs(), lambda values: drawing.job(values, MOST_LORAS), lora, page.prompt
    )
    best_part.wire(page.best, lora, lambda chosen: offered(page, chosen), [*page.loras, *page.of_lora()])


def wire_pictures(page: Page) -> None:
    """What makes pictures, and gives up what is not wanted any more."""
    strengths = [part for row in page.rows for part in row.strengths]
    making = {**QUIET, "inputs_kwargs": page.inputs(), "concurrency_id": "drawing"}
    results = page.results()

    def handler(make_it: Handler) -> Handler:
        def handle(request: gr.Request, **values: Any) -> Iterator[Updates]:
            yield from make_it(page, values, request.session_hash)

        return handle

    def with_seed(request: gr.Request, **values: Any) -> Iterator[Updates]:
        values = seed_for(values)
        yield {page.seed: values["seed"]}
        yield from generate(page, values, request.session_hash)

    def give_way(request: gr.Request, **values: Any) -> None:
        overtake(values, request.session_hash)

    begun = [
        page.generate.click(with_seed, None, [*results, page.seed], **making),
        page.prompt.submit(with_seed, None, [*results, page.seed], **making),
        gr.on(
            [part.input for part in strengths],
            handler(generate),
            None,
            results,
            trigger_mode="always_last",
            **making,
        ),
        page.compare.click(handler(compare), None, results, **making),
    ]
    gr.on(
        [part.input for part in strengths],
        give_way,
        None,
        None,
        inputs_kwargs=page.inputs(),
        queue=False,
        trigger_mode="always_last",
        **QUIET,
    )
    for event in begun:
        event.then(gallery_view.draw, None, page.gallery, queue=False, **QUIET)

    def cancel(request: gr.Request) -> None:
        drawing.cancel(request.session_hash)

    page.progress.click(cancel, None, None, queue=False, **QUIET)


def show_another(shown: int) -> list[Any]:
    """One more row for a LoRA, up to MOST_LORAS."""
    shown = min(shown + 1, MOST_LORAS)
    rows = [gr.update(visible=number < shown) for number in range(MOST_LORAS)]
    return [shown, *rows, gr.update(visible=shown < MOST_LORAS)]
