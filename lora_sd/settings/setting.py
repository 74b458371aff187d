"""What sections of settings are made of: fields with their sentence, and the kinds of values that several have."""

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

EVERY = re.compile(r"^(\d{1,9}|\d{1,9}(\.\d{1,9})?\s*%|\d{1,9}(\.\d{1,9})?\s*epochs?|off)$")
MINUTES = re.compile(r"^(\d{1,9}(\.\d{1,9})?)\s*(min|minutes?)$")


def setting(
    default: Any, help: str, *, label: str, basic: bool = False, choices: Sequence[str] = (), **limits: Any
) -> Any:
    """A field of the config: `help` is one plain sentence, `basic` ones are shown without opening Advanced.

    `choices` are offered for a text that can be others, too.
    """
    extra = {"basic": basic, "choices": list(choices)}
    return Field(default, description=help, title=label, json_schema_extra=extra, **limits)


def argument(text: str) -> Any:
    """A value as a person writes it in a line: a number, true, a list in brackets, or else a word.

    >>> argument("0.9"), argument("[0.9, 0.99]"), argument("true"), argument("fast")
    (0.9, [0.9, 0.99], True, 'fast')
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _every(value: int | str) -> int | str:
    return _duration(value, '"2 epochs"')


def _every_or_minutes(value: int | str) -> int | str:
    return value if MINUTES.match(str(value).strip()) else _duration(value, '"2 epochs", "5 minutes"')


def _duration(value: int | str, units: str) -> int | str:
    if not EVERY.match(str(value).strip()):
        raise ValueError(f'write a number of steps, a share like "10%", {units}, or 0 for off')
    return int(value) if str(value).strip().isdecimal() else value


Every = Annotated[int | str, AfterValidator(_every)]  # steps, "10%", "2 epochs", 0 or "off"
EveryOrMinutes = Annotated[int | str, AfterValidator(_every_or_minutes)]  # or "5 minutes"
