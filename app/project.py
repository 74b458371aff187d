"""A project is a folder: `images/` with the copies of a person's pictures, and `project.json` with what they chose.

projects/mycat/   images/   project.json: {"choices": {"trigger": …, "changes": {"lora.rank": 32}}, "skipped": [[name, reason]],
                            "pictures": {"a.png": {"on": false, "times": 3}}}   what is not as usual of single pictures
                  history.jsonl, seen.json: app/history.py, app/seen.py
"""

import json
import os
import shutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lora_sd import config as cfg
from lora_sd import run
from lora_sd.data.captions import SUFFIXES
from lora_sd.data.folder import STARTER_SETS, natural
from lora_sd.files import write_text

from . import places, uploads
from .uploads import Added, Skipped

FIRST = "my-lora"  # the project of someone who has none yet
EXAMPLE = "example"
PRESET = Path(__file__).parent.parent / "presets" / "starter_quick.toml"  # what suits the example set
USUAL = {"on": True, "times": 1}  # of a picture: whether it is used, and how often it counts in an epoch
_writing = threading.RLock()
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

    def name_of(self, picture: Path) -> str:
        return picture.relative_to(self.images).as_posix()

    def used(self) -> list[Path]:
        """The pictures that are trained on."""
        off = {name for name, times in self.repeats().items() if not times}
        return [path for path in self.pictures() if self.name_of(path) not in off] if off else self.pictures()

    def uses(self) -> dict[str, dict[str, Any]]:
        """What is not as USUAL, by the name of the picture: all of it."""
        told = self._read().get("pictures")
        sound = (
            {name: use for name, use in told.items() if isinstance(use, dict)}
            if isinstance(told, dict)
            else {}
        )
        return {
            name: {
                what: use[what] if type(use.get(what)) is type(usual) else usual
                for what, usual in USUAL.items()
            }
            for name, use in sound.items()
        }

    def use(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Change that of some pictures: `{"a.png": {"on": False}}`."""
        with _writing:
            uses = self.uses()
            for name, change in changes.items():
                uses[name] = {**USUAL, **uses.get(name, {}), **change}
            if changes:
                self._write(pictures={name: use for name, use in uses.items() if use != USUAL})

    def repeats(self) -> dict[str, int]:
        """What data.repeats is to be; 0 of a picture that is off."""
        there = set(map(self.name_of, self.pictures()))
        return {name: use["times"] if use["on"] else 0 for name, use in self.uses().items() if name in there}

    def captioned(self) -> int:
        """How many pictures have a caption file."""
        names = {os.path.join(where, name) for where, _, names in os.walk(self.images) for name in names}
        stems = ((os.path.splitext(picture)[0], str(picture)) for picture in self.pictures())
        return sum(any(stem + suffix in names for stem in both for suffix in SUFFIXES) for both in stems)

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
        self._write(skipped=[], pictures={})

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
        with _writing:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(
                self.folder / "project.json", json.dumps({**self._read(), **values}, ensure_ascii=False)
            )


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
