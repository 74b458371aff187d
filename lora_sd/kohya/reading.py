"""Files of settings → options by sd-scripts' names: its TOML and JSON, a command line, kohya_ss's presets, a LoRA's header.

An option that a file leaves out is None where the file would have it, if it were set (`complete`), or just not there.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import config as cfg
from ..paths import shown, typed
from . import command, gui, header
from .values import is_set

MOST_OPTIONS = 1000
SETTINGS_FILES = ".toml, .json, .sh, .bat, .ps1, .txt and .safetensors"


@dataclass
class Given:
    """What a file says, by sd-scripts' names."""

    options: dict[str, Any]
    datasets: dict[str, Any] | None = None  # a dataset_config
    complete: bool = True  # whether what it does not name was left at the default there
    called: dict[str, str] = field(
        default_factory=dict
    )  # what the file calls an option, where it does otherwise
    sdxl: bool | None = None  # None where it does not tell
    beside: Path | None = (
        None  # the folder in which files that it names are looked for; None to read no other
    )
    prompts: str = ""  # previews that a preset has in itself


def read(path: Path, *, beside: bool) -> Given:
    """The options of a file; `beside`: files that it names are read, too. ValueError with one sentence where it has none."""
    folder = path.resolve().parent if beside else None
    match path.suffix.lower():
        case ".safetensors":
            options, sdxl = header.options(path)
            return Given(options, datasets=header.datasets(path), complete=False, sdxl=sdxl)
        case ".toml":
            return with_files(of_table(cfg.read_toml(path), path, folder))
        case ".json":
            return with_files(of_table(_json(path), path, folder))
        case ".sh" | ".bat" | ".cmd" | ".ps1" | ".txt":
            options, sdxl = command.options(cfg.read_text(path), shown(path.name))
            _check_number(options, shown(path.name))
            return with_files(Given(options, sdxl=sdxl, beside=folder))
    raise ValueError(f"{shown(path.name)} is no file of settings; {SETTINGS_FILES} can be imported.")


def _json(path: Path) -> Any:
    try:
        return json.loads(cfg.read_text(path))
    except (ValueError, RecursionError) as error:
        if not isinstance(error, json.JSONDecodeError | RecursionError):
            raise
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(f"{shown(path.name)} is not valid JSON{where}; mend that place.") from error


def _check_number(options: Mapping[str, Any], name: str) -> None:
    if len(options) > MOST_OPTIONS:
        raise ValueError(
            f"{name} has {len(options):,} settings, which no file of sd-scripts has; choose another."
        )


def of_table(table: Any, path: Path, folder: Path | None) -> Given:
    """The options in a table: of a dataset_config, of a preset, or by name, in sections or not."""
    name = shown(path.name)
    if not isinstance(table, Mapping):
        raise ValueError(f"{name} is no table of settings; export it again.")
    if isinstance(table.get("datasets"), list):
        return Given({}, datasets=dict(table), complete=False, beside=folder)
    flat = flattened(table)
    _check_number(flat, name)
    if gui.is_preset(flat):
        found = gui.options(flat)
        return Given(
            found.options, called=found.called, sdxl=found.sdxl, prompts=found.prompts, beside=folder
        )
    return Given({k: v for k, v in flat.items() if is_set(v)}, beside=folder)


def flattened(table: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """Sections opened, as sd-scripts does: their names mean nothing."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        opened = isinstance(value, Mapping) and depth < 4 and not key.endswith("_args")
        flat |= flattened(value, depth + 1) if opened else {str(key): value}
    return flat


def with_files(given: Given) -> Given:
    """With the config_file and dataset_config that it names, where they are to be found; what it says itself goes first."""
    if path := _named(given, "config_file", ".toml"):
        inner = of_table(cfg.read_toml(path), path, given.beside)
        given.options = inner.options | given.options
        given.datasets = given.datasets or inner.datasets
    if path := _named(given, "dataset_config", ".toml", ".json"):
        table = _json(path) if path.suffix.lower() == ".json" else cfg.read_toml(path)
        given.datasets = dict(table) if isinstance(table, Mapping) else None
        given.options.pop("dataset_config")
    return given


def _named(given: Given, option: str, *suffixes: str) -> Path | None:
    return look_for(given, given.options.get(option), option, *suffixes)


def look_for(given: Given, name: Any, option: str, *suffixes: str) -> Path | None:
    """The file that an option names, where it is: as it stands, or by its name beside the file that names it."""
    if given.beside is None or not isinstance(name, str) or not name.strip():
        return None
    asked = typed(name.strip(), option)
    last = name.replace("\\", "/").rpartition("/")[2]
    elsewhere = name.strip().startswith(("\\\\", "//"))  # another computer, which learns who looks
    places = [] if elsewhere else [asked, given.beside / asked]
    places += [given.beside / last] if last else []
    places += [Path(f"{place}{suffix}") for place in places for suffix in suffixes if not place.suffix]
    return next((p for p in places if p.suffix.lower() in suffixes and p.is_file()), None)
