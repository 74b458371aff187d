"""Captions: read from whatever people keep them in, and completed with the trigger word.

Beside `cat.png`: cat.txt, cat.caption, cat.json, or the same after the whole name (cat.png.txt). For a folder: metadata.jsonl.
"""

import codecs
import contextlib
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

from ..paths import shown

SUFFIXES = (".txt", ".caption", ".json")
KEYS = ("caption", "text", "prompt", "description", "tags")  # of a JSON caption, the first one that is there
MOST_BYTES = {".jsonl": 50_000_000}  # of a caption file, by its suffix
MOST = 1_000_000  # of any other; a text encoder reads some hundred
NO_WORDS = re.compile(r"[\x00-\x08\x0e-\x1b\x7f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
NAME_KEYS = ("file_name", "file", "image")  # of a line of metadata.jsonl


def with_trigger(caption: str, trigger: str) -> str:
    """The caption with the trigger word in front, unless it has that word already, in any case.

    >>> with_trigger("a cat on a mat", "mycat"), with_trigger("MyCat asleep", "mycat")
    ('mycat, a cat on a mat', 'MyCat asleep')
    """
    trigger = trigger.strip()
    if not trigger or has_word(caption, trigger):
        return caption
    return f"{trigger}, {caption}" if caption else trigger


def with_trigger_in_each(lines: str, trigger: str) -> str:
    """Captions on lines of their own, each with the trigger word."""
    return "\n".join(with_trigger(line, _one_line(trigger)) for line in lines.split("\n"))


def has_word(text: str, word: str) -> bool:
    """Whether a word or phrase stands in a text, in any case.

    >>> has_word("MyCat asleep", "mycat"), has_word("mycats asleep", "mycat"), has_word("mycat", "")
    (True, False, False)
    """
    return bool(word.strip()) and bool(
        re.search(rf"(?<!\w){re.escape(word.strip())}(?!\w)", text, re.IGNORECASE)
    )


def from_name(path: Path) -> str:
    """The caption that a file name is: underscores are spaces, a copy's number is dropped.

    >>> from_name(Path("a_red_fox (2).png"))
    'a red fox'
    """
    return _one_line(re.sub(r"\s*\(\d+\)$", "", path.stem).replace("_", " "))


def beside(picture: Path, files: dict[str, Path]) -> Path | None:
    """The caption file of a picture, among the files of its folder as `by_name` gives them."""
    for stem in (picture.stem, picture.name):
        for suffix in SUFFIXES:
            if found := files.get(_key(stem, suffix)):
                return found
    return None


def by_name(files: list[Path]) -> dict[str, Path]:
    """Files of one folder by a name that ignores how accents are spelled, and whether a suffix is .txt or .TXT."""
    return {_key(path.stem, path.suffix): path for path in files}


def _key(stem: str, suffix: str) -> str:
    return unicodedata.normalize("NFC", stem) + suffix.lower()


def read(path: Path, *, lines: bool = False) -> tuple[str | None, str | None]:
    """The caption in a file on one line, None where a JSON file has none; and its encoding where that was a guess.

    With `lines` the lines of a text file are kept apart, as captions to choose from.
    """
    text, guessed = decoded(path)
    if path.suffix.lower() != ".json":
        return tidy(text) if lines else _one_line(text), guessed
    try:
        return from_json(json.loads(text)), guessed
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(f"{shown(path.name)} is not valid JSON{where}; mend it or remove it.") from error


def decoded(path: Path) -> tuple[str, str | None]:
    """The text of a file in UTF-8 or marked UTF-16; else in Windows-1252 or Latin-1, which is told as it is a guess."""
    limit = MOST_BYTES.get(path.suffix.lower(), MOST)
    if not path.is_file():  # a pipe would be waited for without end
        raise ValueError(f"{shown(path.name)} is not a file, so it can't be a caption; remove it.")
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(
            f"{shown(path.name)} is {path.stat().st_size:,} bytes, too long for a caption; shorten it or remove it."
        )
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace"), None
    for encoding, guessed in (("utf-8-sig", None), ("cp1252", "Windows-1252")):
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode(encoding), guessed
    return data.decode("latin-1"), "Latin-1"


def from_json(value: Any) -> str | None:
    """The caption in "text", ["tag", "tag"] or {"caption" or another of KEYS: one of these, or tags by name or kind}."""
    match value:
        case str():
            return _one_line(value)
        case list() if all(isinstance(tag, str) for tag in value):
            return ", ".join(map(_one_line, value))
        case dict():
            found = next((value[key] for key in KEYS if value.get(key) is not None), None)
            return from_json(_tags(found) if isinstance(found, dict) else found)
    return None


def _tags(named: dict[str, Any]) -> list[Any]:
    """Tags of {"fox": 0.98, "snow": 0.7}, names with scores, or of {"general": ["fox", "snow"]}, lists by kind."""
    return [tag for name, value in named.items() for tag in (value if isinstance(value, list) else [name])]


def read_metadata(path: Path) -> tuple[dict[str, str], str | None]:
    """Captions of a metadata.jsonl by `name_of` the picture: each line has a `file_name` and a `text` or `caption`."""
    text, guessed = decoded(path)
    found = {}
    for number, line in enumerate(
        text.split("\n"), start=1
    ):  # JSON may have other ends of lines inside its texts
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            name = next(entry[key] for key in NAME_KEYS if key in entry).replace("\\", "/")
        except (ValueError, StopIteration, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f'{shown(path.name)}, line {number}, is not an object with a "file_name"; mend that line or remove the file.'
            ) from error
        if (caption := from_json(entry)) is not None:
            found[name_of(path.parent / name)] = caption
    return found, guessed


def name_of(path: Path) -> str:
    """A path as text in which accents are spelled one way: a zip may have spelled them another."""
    return unicodedata.normalize("NFC", path.as_posix())


def tidy(text: str) -> str:
    """Captions on lines of their own, as training reads them: no empty lines, and none of the signs that no one sees."""
    return "\n".join(filter(None, map(_one_line, text.splitlines())))


def _one_line(text: str) -> str:
    """Words with a space between them, without signs that no one sees: control codes, turns of direction, halves of pairs."""
    return " ".join(NO_WORDS.sub("", text).split())
