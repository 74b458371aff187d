"""A file of settings that a person hands over → choices on the Make page, and what can't be taken from it."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lora_sd import config as cfg
from lora_sd import kohya
from lora_sd.kohya import Note
from lora_sd.settings import PLACES

from . import form, models, reach
from .project import Choices

SUFFIXES = [".toml", ".json", ".sh", ".bat", ".ps1", ".txt", ".safetensors"]
ON_THE_PAGE = {
    "data.images": "drop the pictures above.",
    "output.name": "the LoRA is called as the project.",
}


class Found(NamedTuple):
    choices: Choices
    notes: list[Note]


def read(path: Path, choices: Choices) -> Found:
    """What the file sets goes over `choices`. No file that it names is read; ValueError with one sentence for a bad one."""
    config, notes, whole = kohya.load(path, beside=False)
    named = {note.setting for note in notes if note.setting} | set(cfg.differences(config))
    settings = {setting.name for setting in form.advanced()}
    if whole:
        named |= settings - set(cfg.PATHS)
        config = _with_its_length(config)
    changes = dict(choices.changes)
    for name in sorted(named & settings):
        if _may_be_taken(name):
            changes |= form.read(form.show({name: cfg.get(config, name)}))
        elif cfg.get(config, name):
            why = "only the person at the computer itself names places on it."
            notes = [*notes, Note(name, None, "ignored", why)]
    notes = [_on_the_page(note) for note in notes]
    base, why = _base(config.model.base) if "model.base" in named else (choices.base, "")
    notes += [Note("model.base", config.model.base, "ignored", why)] if why else []
    trigger = config.data.trigger if "data.trigger" in named else choices.trigger
    return Found(replace(choices, trigger=trigger, base=base or choices.base, changes=changes), notes)


def _with_its_length(config: cfg.TrainConfig) -> cfg.TrainConfig:
    """An empty length is the page's proposal; a file that names none means our usual one."""
    steps = config.optim.known_steps
    return cfg.changed(config, {"optim.steps": steps}) if steps else config


def _may_be_taken(name: str) -> bool:
    return not reach.confined or name not in PLACES


def _on_the_page(note: Note) -> Note:
    return (
        note._replace(kind="ignored", words=ON_THE_PAGE[note.setting])
        if note.setting in ON_THE_PAGE
        else note
    )


def _base(source: str) -> tuple[str | None, str]:
    """The base model if it can be taught here, else why not."""
    try:
        return models.base(source).source, ""
    except ValueError as error:
        return None, str(error)
