"""Make: pictures and a trigger word in, a plan with its reasons, and Start. Everything else is Advanced."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from lora_sd import run

from . import form, importing, make_view, models, plan, reach, sheet, view
from .project import FIRST, Choices, Project, example, names, open_project
from .sheet import Sheet
from .view import node
from .words import say

QUALITIES = ["Quick", "Balanced", "Best"]


class Page(NamedTuple):
    """The components of the page; `settings` are those of Advanced by dotted name."""

    project: gr.Dropdown
    files: gr.File
    folder: gr.Textbox
    add_folder: gr.Button
    use_example: gr.Button
    clear: gr.Button
    pictures: gr.HTML
    trigger: gr.Textbox
    kind: gr.Radio
    quality: gr.Radio
    base: gr.Dropdown
    summary: gr.HTML
    start: gr.Button
    obstacle: gr.HTML
    search: gr.HTML
    changed: gr.HTML
    reset: gr.Button
    import_file: gr.UploadButton
    imported: gr.HTML
    settings: dict[str, gr.components.Component]
    automatic: gr.State
    command: gr.Textbox
    python: gr.Textbox
    toml: gr.Textbox
    offer: gr.Dropdown
    download: gr.Button
    cancel_download: gr.Button
    download_state: gr.HTML

    def inputs(self) -> dict[str, gr.components.Component]:
        own = ("project", "trigger", "kind", "quality", "base", "automatic")
        return {name: getattr(self, name) for name in own} | self.settings

    def watched(self) -> list[Any]:
        """The events of the controls that change the plan's words but not its automatic values."""
        parts = [self.trigger, *self.settings.values()]
        return [part.blur if isinstance(part, gr.Textbox | gr.Number) else part.input for part in parts]

    def outputs(self) -> list[gr.components.Component]:
        own = [
            part
            for name, part in self._asdict().items()
            if name not in ("settings", "files", "folder", "import_file")
        ]
        return [*own, self.files, self.folder, *self.settings.values()]


Updates = dict[gr.components.Component, Any]


# -- what a handler shows --------------------------------------------------------------------------------------------


def restated(page: Page, facts: Sheet) -> Updates:
    """What follows from the choices: summary, changed list, commands, Start."""
    obstacle = facts.obstacle()
    updates: Updates = {
        page.summary: make_view.draw_summary(facts),
        page.changed: make_view.draw_changed(facts),
        page.reset: gr.update(visible=bool(facts.choices.changes)),
        page.start: gr.update(interactive=facts.num_pictures > 0),
        page.obstacle: node("p", obstacle, cls="obstacle") if obstacle else None,
        page.automatic: facts.automatic,
    }
    with contextlib.suppress(ValueError):  # the obstacle tells it
        config = facts.config()
        updates |= {
            page.command: form.as_command(config),
            page.python: form.as_python(config),
            page.toml: form.as_toml(config),
        }
    return updates


def replanned(page: Page, facts: Sheet) -> Updates:
    """Also the controls of Advanced, whose automatic values have moved."""
    shown = form.show(facts.settings)
    return {page.settings[name]: value for name, value in shown.items()} | restated(page, facts)


def opened(page: Page, project: Project) -> Updates:
    """The whole page for a project."""
    try:
        facts = sheet.fill(project, project.choices())
    except ValueError as error:  # its model is gone: propose another and say why
        choices = project.choices()
        view.warn(str(error))
        facts = sheet.fill(
            project, Choices(choices.trigger, choices.kind, choices.quality, None, choices.changes)
        )
    return {
        page.project: gr.update(choices=project_names(project.name), value=project.name),
        page.trigger: facts.trigger,
        page.kind: facts.choices.kind,
        page.quality: facts.choices.quality,
        page.base: gr.update(choices=models.menu(), value=facts.base.source),
        page.pictures: make_view.draw_pictures(project),
        page.clear: gr.update(visible=facts.num_pictures > 0),
        page.files: gr.update(value=None, interactive=True),
        page.folder: "",
        page.imported: None,
        page.search: make_view.search_words(),
    } | replanned(page, facts)


def project_names(current: str) -> list[str]:
    return list(dict.fromkeys([*names(), current]))


# -- handlers --------------------------------------------------------------------------------------------------------


def chosen(values: Mapping[str, Any]) -> tuple[Project, Choices]:
    """The choices that the page's controls hold; what differs from automatic counts as a person's change."""
    project = open_project(values["project"])
    automatic = values["automatic"] or {}
    settings = form.read({setting.name: values[setting.name] for setting in form.advanced()})
    changes = {name: value for name, value in settings.items() if value != automatic.get(name, value)}
    if (
        changes.get("optim.steps", 0) is None
    ):  # an empty field is the proposal, or makes room for another length
        del changes["optim.steps"]
    trigger = values["trigger"]
    untouched = project.choices().trigger is None and trigger == plan.suggest_trigger(project.name)
    return project, Choices(
        None if untouched else trigger, values["kind"], values["quality"], values["base"], changes
    )


def restate(page: Page, values: Mapping[str, Any]) -> Updates:
    """A control of the page has changed."""
    return _follow(page, values, restated)


