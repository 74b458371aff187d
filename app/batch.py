"""One edit of many captions: words added or taken away, replaced, tags put in order. Pure functions of the text."""

import hashlib
import random
import re
from typing import NamedTuple

from lora_sd.data.captions import has_word, tidy

from .history import Change
from .words import say

LONGEST = 1000  # letters of what is added, sought or put in its place


class Edit(NamedTuple):
    how: str  # one of EDITS
    text: str = ""
    other: str = ""  # what is put in the place of `text`
    exact: bool = True  # whether A is another letter than a
    seed: int = 0


def changes(captions: dict[str, str], edit: Edit) -> list[Change]:
    """What the edit makes of captions by picture name: those that it changes. Raises ValueError for one that says nothing."""
    check(edit)
    edited = ((name, text, edited_text(text, edit, name)) for name, text in captions.items())
    return [Change(name, "caption", before, after) for name, before, after in edited if before != after]


def check(edit: Edit) -> None:
    if edit.how not in EDITS:
        raise ValueError(say("Choose what to do with the captions."))
    if edit.how in NEED_TEXT and not edit.text.strip():
        raise ValueError(say("Write a word first."))
    if max(len(edit.text), len(edit.other)) > LONGEST:
        raise ValueError(say("That is too long; write at most {most} letters.", most=f"{LONGEST:,}"))


def edited_text(text: str, edit: Edit, name: str) -> str:
    """The caption after the edit; each of its lines is a caption of its own."""
    lines = text.split("\n")
    return tidy("\n".join(EDITS[edit.how](line, edit, f"{name}/{n}") for n, line in enumerate(lines)))


def mark(edit: Edit, found: list[Change]) -> str:
    """Tells one preview from another: what is applied has to be what was seen."""
    return hashlib.sha1(repr((edit, found)).encode()).hexdigest()[:16]


def _start(line: str, edit: Edit, name: str) -> str:
    """In front, unless it is one of its tags already."""
    return line if _has_tag(line, edit.text) else _joined([edit.text, line])


def _end(line: str, edit: Edit, name: str) -> str:
    return line if _has_tag(line, edit.text) else _joined([line, edit.text])


def _remove(line: str, edit: Edit, name: str) -> str:
    """Without that word or phrase, in any case, and without the tag that nothing is left of."""
    word = re.compile(rf"(?<!\w){re.escape(edit.text.strip())}(?!\w)", re.IGNORECASE)
    if not word.search(line):
        return line
    return _joined([word.sub(" ", tag) if word.search(tag) else tag for tag in _tags(line)])


def _replace(line: str, edit: Edit, name: str) -> str:
    return re.sub(re.escape(edit.text), lambda _: edit.other, line, flags=0 if edit.exact else re.IGNORECASE)


def _first(line: str, edit: Edit, name: str) -> str:
    """The trigger word in front; as a tag it moves there, within a sentence it stays as well."""
    trigger = edit.text.strip()
    if has_word(line[: len(trigger)], trigger):
        return line
    return _joined([trigger, *(tag for tag in _tags(line) if tag.casefold() != trigger.casefold())])


def _sort(line: str, edit: Edit, name: str) -> str:
    return _joined(sorted(_tags(line), key=str.casefold))


def _shuffle(line: str, edit: Edit, name: str) -> str:
    tags = _tags(line)
    random.Random(f"{edit.seed}/{name}").shuffle(tags)
    return _joined(tags)


def _clear(line: str, edit: Edit, name: str) -> str:
    return ""


def _tags(line: str) -> list[str]:
    return [tag for tag in map(str.strip, line.split(",")) if tag]


def _has_tag(line: str, tag: str) -> bool:
    return tag.strip().casefold() in map(str.casefold, _tags(line))


def _joined(parts: list[str]) -> str:
    return ", ".join(part for part in (" ".join(part.split()) for part in parts) if part)


EDITS = {
    "start": _start,
    "end": _end,
    "remove": _remove,
    "replace": _replace,
    "first": _first,
    "shuffle": _shuffle,
    "sort": _sort,
    "clear": _clear,
}
NEED_TEXT = ("start", "end", "remove", "replace", "first")


def frequency(captions: list[str]) -> list[tuple[str, int]]:
    """Tags and in how many captions they stand, the most frequent first."""
    counts: dict[str, list[str]] = {}
    for text in captions:
        tags = [tag for line in text.split("\n") for tag in _tags(line)]
        for key, tag in {tag.casefold(): tag for tag in reversed(tags)}.items():
            counts.setdefault(key, []).append(tag)
    found = [(spelled[0], len(spelled)) for spelled in counts.values()]
    return sorted(found, key=lambda pair: (-pair[1], pair[0].casefold()))
