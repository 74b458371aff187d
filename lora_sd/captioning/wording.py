"""What becomes of a caption that a model wrote: the trigger word in front, and the caption that was there before."""

from typing import Literal, get_args

from ..data.captions import with_trigger_in_each

Existing = Literal["skip", "replace", "append"]  # what to do with a picture that has a caption
EXISTING: tuple[Existing, ...] = get_args(Existing)


def combined(new: str, old: str, *, existing: Existing, trigger: str = "") -> str:
    """The caption to write.

    >>> combined("a cat, grass", "mycat, a cat", existing="append", trigger="mycat")
    'mycat, a cat, grass'
    >>> combined("a cat, grass", "a dog", existing="replace", trigger="mycat")
    'mycat, a cat, grass'
    """
    if existing == "skip" and old:
        return old
    if existing == "append" and old:  # several captions are on lines of their own
        new = "\n".join(_added(line, new) for line in old.split("\n"))
    return with_trigger_in_each(new, trigger)


def _added(old: str, new: str) -> str:
    known = old.split(", ")
    return ", ".join([old, *(part for part in new.split(", ") if part and part not in known)])
