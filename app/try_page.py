"""Try it: pictures with a LoRA at any strength, beside the model without it, and the file to take away."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from lora_sd.lora.inspection import inspect
from lora_sd.settings import PreviewSettings

from . import best_part, drawing, grid_part, loras, models, story, try_view, view
from .view import node

MOST_LORAS = 4  # at once
HINT = "Press Generate, or move the strength. The first picture takes longest: the model is loaded once, then kept."
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
    loras: tuple[gr.Dropdown, ...]
    strengths: tuple[gr.Slider, ...]
    rows: tuple[gr.Row, ...]
    more: gr.Button
    upload: gr.UploadButton
    base: gr.Dropdown
    about: gr.HTML
    prompt: gr.Textbox
    negative: gr.Textbox
    seed: gr.Number
    steps: gr.Slider
    guidance: gr.Slider
    sampler: gr.Dropdown
    size: gr.Textbox
    generate: gr.Button
    compare: gr.Button
    cancel: gr.Button
    progress: gr.HTML
    picture: gr.Image
    slider: gr.ImageSlider
    download: gr.DownloadButton
    download_plain: gr.DownloadButton
    download_word: gr.DownloadButton
    grid: grid_part.Part
    best: best_part.Part

    def inputs(self) -> dict[str, gr.components.Component]:
        own = "base prompt negative seed steps guidance sampler size on_cpu".split()
        chosen = {f"lora_{i}": part for i, part in enumerate(self.loras)}
        strengths = {f"strength_{i}": part for i, part in enumerate(self.strengths)}
        return {name: getattr(self, name) for name in own} | chosen | strengths

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
        ]
        return [*own, self.seed, self.steps, self.guidance, self.sampler]

    def results(self) -> list[gr.components.Component]:
        return [self.progress, self.picture, self.slider, self.cancel]


Updates = dict[gr.components.Component, Any]
Arrange = Callable[[drawing.Job], list[drawing.Job]]
Show = Callable[[Page, list[str]], Updates]


# -- pictures --------------------------------------------------------------------------------------------------------


def make(page: Page, values: dict[str, Any], arrange: Arrange, show: Show) -> Iterator[Updates]:
    """Make the pictures of the jobs that `arrange` makes of the page's job, and `show` them.

    What goes wrong is a sentence in the page.
    """
    try:
        jobs = arrange(drawing.job(values, MOST_LORAS))
        pictures = []
        for number, job in enumerate(jobs, 1):
            title = f"Picture {number} of {len(jobs)}" if len(jobs) > 1 else "Drawing"
            start = title if drawing.client.alive else "Loading the model"
            yield {page.progress: try_view.draw_progress(start, 0, 1), page.cancel: gr.update(visible=True)}
            for news in drawing.draw(job):
                if isinstance(news, Path):
                    pictures.append(str(news))
                else:
                    yield {page.progress: try_view.draw_progress(title, *news)}
        yield show(page, pictures) | finished(page)
    except ValueError as error:
        yield finished(page, str(error))


def generate(page: Page, values: dict[str, Any]) -> Iterator[Updates]:
    """One picture."""
    return make(page, values, lambda job: [job], lambda page, pictures: only(page, page.picture, pictures[0]))


def compare(page: Page, values: dict[str, Any]) -> Iterator[Updates]:
    """Without and with the LoRAs, from the same noise."""
    return make(
        page, values, drawing.without_and_with, lambda page, both: only(page, page.slider, tuple(both))
    )


def finished(page: Page, text: str = "") -> Updates:
    return {
        page.progress: node("p", text, cls="obstacle") if text else None,
        page.cancel: gr.update(visible=False),
    }


def only(page: Page, part: gr.components.Component, value: Any) -> Updates:
    """Show one kind of result and hide the others."""
    hidden = {other: gr.update(visible=False) for other in (page.picture, page.slider)}
    return hidden | {part: gr.update(value=value, visible=True)}


# -- choices ---------------------------------------------------------------------------------------------------------


def offered(page: Page, chosen: str | None = None) -> Updates:
    """The menus of LoRAs and base models, and what goes with the chosen one."""
    menu = loras.menu()
    first = chosen or (menu[0][1] if menu else None)
    updates: Updates = {part: gr.update(choices=[("none", ""), *menu]) for part in page.loras[1:]}
    updates[page.loras[0]] = gr.update(choices=[("none", ""), *menu], value=first or "")
    updates[page.base] = gr.update(choices=models.menu())
    return updates | picked(page, first)


def picked(page: Page, lora: str | None) -> Updates:
    """What goes with a LoRA: its base model, its preview's prompt and settings, its files to download."""
    off = dict.fromkeys((page.download, page.download_plain), gr.update(interactive=False))
    off[page.download_word] = gr.update(visible=False)
    if not lora:
        return {page.about: None, **off}
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
    }
    found = loras.run_of(lora)
    return updates | (from_run(page, story.read(found)) if found else {})


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
        raise ValueError("Only .safetensors files are safe to open.")
    return str(loras.bring(Path(path)))