def replan(page: Page, values: Mapping[str, Any]) -> Updates:
    """Kind, quality or model has changed: automatic values move, a person's own stay."""
    return _follow(page, values, replanned)


def _follow(page: Page, values: Mapping[str, Any], show: Any) -> Updates:
    try:
        project, choices = chosen(values)
        facts = sheet.fill(project, choices)
    except ValueError as error:
        return {page.obstacle: node("p", str(error), cls="obstacle")}
    if project.folder.exists():
        project.choose(choices)
    return show(page, facts)


def recounted(page: Page, values: Mapping[str, Any]) -> Updates:
    """The project's pictures have changed on Images."""
    return replan(page, values) | {page.pictures: make_view.draw_pictures(open_project(values["project"]))}


def reset(page: Page, values: Mapping[str, Any]) -> Updates:
    """Everything of Advanced back to automatic."""
    return replan(page, {**values, **form.show(values["automatic"])})


def reset_one(page: Page, values: Mapping[str, Any], click: Mapping[str, str]) -> Updates:
    """One setting of Advanced back to automatic."""
    name = click.get("name", "")
    if click.get("act") != "reset" or name not in form.titles() or name not in (values["automatic"] or {}):
        return {}
    return replan(page, {**values, **form.show({name: values["automatic"][name]})})


def import_settings(page: Page, values: Mapping[str, Any]) -> Updates:
    """Settings from a file of ours, of sd-scripts or kohya_ss, or of a LoRA; those that it does not name stay."""
    try:
        project, choices = chosen(values)
        found = importing.read(Path(values["import_file"]), choices)
        automatic = sheet.fill(project, found.choices).automatic
        own = {name: value for name, value in found.choices.changes.items() if value != automatic[name]}
        facts = sheet.fill(project, replace(found.choices, changes=own))
    except ValueError as error:
        return {page.imported: node("p", str(error), cls="obstacle")}
    project.choose(facts.choices)
    shown = {page.trigger: facts.trigger, page.base: gr.update(value=facts.base.source)}
    return {page.imported: make_view.draw_imported(found)} | shown | replanned(page, facts)


def add_files(page: Page, values: Mapping[str, Any]) -> Updates:
    return _added(page, [Path(path) for path in values["files"] or []], values)


def add_folder(page: Page, values: Mapping[str, Any]) -> Updates:
    try:
        return _added(page, [reach.folder(values["folder"])], values)
    except ValueError as error:
        view.warn(str(error))
        return gr.skip()


def _added(page: Page, paths: list[Path], values: Mapping[str, Any]) -> Updates:
    project = open_project(values["project"])
    added = project.add(paths)
    if not added.pictures and not added.skipped:
        view.warn(say("There are no pictures in it."))
    project.choose(chosen(values)[1])
    return opened(page, project)


def clear(page: Page, values: Mapping[str, Any]) -> Updates:
    project = open_project(values["project"])
    project.clear()
    return opened(page, project)


def begin_download(name: str | None) -> None:
    try:
        models.current.start(name or "")
    except ValueError as error:
        view.warn(str(error))


def create(values: Mapping[str, Any]) -> Path:
    """The folder of a new run of what the page says, which waits. Raises ValueError where it can't be trained."""
    project, choices = chosen(values)
    facts = sheet.fill(project, choices)
    if obstacle := facts.obstacle():
        raise ValueError(obstacle)
    project.choose(choices)
    return run.create(facts.config(), status="queued")


# -- layout ----------------------------------------------------------------------------------------------------------


