"""A problem report of a run: settings, versions, and the end of its log and events, without what is personal.

Taken out before anything is shown or written: the home folder, user and computer names, every place that the settings
name, tokens and passwords, captions, prompts, the trigger word, and the names of the run and of its pictures.
"""

import getpass
import json
import os
import platform
import re
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from . import config as cfg
from . import doctor, events, run
from .files import written

LOG_LINES, EVENTS = 300, 300
MOST_FILES = 20_000  # whose names are looked for
SHORTEST = 3  # letters of a name that is taken out; shorter ones are part of every word
LONG = 24  # signs by which a caption is known that was cut
TEXTS = (
    "data.trigger",
    "data.regularisation_caption",
    "captions.prefix",
    "captions.suffix",
    "embedding.initial",
)
PROMPTS = ("preview.prompts", "preview.negative")
SECRET = re.compile(
    r"\b(?:hf|sk|ghp|gho|wandb)_?[A-Za-z0-9_-]{16,}|\b[0-9a-f]{40,}\b"
    r"|(?i:\b(?:token|password|passwd|secret|api[_-]?key|authorization|bearer)\b[\"']?\s*[=: ]\s*)[^\s\"',]+"
)
USERS = re.compile(r"(?i)([/\\]+(?:home|users|documents and settings)[/\\]+)[^/\\\s:\"'<>|]+")
TAKEN_OUT = (
    "Taken out: your home folder, your name and this computer's, folders that the settings name, tokens and passwords, "
    "captions, prompts, the trigger word, and the names of the run and of the pictures."
)


class Part(NamedTuple):
    """One file of a report."""

    name: str
    text: str


def parts(folder: Path) -> list[Part]:
    """What the report of a run holds; shown before it is saved. A file of the run that can't be read is left out."""
    clean = Cleaner(folder)
    found = [
        Part("settings.json", _settings(folder, clean)),
        Part("state.json", _json(clean.inside(vars(run.read_state(folder))))),
        Part("versions.json", clean(_read(folder / "versions.json"))),
        Part("doctor.txt", clean("\n".join(_doctor()))),
        Part("log.txt", clean("\n".join(_tail(folder / "log.txt", LOG_LINES)))),
        Part("events.jsonl", "\n".join(_events(folder, clean))),
    ]
    return [Part("about.txt", f"A problem report of LoRA SD.\n{TAKEN_OUT}\n")] + [p for p in found if p.text]


def save(parts: list[Part], target: Path) -> Path:
    """The report as a zip."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with written(target) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in parts:
            archive.writestr(part.name, part.text)
    return target


# -- what goes in ----------------------------------------------------------------------------------------------------


def _settings(folder: Path, clean: "Cleaner") -> str:
    """Those that are not at their default, or nothing where they can't be read."""
    try:
        config = cfg.load(folder / "config.toml")
    except (ValueError, OSError):
        return ""
    return _json(clean.inside(cfg.differences(config)))


def _doctor() -> Iterator[str]:
    for check in doctor.quick():
        yield f"{check.mark}  {check.name:<14} {check.found}"


def _events(folder: Path, clean: "Cleaner") -> Iterator[str]:
    for line in _tail(folder / "events.jsonl", EVENTS):
        try:
            event = events.from_line(line)
        except (ValueError, KeyError, TypeError):
            continue
        values = clean.inside(json.loads(events.to_line(event)))
        yield json.dumps(values | ({"prompt": "(prompt)"} if "prompt" in values else {}))


def _json(values: Any) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _tail(path: Path, lines: int) -> list[str]:
    return [line.rpartition("\r")[2] for line in _read(path).split("\n")[-lines - 1 :] if line.strip()]


# -- what goes out ---------------------------------------------------------------------------------------------------


