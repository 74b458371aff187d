"""Settings as flags of the command line, `--lora.rank 16`: names, limits, words and errors are those of config.py.

A command-line library would validate in its own words; here a wrong value gets the same sentence everywhere.
"""

import json
import textwrap
from collections.abc import Mapping
from itertools import groupby
from typing import Any, get_origin

from . import config as cfg
from .settings import argument

SETTINGS = {setting.name: setting for setting in cfg.settings()}


def parse(arguments: list[str], default: cfg.TrainConfig) -> cfg.TrainConfig:
    """`default` with the flags of `arguments` applied; ValueError with one sentence for what is wrong with them."""
    changes: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--"):
            raise ValueError(
                f"{flag!r} stands alone; settings are given as --name value, such as --lora.rank 16."
            )
        name, equals, value = flag[2:].partition("=")
        name = name.replace("-", "_")
        if name not in SETTINGS:
            raise ValueError(cfg.unknown(name))
        given = [value] if equals else _values(rest)
        changes[name] = _read(SETTINGS[name], given)
    return cfg.changed(default, changes)


def _values(rest: list[str]) -> list[str]:
    """Takes what stands before the next flag off `rest`."""
    end = next((i for i, word in enumerate(rest) if word.startswith("--")), len(rest))
    taken, rest[:end] = rest[:end], []
    return taken


def _read(setting: cfg.Setting, given: list[str]) -> Any:
    """What pydantic is to validate: a list, a table from NAME=VALUE words, or one word."""
    kind = get_origin(setting.field.annotation)
    if kind is list:
        return given
    if kind is dict:
        return dict(_entry(setting, word) for word in given)
    if setting.field.annotation is bool and not given:
        return True
    if len(given) != 1:
        raise ValueError(
            f"--{setting.name} takes one value, and {len(given)} are given; put quotes around words with spaces."
        )
    return None if given[0] == "auto" and setting.field.default is None else given[0]


def _entry(setting: cfg.Setting, word: str) -> tuple[str, Any]:
    patterned = setting.field.annotation in (dict[str, int], dict[str, float])
    key, equals, value = word.rpartition("=") if patterned else word.partition("=")
    if not equals:
        raise ValueError(f"--{setting.name} takes NAME=VALUE, and {word!r} has no '='.")
    return key, value if patterned else argument(value)


def help_text(default: cfg.TrainConfig) -> str:
    """Every flag with its sentence and the value it has unless given."""
    lines = []
    for group, members in groupby(SETTINGS.values(), key=lambda setting: setting.group):
        lines += ["", group]
        for setting in members:
            value = cfg.get(default, setting.name)
            lines.append(f"  --{setting.name} ({_shown(value)})")
            lines += textwrap.wrap(
                setting.field.description, 100, initial_indent=" " * 6, subsequent_indent=" " * 6
            )
    return "\n".join(lines[1:])


def _shown(value: Any) -> str:
    if value is None:
        return "automatic"
    if isinstance(value, list | Mapping):
        return ", ".join(map(str, value)) or "none"
    return str(value) or "none"


def command(config: cfg.TrainConfig) -> list[str]:
    """The words after `train` that give this config: what the page shows under "as a command"."""
    words: list[str] = []
    for name, value in cfg.differences(config).items():
        if isinstance(value, dict):
            value = [f"{key}={json.dumps(entry)}" for key, entry in value.items()]
        words += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return words


def strength_of(text: str) -> tuple[str, float]:
    """`cat.safetensors:0.8` → (path, strength); strength 1 where none is given. A drive letter is no strength."""
    path, colon, strength = text.rpartition(":")
    try:
        return (path, float(strength)) if colon else (text, 1.0)
    except ValueError:
        return text, 1.0