# -- layout ----------------------------------------------------------------------------------------------------------


def build(*, remote: bool = False) -> Page:
    """`remote`: the page is open to other computers, so it takes no paths of this one."""
    defaults = PreviewSettings()
    notice = view.component("try-notice")
    on_cpu = gr.Checkbox(False, label="Use the processor", visible=False, elem_id="on-cpu")
    with gr.Row():
        with gr.Column(scale=2, min_width=320, elem_classes="card"):
            rows, menus, strengths = zip(
                *(lora_row(number, remote) for number in range(MOST_LORAS)), strict=True
            )
            about = view.component("about-lora")
            with gr.Row():
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
                    sampler = gr.Dropdown(
                        SAMPLERS, value=defaults.sampler, label="Sampler", elem_id="sampler", min_width=140
                    )
                steps = gr.Slider(1, 100, defaults.steps, step=1, label="Steps", elem_id="steps")
                guidance = gr.Slider(1, 20, defaults.guidance, step=0.5, label="Guidance", elem_id="guidance")
                size = gr.Textbox(
                    "",
                    label="Size",
                    placeholder="the model's own",
                    info="Width × height, like 768 × 512.",
                    elem_id="size",
                )
        with gr.Column(scale=3, min_width=320, elem_classes="card"):
            progress = view.component("drawing", node("p", HINT, cls="quiet"))
            cancel = gr.Button("Cancel", size="sm", visible=False, elem_id="cancel")
            picture = gr.Image(
                show_label=False,
                interactive=False,
                height=520,
                elem_id="picture",
                placeholder="Your picture appears here.",
                buttons=["download", "fullscreen"],
            )
            slider = gr.ImageSlider(
                label="Without | with",
                interactive=False,
                visible=False,
                max_height=520,
                elem_id="compare-slider",
                type="filepath",
            )
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
    best = best_part.build()
    grid = grid_part.build()
    return Page(
        notice=notice, on_cpu=on_cpu, loras=menus, strengths=strengths, rows=rows, more=more, upload=upload, base=base,
        about=about, prompt=prompt, negative=negative, seed=seed, steps=steps, guidance=guidance, sampler=sampler,
        size=size, generate=generate_button, compare=compare_button, cancel=cancel,
        progress=progress, picture=picture, slider=slider, download=download, download_plain=plain,
        download_word=word, grid=grid, best=best,
    )  # fmt: skip


def lora_row(number: int, remote: bool) -> tuple[gr.Row, gr.Dropdown, gr.Slider]:
    with gr.Row(visible=number == 0) as row:
        suffix = f" {number + 1}" if number else ""
        menu = gr.Dropdown(
            [("none", "")],
            value="",
            label=f"LoRA{suffix}",
            allow_custom_value=not remote,
            elem_id=f"lora-{number}",
            info="From your runs, or paste a path." if not number else None,
            scale=1,
            min_width=220,
        )
        strength = gr.Slider(
            -1,
            2,
            1.0 if not number else 0.5,
            step=0.05,
            label=f"Strength{suffix}",
            elem_id=f"strength-{number}",
            scale=1,
            min_width=220,
            info="0 is the model without it." if not number else None,
        )
    return row, menu, strength


# -- wiring ----------------------------------------------------------------------------------------------------------


def wire(page: Page) -> None:
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    making = {
        **quiet,
        "inputs_kwargs": page.inputs(),
        "outputs": page.results(),
        "concurrency_id": "drawing",
    }

    page.generate.click(lambda **values: (yield from generate(page, values)), **making)
    page.prompt.submit(lambda **values: (yield from generate(page, values)), **making)
    gr.on(
        [strength.release for strength in page.strengths],
        lambda **values: (yield from generate(page, values)),
        trigger_mode="always_last",
        **making,
    )
    page.compare.click(lambda **values: (yield from compare(page, values)), **making)
    page.cancel.click(drawing.client.cancel, queue=False, **quiet)

    page.loras[0].input(lambda lora: picked(page, lora), page.loras[0], page.of_lora(), **quiet)
    page.upload.upload(
        lambda path: offered(page, bring(path)), page.upload, [*page.loras, *page.of_lora()], **quiet
    )
    grid_part.wire(
        page.grid,
        page.inputs(),
        lambda values: drawing.job(values, MOST_LORAS),
        page.loras[0],
        page.prompt,
    )
    best_part.wire(
        page.best,
        page.loras[0],
        lambda lora: offered(page, lora),
        [*page.loras, *page.of_lora()],
    )
    shown = gr.State(1)
    page.more.click(show_another, shown, [shown, *page.rows, page.more], queue=False, **quiet)


def show_another(shown: int) -> list[Any]:
    """One more row for a LoRA, up to MOST_LORAS."""
    shown = min(shown + 1, MOST_LORAS)
    rows = [gr.update(visible=number < shown) for number in range(MOST_LORAS)]
    return [shown, *rows, gr.update(visible=shown < MOST_LORAS)]