class Cleaner:
    """Takes what is personal out of a text."""

    def __init__(self, folder: Path) -> None:
        settings = _plain_settings(folder)
        words: dict[str, str] = {}  # what is taken out -> what stands for it
        for place in _places(settings):
            words |= dict.fromkeys(_spellings(place), "(folder)")
        words |= dict.fromkeys(_spellings(str(folder.resolve())), "(run)")
        for home, name in ((run.home(), "(program)"), (Path.home(), "~")):
            words |= {spelling: name for spelling in _spellings(str(home))}
        words |= {secret: "(secret)" for name in run.SECRETS if (secret := os.environ.get(name))}
        pictures, captions = _pictures(folder, settings)
        words |= {text: "(caption)" for text in (*captions, *_texts(settings, TEXTS))}
        words |= {text: "(prompt)" for text in _texts(settings, PROMPTS)}
        words |= {name: f"(picture {number})" for number, name in enumerate(pictures, 1)}
        name = str(_value(settings, "output.name") or "")
        own = {folder.name, name, run.safe_name(name)} - {
            "lora"
        }  # that is what a run without a name is called
        words |= dict.fromkeys(own, "(run)") | dict.fromkeys(_names(), "(user)")
        self.signs = {text.lower(): sign for text, sign in words.items() if len(text) >= SHORTEST}
        self.longest_first = sorted(self.signs, key=len, reverse=True)  # a path before its home
        texts = (*captions, *_texts(settings, (*TEXTS, *PROMPTS)))
        self.beginnings = {text[:LONG]: text for text in texts if len(text) > LONG}

    def __call__(self, text: str) -> str:
        text = SECRET.sub("(secret)", text)
        for beginning, caption in self.beginnings.items():
            text = _without(text, beginning, caption)
        lowered = text.lower()
        if there := [word for word in self.longest_first if word in lowered]:
            pattern = re.compile("|".join(map(_whole, there)), re.IGNORECASE)
            text = pattern.sub(lambda found: self.signs.get(found[0].lower(), "(name)"), text)
        return USERS.sub(r"\1(user)", text)

    def inside(self, value: Any) -> Any:
        """The same for all texts inside tables and lists."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {key: self.inside(item) for key, item in value.items()}
        return [self.inside(item) for item in value] if isinstance(value, list | tuple) else value


def _whole(text: str) -> str:
    """The pattern of a text where it stands alone: `anna` is no part of `savannah`."""
    before = r"(?<!\w)" if re.match(r"\w", text) else ""
    after = r"(?!\w)" if re.search(r"\w$", text) else ""
    return f"{before}{re.escape(text)}{after}"


def _without(text: str, beginning: str, caption: str) -> str:
    """`text` without the caption, also where only the first part of it stands there."""
    pieces, start = [], 0
    while (found := text.find(beginning, start)) >= 0:
        pieces += [text[start:found], "(caption)"]
        start = found + _alike(text[found:], caption)
    return "".join([*pieces, text[start:]])


def _alike(text: str, other: str) -> int:
    """How many signs both begin with."""
    pairs = zip(text, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(text), len(other)))


def _plain_settings(folder: Path) -> dict[str, Any]:
    """The tables of config.toml as they stand there, also where a setting is wrong."""
    try:
        return tomllib.loads(_read(folder / "config.toml"))
    except tomllib.TOMLDecodeError:
        return {}


def _value(settings: dict[str, Any], name: str) -> Any:
    group, _, key = name.partition(".")
    table = settings.get(group)
    return table.get(key) if isinstance(table, dict) else None


def _texts(settings: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    values = (_value(settings, name) for name in names)
    lists = (value if isinstance(value, list) else [value] for value in values)
    return [text.strip() for texts in lists for text in texts if isinstance(text, str) and text.strip()]


def _places(settings: dict[str, Any]) -> list[str]:
    """Folders and files that the settings name; not what comes with the program, nor a name on Hugging Face."""
    folders = _value(settings, "data.folders") or []
    more = [each.get(key) for each in folders if isinstance(each, dict) for key in ("path", "masks")]
    found = [*(_value(settings, name) for name in cfg.PATHS), *more]
    return [place for place in found if isinstance(place, str) and os.path.isabs(place)]


def _spellings(path: str) -> set[str]:
    """A path as it may stand in a text: also with its links followed, other slashes, and backslashes doubled."""
    both = {path, os.path.realpath(path)} - {os.sep}
    slashed = {each.replace("\\", "/") for each in both}
    return both | slashed | {each.replace("\\", "\\\\") for each in both}


def _pictures(folder: Path, settings: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Names and captions of what the run was trained with, as it began with them and as they lie there now."""
    names: dict[str, None] = {}
    captions: dict[str, None] = {}
    try:
        for name, _, caption, *_ in json.loads(_read(folder / "state" / "began.json"))["pictures"]:
            names[Path(name).name] = None
            captions[caption.strip()] = None
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    for place in map(Path, _places(settings)):
        for path in _files(place) if place.is_dir() else ():
            names[path.name] = None
            if path.suffix.lower() in (".txt", ".caption"):
                captions |= dict.fromkeys(line.strip() for line in _read(path).split("\n"))
    return list(names), [caption for caption in captions if caption]


def _files(place: Path) -> Iterator[Path]:
    count = 0
    for where, _, names in os.walk(place):
        for name in names:
            count += 1
            if count > MOST_FILES:
                return
            yield Path(where, name)


def _names() -> Iterator[str]:
    """Of the person and of the computer."""
    asked: list[Callable[[], str]] = [getpass.getuser, platform.node, lambda: Path.home().name]
    for ask in asked:
        try:
            yield ask()
        except (OSError, KeyError, RuntimeError):
            continue
