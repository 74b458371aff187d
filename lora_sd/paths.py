"""Names and paths of strangers: as a person typed them, made fit to ask the system about; and as a sentence can hold them."""

import os
import re
from pathlib import Path

UNTYPED = re.compile(r"[\x00-\x1f\ud800-\udbff]")  # no one types these into a path
LONGEST = 3000, 255  # bytes of a path, with room for the folder it is in, and of one name in it


def typed(text: str, what: str) -> Path:
    """The path that a person gave, its ~ opened. ValueError where no file can have it; `what` names the setting or flag."""
    if UNTYPED.search(text):
        raise ValueError(
            f"{what} is {shown(text)!r}, which has a line break, a tab or another sign that no path has; "
            r"in a TOML file write C:\new in single quotes, 'C:\new', or as C:/new."
        )
    data = os.fsencode(text)
    if len(data) > LONGEST[0] or max(map(len, data.split(b"/"))) > LONGEST[1]:
        raise ValueError(f"{what} is {shown(text)!r}, which is too long for a path; check what was pasted.")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{what} is {shown(text)!r}, and there is no user of that name here; write the whole path."
        ) from error


def shown(name: object, most: int = 300) -> str:
    """A name in a sentence: on one line, not too long, and nothing in it that hides or turns what follows.

    >>> shown("a\\nb"), shown("gpj.\\u202etac.png"), shown("aaaa", most=2)
    ('a b', 'gpj.�tac.png', 'aa…')
    """
    text = str(name)
    clean = "".join(_visible(sign) for sign in text[:most])
    return clean if len(text) <= most else f"{clean}…"


def _visible(sign: str) -> str:
    if sign.isprintable():
        return sign
    return " " if sign.isspace() else "�"


def is_text(name: object) -> bool:
    """Whether a name can be written as UTF-8; on Linux a file's name can be any bytes."""
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True
