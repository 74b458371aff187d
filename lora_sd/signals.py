"""Ctrl-C, SIGTERM and a closed terminal as a wish to stop: heard once, the run saves and ends; a second one ends at once."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # as far as the system has them
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
_heard: list[int] = []
_open = threading.Lock()  # while somebody hears


@contextlib.contextmanager
def heard(*, then_raise: bool) -> Iterator[None]:
    """While this is open a signal only makes `asked_to_stop` true.

    `then_raise`: afterwards it has the effect that it has without us, so that a script's Ctrl-C also ends the script.
    Inside another `heard`, and outside of the main thread, which gets no signals, this does nothing.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or not _open.acquire(blocking=False):
        yield
        return
    _heard.clear()
    # what is ignored stays so: the hang-up of a program that was started with nohup
    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, _hear) for number in heeded}
    try:
        yield
    finally:
        _open.release()
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
    if then_raise and _heard:
        signal.raise_signal(_heard[0])


def _hear(number: int, frame: FrameType | None) -> None:
    _heard.append(number)
    signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(OSError, ValueError):  # the terminal may be what is gone
        print("\nStopping after this step, and saving. Press Ctrl-C again to end at once.", file=sys.stderr)


def asked_to_stop() -> bool:
    """Whether a signal came since the outermost `heard` was opened."""
    return bool(_heard)
