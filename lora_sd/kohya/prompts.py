"""Prompts of previews as sd-scripts has them: `a cat --n blurry --w 512 --h 768 --d 1 --l 7 --s 28` → preview settings."""

import json
import re
from pathlib import Path
from typing import Any

from .. import config as cfg
from .translation import Translation
from .values import decimal, is_set, whole

MOST = 50
OPTION = re.compile(r"\s--([a-z]+)\s+")
LETTERS = {
    "n": "negative_prompt",
    "w": "width",
    "h": "height",
    "d": "seed",
    "l": "scale",
    "s": "sample_steps",
    "ss": "sample_sampler",
}
OURS = {
    "negative_prompt": ("preview.negative", str),
    "sample_steps": ("preview.steps", whole),
    "scale": ("preview.guidance", decimal),
    "seed": ("preview.seed", whole),
}


def translate(work: Translation, text: str, path: Path | None) -> None:
    """Prompts from a preset's own `text`, or from the file that sample_prompts names."""
    named = work.take("sample_prompts")
    if path:
        try:
            found = _of_file(path)
        except ValueError as error:
            work.note("sample_prompts", named, "ignored", str(error))
            return
    else:
        found = _of_lines(text)
        if named and not found:
            work.note(
                "sample_prompts",
                named,
                "ignored",
                "that file was not read; write its prompts in preview.prompts.",
            )
    prompts = [one for one in found if is_set(one.get("prompt"))][:MOST]
    if not prompts:
        return
    given = named or "…"
    work.set("sample_prompts", given, "preview.prompts", [str(one["prompt"]) for one in prompts])
    for theirs, (ours, read) in OURS.items():
        values = [one.get(theirs) for one in prompts]
        value = next(filter(is_set, values), None)
        but = "the first prompt's is for all" if any(other != value for other in values) else ""
        _set(work, theirs, ours, read, value, but)
    if sizes := [one for one in prompts if is_set(one.get("width")) or is_set(one.get("height"))]:
        size = f"{sizes[0].get('width')}x{sizes[0].get('height')}"
        work.note("sample_prompts", size, "ignored", "previews have the size that the model was made for.")


def _set(work: Translation, theirs: str, ours: str, read: Any, value: Any, but: str) -> None:
    if not is_set(value):
        return
    try:
        work.set(f"sample_prompts {theirs}", value, ours, read(value), but)
    except ValueError as error:
        work.note(f"sample_prompts {theirs}", value, "ignored", f"{error}.")


def _of_file(path: Path) -> list[dict[str, Any]]:
    match path.suffix.lower():
        case ".toml":
            table = cfg.read_toml(path).get("prompt")
            table = table if isinstance(table, dict) else {}
            common = {key: value for key, value in table.items() if key != "subset"}
            return [common | one for one in _tables(table.get("subset", [{}]))]
        case ".json":
            try:
                return _tables(json.loads(cfg.read_text(path)))
            except (json.JSONDecodeError, RecursionError) as error:
                raise ValueError("that file is not valid JSON.") from error
    return _of_lines(cfg.read_text(path))


def _tables(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _of_lines(text: str) -> list[dict[str, Any]]:
    lines = [line.strip() for line in text.splitlines()]
    return [_of_line(line) for line in lines[: 10 * MOST] if line and not line.startswith("#")]


def _of_line(line: str) -> dict[str, Any]:
    """`{"prompt": "a cat", "negative_prompt": "blurry"}` of `a cat --n blurry`."""
    prompt, *rest = OPTION.split(line)
    found: dict[str, Any] = {"prompt": prompt.strip()}
    for letter, value in zip(rest[::2], rest[1::2], strict=True):
        if letter in LETTERS:
            found[LETTERS[letter]] = value.strip()
    return found
