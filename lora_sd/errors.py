"""What went wrong, in one sentence for people: what, where, and what to do; and its code, one word for what can be done.

`remedies.py` has the options that a run goes on with for each code, the page its card.
"""

import contextlib
import errno
from collections.abc import Iterator

FULL = "The disk is full: {where} could not be saved. Free some space, then go on."
CLOSED = "This program may not read or write {where}; allow it, or choose another place."
MISSING = "{where} is not there; check its spelling, and that nobody took it away."
BELOW_A_FILE = "{where} can't be: part of that path is a file, not a folder; choose another place."
GONE = "{where} can't be reached: the disk or network share it is on does not answer. Connect it again, then go on."
REMEDIES = {
    getattr(errno, name): sentence
    for sentence, names in {
        FULL: "ENOSPC EDQUOT EFBIG",
        CLOSED: "EACCES EPERM EROFS",
        MISSING: "ENOENT",
        BELOW_A_FILE: "ENOTDIR EEXIST",
        GONE: "EIO ESTALE ETIMEDOUT EHOSTDOWN",
    }.items()
    for name in names.split()
    if hasattr(errno, name)  # not every system has them all
}

CODES = ("memory", "disk", "place", "numbers", "card", "model", "pictures", "changed", "input")
CARD = (
    "CUDA",
    "cuDNN",
    "CUBLAS",
    "NVML",
    "HIP error",
    "device-side assert",
)  # in what PyTorch says of a card


def code(error: BaseException) -> str:
    """One of CODES; "" for what nobody expected."""
    if out_of_memory(error):
        return "memory"
    if isinstance(error, OSError) and REMEDIES.get(error.errno) == FULL:
        return "disk"
    if (own := getattr(error, "code", None)) in CODES:
        return own
    if isinstance(error, OSError) and error.errno in REMEDIES:
        return "place"
    kinds = {"numbers": ArithmeticError, "input": ValueError}
    kind = next((name for name, kind in kinds.items() if isinstance(error, kind)), "")
    return kind or ("card" if any(word in str(error) for word in CARD) else "")


@contextlib.contextmanager
def about(what: str) -> Iterator[None]:
    """Errors in here that a person can mend have that code, "model" or "pictures"."""
    try:
        yield
    except (ValueError, OSError) as error:
        if getattr(error, "code", None) not in CODES:
            error.code = what
        raise


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the card or off it; the recording of a graph wraps that in an error of its own."""
    text = str(error)
    ran_out = isinstance(error, MemoryError) or "out of memory" in text.lower() or "ALLOC_FAILED" in text
    return ran_out or (error.__context__ is not None and out_of_memory(error.__context__))


def sentence(error: BaseException) -> str:
    """The sentence of an error; ours say it themselves, what comes from below is translated."""
    text = str(error).strip()
    if out_of_memory(error):
        return "There is not enough memory; use a smaller batch size or picture, or close other programs that use the card."
    if isinstance(error, OSError) and error.errno in REMEDIES:
        where = error.filename or "what was being written"
        return REMEDIES[error.errno].format(where=where)
    if isinstance(error, ValueError | ArithmeticError | OSError):
        return text
    last = text.splitlines()[-1] if text else "no more is known"
    return f"Something unexpected happened: {type(error).__name__}: {last}"
