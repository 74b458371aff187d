"""A project is a folder: `images/` with the copies of a person's pictures, and `project.json` with what they chose.

projects/mycat/   images/   project.json: {"choices": {"trigger": …, "changes": {"lora.rank": 32}}, "skipped": [[name, reason]]}
"""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lora_sd import config as cfg
from lora_sd import run
from lora_sd.data.folder import STARTER_SETS, natural
from lora_sd.files import write_text

from . import places, uploads
from .uploads import Added, Skipped

FIRST = "my-lora"  # the project of someone who has none yet
EXAMPLE = "example"
PRESET = Path(__file__).parent.parent / "presets" / "starter_quick.toml"  # what suits the example set
SHOWN = ("validate.images", "preview.prompts", "preview.guidance", "preview.seed")


@dataclass(frozen=True)
class Choices:
    """What a person decided on the Make page; `changes` are the settings that they took out of automatic."""

    trigger: str | None = None  # None: not decided, a word is suggested
    kind: str = "Subject"
    quality: str = "Balanced"
    base: str | None = None  # None: the model that the page proposes
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Project:
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def masks(self) -> Path:
        """What was painted: app/masks.py."""
        return self.folder / "masks"

    @property
    def thumbs(self) -> Path:
        return places.thumbs() / "projects" / self.name

    def pictures(self) -> list[Path]:
        found = (path for path in self.images.rglob("*") if path.suffix.lower() in uploads.PICTURES)
        return sorted(found, key=lambda path: natural(path.relative_to(self.images).as_posix()))

    def captioned(self) -> int:
        """How many pictures have a caption file."""
        names = {os.path.join(where, name) for where, _, names in os.walk(self.images) for name in names}
        stems = (os.path.splitext(picture)[0] for picture in self.pictures())
        return sum(f"{stem}.txt" in names or f"{stem}.caption" in names for stem in stems)

    def add(self, paths: Iterable[Path]) -> Added:
        added = uploads.add(paths, self.images)
        if added.skipped:
            self._write(skipped=[*self.skipped(), *added.skipped])
        return added

    def clear(self) -> None:
        """Forget every picture, and its mask. These are our copies; a person's own files are never touched."""
        shutil.rmtree(self.masks, ignore_errors=True)  # or they would fall on others of the same names
        for path in self.images.rglob("*"):
            if path.is_file():
                path.unlink()
        self._write(skipped=[])

    def choices(self) -> Choices:
        told = self._read().get("choices")
        told = told if isinstance(told, dict) else {}
        kinds = {field.name: dict if field.name == "changes" else field.type for field in fields(Choices)}
        return Choices(
            **{key: told[key] for key, kind in kinds.items() if key in told and isinstance(told[key], kind)}
        )

    def choose(self, choices: Choices) -> None:
        if choices != self.choices():
            self._write(choices=asdict(choices))

    def skipped(self) -> list[Skipped]:
        told = self._read().get("skipped")
        pairs = [tuple(pair) for pair in told if isinstance(pair, list)] if isinstance(told, list) else []
        sound = [pair for pair in pairs if len(pair) == 2 and all(isinstance(text, str) for text in pair)]
        return [Skipped(*pair) for pair in dict.fromkeys(sound)]

    def _read(self) -> dict[str, Any]:
        """What project.json says; a damaged one is put aside, and the project begins without choices."""
        file = self.folder / "project.json"
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            file.replace(self.folder / "project-damaged.json")
            return {}
        return values

    def _write(self, **values: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "project.json", json.dumps({**self._read(), **values}, ensure_ascii=False))


def open_project(name: str | None) -> Project:
    """The project of that name, made safe; it comes into being with its first picture or choice."""
    return Project(run.home() / "projects" / run.safe_name(name or FIRST))


def names() -> list[str]:
    """Projects, the one worked on last first."""
    root = run.home() / "projects"
    folders = [folder for folder in root.iterdir() if folder.is_dir()] if root.is_dir() else []
    return [folder.name for folder in sorted(folders, key=_changed, reverse=True)]


def _changed(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))


def example() -> Project:
    """The shipped example set as a project, with the choices that suit it."""
    project = open_project(EXAMPLE)
    project.add([STARTER_SETS / "streamline" / "train"])
    preset = cfg.differences(cfg.load(PRESET))
    changes = {name: preset[name] for name in SHOWN if name in preset}
    project.choose(Choices(trigger="", kind="Style", base="starter", changes=changes))
    return project
