"""What became of an option of theirs, as a line for a person."""

from typing import Any, Literal, NamedTuple

from ..paths import shown

Kind = Literal["taken", "differs", "assumed", "ignored", "unknown"]
HEADINGS: dict[Kind, str] = {
    "differs": "Taken over, with a difference",
    "assumed": "Not set there, so as it is there unless set",
    "ignored": "Ignored",
    "unknown": "Unknown, so ignored",
    "taken": "Taken over",
}


class Note(NamedTuple):
    """One of their options: its name, its value, and what became of it or why nothing did."""

    option: str
    value: Any
    kind: Kind
    words: str
    setting: str = ""  # of ours, where it became one

    @property
    def title(self) -> str:
        """`network_dim = 16`, or the name alone where it has no value."""
        name = shown(self.option, 120)
        return name if self.value is None else f"{name} = {told(self.value)}"

    def __str__(self) -> str:
        return f"{self.title}: {self.words}"


def told(value: Any) -> str:
    """A value as TOML would have it, on one line and not too long."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        value = " ".join(f"{name}={part}" for name, part in list(value.items())[:20])
    try:
        return shown(value if isinstance(value, str) else repr(value), 80)
    except (RecursionError, ValueError):  # tables in tables, a number of thousands of digits
        return "a value too large to show"


def report(notes: list[Note]) -> str:
    """All of them by kind, those that need a look first."""
    lines = []
    for kind, heading in HEADINGS.items():
        if found := [note for note in notes if note.kind == kind]:
            lines += [f"{heading} ({len(found)}):", *(f"  {note}" for note in found)]
    return "\n".join(lines)
