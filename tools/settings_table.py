"""Writes docs/settings.md: every setting with its sentence, default, limits, and what sd-scripts (kohya) calls it."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "settings.md"
sys.path.insert(0, str(ROOT))

import types  # noqa: E402
from itertools import groupby  # noqa: E402
from typing import Any, Literal, Union, get_args, get_origin  # noqa: E402

from lora_sd import config as cfg  # noqa: E402
from lora_sd.kohya import table as names  # noqa: E402
from lora_sd.settings import Folder  # noqa: E402

HEAD = """# Every setting

Written by `tools/settings_table.py` from the settings themselves and from the table that `python -m lora_sd import`
reads files of sd-scripts and kohya_ss with. In a TOML file `lora.rank` is `rank` in the section `[lora]`; on the command
line it is `--lora.rank`. The last column is what sd-scripts calls it: options as on its command line, *args:* inside
`network_args`, *data:* in a `dataset_config`; – where it has nothing of the kind.
"""
NOTHING = """## Options of sd-scripts that mean nothing here

| option | why |
|---|---|
"""
LIMITS = {"ge": "≥ {:,}", "gt": "> {:,}", "le": "≤ {:,}", "lt": "< {:,}", "multiple_of": "multiple of {:,}"}


def page() -> str:
    parts = [HEAD]
    for group, members in groupby(cfg.settings(), key=lambda setting: setting.group):
        parts.append(f"## {group}\n\n" + _table(members))
    parts.append("## A folder of data.folders\n\n" + _table(cfg.settings(Folder, "data.folders.", "")))
    return "\n".join(parts) + "\n" + NOTHING + "\n".join(_nothing()) + "\n"


def _table(members: Any) -> str:
    rows = ["| setting | what it does | default | limits | sd-scripts |", "|---|---|---|---|---|"]
    for setting in members:
        cells = (
            f"`{setting.name}`",
            setting.field.description,
            _default(setting),
            _limits(setting.field),
            _theirs(setting.name),
        )
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _default(setting: cfg.Setting) -> str:
    if setting.field.is_required():
        return "needed"
    value = setting.field.get_default(call_default_factory=True)
    if value is None:
        return "automatic"
    return (
        f"`{str(value).lower() if isinstance(value, bool) else value}`"
        if value not in ("", [], {})
        else "none"
    )


def _limits(field: Any) -> str:
    annotation = field.annotation
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(part for part in get_args(annotation) if part is not types.NoneType)
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    limits = [
        words.format(getattr(limit, key))
        for limit in field.metadata
        for key, words in LIMITS.items()
        if getattr(limit, key, None) is not None
    ]
    choices = (field.json_schema_extra or {}).get("choices") or []
    return ", ".join([*limits, *(f"`{choice}`" for choice in choices), *(["or others"] if choices else [])])


def _theirs(name: str) -> str:
    tables = ((names.OPTIONS, ""), (names.NETWORK, "args: "), (names.DATASET, "data: "))
    found = [
        f"{prefix}`{option}`"
        for table, prefix in tables
        for option, entry in table.items()
        if name in entry.ours
    ]
    return ", ".join(found) or "–"


def _nothing() -> list[str]:
    return [
        f"| {prefix}`{option}` | {entry.but} |"
        for table, prefix in ((names.OPTIONS, ""), (names.NETWORK, "args: "), (names.DATASET, "data: "))
        for option, entry in table.items()
        if not any(name in _known() for name in entry.ours)
    ]


def _known() -> set[str]:
    return {setting.name for setting in cfg.settings()}


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
