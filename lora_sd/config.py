"""What is done with settings: one read, changed, compared, written and explained. They are described in `settings/`.

`TrainConfig` is frozen: `changed(config, {"lora.rank": 32})` gives a new, validated one.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from .paths import is_text, shown, typed
from .settings import LENGTHS, PATHS, TrainConfig

RENAMED: dict[str, str] = {}  # old dotted name -> new one; fails with the new name, translated on resume
MOST_BYTES = 200_000  # of a settings file; they are a few thousand
DEEP = re.compile(r"(?<![\w\"'-])([\w\"'-]++\s*+\.\s*+){40}")  # a name of so many parts
WINDOWS = r"write a Windows path in single quotes, 'C:\new', or with forward slashes, C:/new"


class Setting(NamedTuple):
    """One setting as the form and the docs see it."""

    name: str  # dotted: "lora.rank"
    group: str  # title of its section
    field: FieldInfo

    @property
    def basic(self) -> bool:
        return self.field.json_schema_extra["basic"]


def settings(model: type[BaseModel] = TrainConfig, prefix: str = "", group: str = "Run") -> Iterator[Setting]:
    """Every setting in the order of the file, sections opened."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings(field.annotation, f"{prefix}{name}.", field.annotation.__doc__ or name)
        else:
            yield Setting(prefix + name, group, field)


def get(config: BaseModel, name: str) -> Any:
    """`get(config, "lora.rank")`."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def changed(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """A new, validated config with `{"lora.rank": 32}` applied. Raises ValueError as `parse` does.

    A run has one length: a new one replaces the one there is, in whatever unit that was.
    """
    values = config.model_dump()
    if any(changes.get(name) is not None for name in LENGTHS):
        changes = {**dict.fromkeys(LENGTHS), **changes}
    for name, value in changes.items():
        *sections, last = name.split(".")
        section = values
        for part in sections:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ValueError(unknown(name))
        section[last] = value
    return parse(values)


def differences(config: TrainConfig) -> dict[str, Any]:
    """The settings that are not at their default, by dotted name."""
    default = TrainConfig()
    return {s.name: get(config, s.name) for s in settings() if get(config, s.name) != get(default, s.name)}


def dumps(config: TrainConfig, *, brief: bool = False) -> str:
    """TOML of every setting, or only of those not at their default; None (automatic) is left out, for TOML has no null."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True, exclude_defaults=brief))


def load(path: str | Path) -> TrainConfig:
    """The config of a TOML file. Relative paths in it are relative to the file.

    Raises ValueError with one sentence for everything that can be wrong with it.
    """
    path = typed(str(path), "The settings file")
    if not path.is_file():
        raise ValueError(f"There is no settings file at {shown(path)}; check its spelling.")
    return parse(read_toml(path), folder=path.resolve().parent)