def build(*, remote: bool = False) -> Page:
    """`remote`: the page is open to other computers, so it takes no paths of this one."""
    with gr.Row(elem_classes="make"):
        with gr.Column(min_width=300, elem_classes="card"):
            gr.Markdown("### 1 · Your pictures")
            project = gr.Dropdown(
                [FIRST],
                value=FIRST,
                label="Project",
                allow_custom_value=True,
                elem_id="project",
                info="Also the name of your LoRA. Choose one, or type a new name.",
            )
            files = gr.File(
                label="Drop pictures or a .zip here",
                file_count="multiple",
                height=150,
                elem_id="files",
                file_types=["image", ".txt", ".caption", ".zip"],
                interactive=False,  # until the page has opened, which would empty it again
            )
            with (
                gr.Accordion(
                    "Or use a folder on this computer", open=False, visible=not remote, elem_id="folder-part"
                ),
                gr.Row(),
            ):
                folder = gr.Textbox(
                    show_label=False, placeholder="Paste its path here", scale=4, elem_id="folder"
                )
                add_folder_button = gr.Button("Add", scale=1, min_width=80, elem_id="add-folder")
            pictures = view.component("pictures")
            with gr.Row():
                use_example = gr.Button(
                    "No pictures at hand? Use the example set", size="sm", elem_id="use-example"
                )
                clear_button = gr.Button("Remove all", size="sm", visible=False, elem_id="clear")
        with gr.Column(min_width=280, elem_classes="card"):
            gr.Markdown("### 2 · What it learns")
            trigger = gr.Textbox(
                label="Trigger word",
                elem_id="trigger",
                placeholder="none: the captions say it all",
                max_length=200,
                info="The word you will type to call this LoRA. One that means nothing yet is best.",
            )
            kind = gr.Radio(["Subject", "Style"], value="Subject", label="What is it?", elem_id="kind")
            base = gr.Dropdown(
                [("Starter · small, built in", "starter")],
                value="starter",
                label="Base model",
                elem_id="base",
                allow_custom_value=not remote,
                info="Choose one found on this computer, or paste a path or Hugging Face name.",
            )
            quality = gr.Radio(QUALITIES, value="Balanced", label="Quality", elem_id="quality")
        with gr.Column(min_width=300, elem_classes="card plan"):
            gr.Markdown("### 3 · What will happen")
            summary = view.component("summary")
            with gr.Column(elem_classes="go"):
                start_button = gr.Button(
                    "Start training", variant="primary", interactive=False, elem_id="start"
                )
                obstacle = view.component("obstacle")
    automatic = gr.State({})
    with gr.Accordion("Advanced", open=False, elem_id="advanced", elem_classes="fold"):
        with gr.Row():
            changed = view.component("changed")
            reset_button = gr.Button(
                "Reset all", size="sm", visible=False, scale=0, min_width=120, elem_id="reset"
            )
            import_button = gr.UploadButton(
                "Import settings",
                size="sm",
                scale=0,
                min_width=150,
                elem_id="import",
                file_types=importing.SUFFIXES,
            )
        imported = view.component("imported")
        search = make_view.search()
        settings = form.build()
    with gr.Accordion("Get another model", open=False, elem_id="get-model", elem_classes="fold"):
        gr.Markdown(
            "Downloaded from Hugging Face, only when you press the button. These are several gigabytes."
        )
        with gr.Row():
            offer = gr.Dropdown(
                models.offers(),
                value=None,
                label="Model",
                allow_custom_value=True,
                scale=4,
                elem_id="offer",
                info="Choose one, or write a Hugging Face name like owner/model.",
            )
            download = gr.Button("Download", scale=1, min_width=120, elem_id="download")
            cancel_download = gr.Button(
                "Cancel", scale=1, min_width=120, visible=False, elem_id="cancel-download"
            )
        download_state = view.component("download-state")
    with gr.Accordion(
        "Show as command, Python or settings file", open=False, elem_id="recipes", elem_classes="fold"
    ):
        command, python, toml = (
            gr.Textbox(
                label=label,
                lines=lines,
                max_lines=40,
                interactive=False,
                buttons=["copy"],
                elem_id=elem_id,
                elem_classes="code",
            )
            for label, lines, elem_id in (
                ("Command line", 3, "as-command"),
                ("Python", 8, "as-python"),
                ("Settings file", 12, "as-toml"),
            )
        )
    return Page(
        project=project, files=files, folder=folder, add_folder=add_folder_button, use_example=use_example,
        clear=clear_button, pictures=pictures, trigger=trigger, kind=kind, quality=quality, base=base,
        summary=summary, search=search, start=start_button, obstacle=obstacle, changed=changed,
        reset=reset_button, import_file=import_button, imported=imported, settings=settings, automatic=automatic, command=command, python=python, toml=toml,
        offer=offer, download=download, cancel_download=cancel_download, download_state=download_state,
    )  # fmt: skip


# -- wiring ----------------------------------------------------------------------------------------------------------


def wire(page: Page) -> None:
    quiet = {"api_visibility": "private", "show_progress": "hidden", "outputs": page.outputs()}
    at_once = {**quiet, "inputs_kwargs": page.inputs(), "queue": False, "trigger_mode": "always_last"}
    gr.on(page.watched(), lambda **values: restate(page, values), **at_once)
    gr.on(
        [page.kind.input, page.quality.input, page.base.input],
        lambda **values: replan(page, values),
        **at_once,
    )
    page.reset.click(lambda **values: reset(page, values), **at_once)

    def back(event: gr.EventData, **values: Any) -> Any:
        return reset_one(page, values, event._data) or gr.skip()

    page.changed.click(back, **at_once)
    page.project.input(lambda name: opened(page, open_project(name)), page.project, **quiet)

    waiting = {**quiet, "show_progress": "full", "show_progress_on": [page.pictures]}
    taking = {**waiting, "inputs_kwargs": page.inputs() | {"files": page.files, "folder": page.folder}}
    page.files.upload(lambda **values: add_files(page, values), **taking)
    gr.on([page.add_folder.click, page.folder.submit], lambda **values: add_folder(page, values), **taking)
    page.use_example.click(lambda: opened(page, example()), **waiting)
    page.clear.click(lambda **values: clear(page, values), inputs_kwargs=page.inputs(), **waiting)

    importing_from = {**quiet, "inputs_kwargs": page.inputs() | {"import_file": page.import_file}}
    page.import_file.upload(lambda **values: import_settings(page, values), **importing_from)

    page.download.click(begin_download, page.offer, api_visibility="private", show_progress="hidden")
    page.cancel_download.click(models.current.cancel, api_visibility="private", queue=False)
