"""Options of theirs on their way to settings of ours: each is taken once, and what becomes of it is noted."""

import difflib
from collections.abc import Mapping
from typing import Any

from .. import config as cfg
from ..config import TrainConfig
from ..paths import shown
from .notes import Kind, Note
from .table import DATASET, NETWORK, OPTIONS, Option
from .values import is_set

NO_SUCH = "sd-scripts has no such option."
MOST_HINTS = 40  # near names that are looked for, which takes some milliseconds each
IDLE = ("False", "false", "0", "0.0")  # values that ask for nothing
SETTINGS = {setting.name for setting in cfg.settings()}


class Translation:
    """What is left of the options, the config so far, and the notes."""

    def __init__(self, options: Mapping[str, Any], *, complete: bool, called: Mapping[str, str]):
        self.rest = dict(options)
        self.complete, self.called = complete, called
        self.config = TrainConfig()
        self.notes: list[Note] = []

    def has(self, option: str) -> bool:
        return is_set(self.rest.get(option))

    def unset(self, option: str) -> bool:
        """Whether the option is known to be at its default there: left out of a whole file, or told as None."""
        return not self.has(option) and (self.complete or option in self.rest)

    def take(self, option: str, read: Any = None) -> Any:
        """The value of an option, which is taken out; None where it is not set, or no such value."""
        value = self.rest.pop(option, None)
        if not is_set(value) or read is None:
            return value if is_set(value) else None
        try:
            return read(value)
        except ValueError as error:
            self.note(option, value, "ignored", f"{error}.")
            return None

    def note(self, option: str, value: Any, kind: Kind, words: str, setting: str = "") -> None:
        self.notes.append(Note(self.called.get(option, option), value, kind, words, setting))

    def set(self, option: str, given: Any, name: str, value: Any, but: str = "") -> bool:
        """Setting `name` becomes `value` for an option; `but` says what differs. Not where our limits forbid it."""
        if name not in SETTINGS:
            self.note(option, given, "ignored", "there is nothing like it here.")
            return False
        try:
            self.config = cfg.changed(self.config, {name: value})
        except ValueError as error:
            self.note(option, given, "ignored", str(error))
            return False
        became = f"{name} = {written(cfg.get(self.config, name))}"
        kind: Kind = "assumed" if given is None else "differs" if but else "taken"
        self.note(option, given, kind, f"{became}; {but}." if but else f"{became}.", name)
        return True

    def one_by_one(self, table: Mapping[str, Option]) -> None:
        """Every option that is a setting by itself or has no meaning, as the table says."""
        for option, entry in table.items():
            if not entry.ours:
                value = self.take(option)
                if value is not None and str(value) not in IDLE:
                    self.note(option, value, "ignored", f"{entry.but}.")
            elif entry.read and self.unset(option):
                self.rest.pop(option, None)
                if entry.unset is not None:
                    self.set(option, None, entry.ours[0], entry.unset)
            elif entry.read and self.has(option):
                given, value = self.rest[option], self.take(option, entry.read)
                if value is not None:
                    usual = entry.ours[0] in SETTINGS and value == cfg.get(TrainConfig(), entry.ours[0])
                    self.set(option, given, entry.ours[0], value, "" if usual else entry.but)

    def finish(self, known: Mapping[str, Option]) -> None:
        """Whatever is left is unknown."""
        left = [(option, value) for option, value in self.rest.items() if is_set(value)]
        for number, (option, value) in enumerate(left):
            found = near(option, known) if number < MOST_HINTS else None
            self.note(option, value, "unknown", f"did you mean {found}?" if found else NO_SUCH)


def near(option: str, known: Mapping[str, Option]) -> str | None:
    return next(iter(difflib.get_close_matches(option[:80], known, 1, 0.75)), None)


def everything() -> dict[str, Option]:
    """All names, those inside network_args and dataset_config, too."""
    return {**DATASET, **NETWORK, **OPTIONS}


def written(value: Any) -> str:
    """A setting's value as its TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return shown(repr(value) if isinstance(value, str) else value, 200)
