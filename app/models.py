"""Base models as the menus show them, and the download of another one, which goes on whatever tab is open."""

import threading
from dataclasses import dataclass
from typing import Any

from lora_sd.models import download, find
from lora_sd.models.find import Found

from . import reach
from .plan import Base
from .words import say

FAMILIES = {"sd15": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "Stable Diffusion XL"}
GB = 2**30

_installed: list[Found] = []


def refresh() -> list[Found]:
    """Look for models on this computer again."""
    _installed[:] = find.installed()
    return _installed


def bases() -> list[Base]:
    return [Base(model.source, model.title, model.family) for model in _installed or refresh()]


def menu() -> list[tuple[str, str]]:
    """(label, source) of every installed model."""
    return [(label(model), model.source) for model in _installed or refresh()]


def label(model: Found) -> str:
    if model.source == "starter":
        return "Starter · small, built in"
    family = FAMILIES.get(model.family or "", "") + (" inpainting" if model.inpainting else "")
    return " · ".join(part for part in (model.title, family, model.where) if part)


def base(source: str) -> Base:
    """What is known of a model by its name or path. Raises ValueError for one that can't be taught."""
    for known in bases():
        if known.source == source:
            return known
    reach.not_in_menu(source, "The base model")
    found = find.describe(source)
    return Base(source, found.title, found.family)


def offers() -> list[tuple[str, str]]:
    """(label, hub id) of the models that can be downloaded by default."""
    return [(f"{FAMILIES[family]} · {name}", name) for family, name in download.DEFAULTS.items()]


@dataclass
class Download:
    """One download at a time, on a thread of its own."""

    name: str = ""
    done: int = 0
    total: int = 0
    error: str = ""
    finished: int = 0  # how many have ended well: a change tells the menus to look again
    running: bool = False
    stop: bool = False

    def start(self, name: str) -> None:
        if self.running:
            raise ValueError(say("{name} is being downloaded; wait for it or cancel it.", name=self.name))
        if not name.strip():
            raise ValueError(say("Choose a model, or write its Hugging Face name, like owner/model."))
        self.name, self.done, self.total, self.error = reach.hub_name(name).strip(), 0, 0, ""
        self.running, self.stop = True, False
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        try:
            download.download(self.name, on_progress=self._progress, should_stop=lambda: self.stop)
            refresh()
            self.finished += 1
        except Exception as error:
            self.error = "" if self.stop else str(error)
        finally:
            self.running = False

    def _progress(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    def cancel(self) -> None:
        self.stop = True

    def signature(self) -> tuple[Any, ...]:
        return self.name, self.running, self.done >> 22, self.error, self.finished


current = Download()