def read_text(path: Path, kind: str = "text") -> str:
    """The text of a settings file of that kind. ValueError where it is too long, or not UTF-8."""
    name = shown(path.name)
    with open(path, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(
            f"{name} has more than {MOST_BYTES:,} bytes, which no settings file has; choose another."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not a {kind} file in UTF-8; save it with that encoding.") from error


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file. ValueError with one sentence where it is none."""
    name, text = shown(path.name), read_text(path, "TOML")
    try:
        if DEEP.search(text):  # Python's reader takes minutes for it
            raise RecursionError
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError(
            f"{name} is not a TOML file of settings: it is nested too deeply; mend it."
        ) from error
    except ValueError as error:
        why = shown(error).rstrip(".")
        escaped = "\\" in why or "hex value" in why or "Unicode scalar" in why
        raise ValueError(
            f"{name} is not a TOML file: {why}; {WINDOWS if escaped else 'mend that place'}."
        ) from error


def parse(values: Mapping[str, Any], folder: Path | None = None) -> TrainConfig:
    """The config of nested values as TOML gives them; relative paths become absolute under `folder`."""
    try:
        config = TrainConfig.model_validate(values)
    except ValidationError as error:
        raise ValueError(explain(error)) from error
    if wrong := next((s.name for s in settings() if not is_text(_written(get(config, s.name)))), None):
        raise ValueError(f"{wrong} has signs in it that are no text; type it again.")
    if why := contradiction(config):
        raise ValueError(why)
    found = {name: typed(value, name) for name, value in places(config).items()}
    return config if folder is None else _absolute(config, found, folder)


def contradiction(config: TrainConfig) -> str:
    """What is wrong with settings that are good by themselves, or nothing."""
    lengths = {name: value for name in LENGTHS if (value := get(config, name)) is not None}
    if len(lengths) > 1:
        told = " and ".join(f"{name} is {value}" for name, value in lengths.items())
        return f"{told}; a run has one length, so leave out all but one of them."
    measured = (config.validate.images or config.validate.split) and config.validate.every not in (0, "off")
    if config.save.keep_best and not measured:
        return (
            "save.keep_best is on and no held-out loss is measured, which tells the best file; "
            "set validate.split to 0.1, or validate.images."
        )
    return ""


def places(config: TrainConfig) -> dict[str, str]:
    """Every setting that names a place; those of the first of data.folders are data.folders.0.path and data.folders.0.masks."""
    found = {name: get(config, name) for name in PATHS}
    for number, folder in enumerate(config.data.folders):
        found |= {f"data.folders.{number}.{name}": getattr(folder, name) for name in ("path", "masks")}
    return found


def _written(value: Any) -> str:
    return "".join(map(str, value)) if isinstance(value, list | dict) else str(value)


def _absolute(config: TrainConfig, found: Mapping[str, Path], folder: Path) -> TrainConfig:
    changes: dict[str, Any] = {
        name: str(folder / found[name])
        for name, value in places(config).items()
        if name != "model.base" and value and not value.startswith("starter:")
    }
    changes["data.folders"] = [
        one.model_dump()
        | {
            part: changes.pop(f"data.folders.{number}.{part}", getattr(one, part))
            for part in ("path", "masks")
        }
        for number, one in enumerate(config.data.folders)
    ]
    base = config.model.base
    near = base.startswith(("./", "../", ".\\", "..\\", "~"))
    if base != "starter" and (near or os.path.exists(folder / base)):
        changes["model.base"] = str((folder / found["model.base"]).resolve())
    return changed(config, changes)


def explain(error: ValidationError) -> str:
    """One sentence: which setting, its value, and what it must be."""
    first = error.errors()[0]
    name = shown(".".join(str(part) for part in first["loc"] if part not in ("int", "str")))
    limits, value = first.get("ctx", {}), _told(first["input"])
    number = value.strip("'")  # a flag's value is text
    match first["type"]:
        case "extra_forbidden":
            return unknown(name)
        case "greater_than_equal":
            return f"{name} is {number}; it must be at least {limits['ge']:g}."
        case "greater_than":
            return f"{name} is {number}; it must be more than {limits['gt']:g}."
        case "less_than_equal":
            return f"{name} is {number}; it must be at most {limits['le']:g}."
        case "less_than":
            return f"{name} is {number}; it must be less than {limits['lt']:g}."
        case "literal_error":
            return f"{name} is {value}; it must be one of {limits['expected']}."
        case "value_error":
            return f"{name} is {value}; {limits['error']}."
        case "model_type" | "model_attributes_type":
            return f"{name} is {value}; it must be a section of settings, [{name}]."
    must = (
        first["msg"]
        .partition(",")[0]
        .replace("Input should be", "it must be")
        .replace("String should", "it may")
    )
    must = must.replace("a valid string", "a text").replace("a valid integer", "a whole number")
    return f"{name} is {value}; {must}."


def _told(value: Any) -> str:
    """A value in a sentence; of a large one, how it begins."""
    try:
        return shown(repr(value) if isinstance(value, str | list | dict) else value)
    except (RecursionError, ValueError):  # tables in tables without end, a number of thousands of digits
        return f"a {'number' if isinstance(value, int) else 'table'} too large to show"


def unknown(name: str) -> str:
    """The sentence for a setting that does not exist, with the nearest that does."""
    name = shown(name)
    if name in RENAMED:
        return f"The setting {name} is now called {RENAMED[name]}."
    names = [s.name for s in settings()]
    near = difflib.get_close_matches(name, names, 1, 0.6) or [
        n for n in names if n.rpartition(".")[2] == name.rpartition(".")[2]
    ]
    return f"There is no setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else ".")
