"""The settings of a run on the Make page again: its choices go to the project that it was made from, if that is still there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_sd import config as cfg
from lora_sd import run

from . import importing, sheet
from .importing import Found
from .project import Choices, Project, names, open_project


def taken(folder: Path) -> tuple[Project, Found]:
    """The project, with the run's choices in it now, and what could not be taken over. Raises ValueError for bad settings."""
    config = cfg.load(folder / "config.toml")
    project = of_run(config)
    found = importing.read(folder / "config.toml", Choices(kind=project.choices().kind))
    choices = replace(found.choices, changes=_own(project, found.choices))
    project.choose(choices)
    return project, Found(choices, found.notes)


def of_run(config: cfg.TrainConfig) -> Project:
    """The project whose pictures a run was trained on; one of the run's name where they came from elsewhere."""
    images = Path(config.data.images)
    if images.name == "images" and images.parent.parent == run.home() / "projects":
        return open_project(images.parent.name)
    return open_project(_unused(config.output.name))


def _unused(name: str) -> str:
    """That name, or with a number where a project of other pictures has it."""
    known, name = set(names()), run.safe_name(name)
    return next(
        free for free in (name, *(f"{name}-{n}" for n in range(2, len(known) + 3))) if free not in known
    )


def _own(project: Project, choices: Choices) -> dict[str, Any]:
    """The changes that are not what the page would propose anyway."""
    automatic = sheet.fill(project, choices).automatic
    return {name: value for name, value in choices.changes.items() if value != automatic.get(name)}
