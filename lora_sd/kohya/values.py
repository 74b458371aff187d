"""Values as sd-scripts, its graphical interface and its command line write them: numbers may be text, and nothing is nothing."""

import ast
import math
from typing import Any

from ..paths import shown

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def is_set(value: Any) -> bool:
    """Whether a value says anything: empty texts and lists, None and "None" are what was left out."""
    return value is not None and value not in ("", "None") and value != [] and value != {}


def flag(value: Any) -> bool:
    text = str(value).strip().lower()
    if isinstance(value, bool | int | float | str) and text in TRUE + FALSE:
        return text in TRUE
    raise ValueError("it must be true or false")


def decimal(value: Any) -> float:
    """A finite number."""
    if isinstance(value, str):
        try:
            value = float(value[:50])
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e300 < value < 1e300:
        raise ValueError("it must be a number")
    return float(value)


def whole(value: Any) -> int:
    number = decimal(value)
    if number != math.floor(number):
        raise ValueError("it must be a whole number")
    return int(number)


def word(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("it must be a text")
    return str(value).strip()


def numbers(value: Any) -> list[float]:
    """Of `[1, 2]`, "1,2" or 1.

    >>> numbers("4, 8"), numbers([4, "8"]), numbers(4)
    ([4.0, 8.0], [4.0, 8.0], [4.0])
    """
    if isinstance(value, str):
        value = [part for part in value.strip("[]() ").replace(",", " ").split() if part]
    return [decimal(part) for part in (value if isinstance(value, list | tuple) else [value])]


def pairs(value: Any) -> dict[str, Any]:
    """The arguments of ["a=1", "b=(1, 2)"], of one text of them, or of a table.

    >>> pairs("decouple=True betas=0.9,0.99"), pairs(["algo=locon"])
    ({'decouple': True, 'betas': [0.9, 0.99]}, {'algo': 'locon'})
    """
    if isinstance(value, dict):
        plain = {str(name): part for name, part in value.items() if is_set(part)}
        return {name: list(part) if isinstance(part, tuple) else part for name, part in plain.items()}
    words = _words(value) if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(part, str) for part in words):
        raise ValueError("it must be a list of name=value")
    if wrong := next((part for part in words if "=" not in part), None):
        raise ValueError(f"{shown(wrong, 50)!r} in it is no name=value")
    named = [part.partition("=") for part in words]
    return {name.strip(): literal(part.strip()) for name, _, part in named if is_set(part.strip())}


def _words(text: str) -> list[str]:
    """Split at spaces and commas, but at none inside a value: `a=(1, 2) b=3`."""
    words: list[str] = []
    for part in text.replace('"', " ").replace("'", " ").split():
        if "=" in part or not words:
            words.append(part)
        else:
            words[-1] += part
    return [part.rstrip(",") for part in words]


def literal(text: Any) -> Any:
    """What Python reads in a text, as sd-scripts does: a number, True, a list; else the text itself."""
    if not isinstance(text, str) or len(text) > 500:
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return text
    return list(value) if isinstance(value, tuple) else value
