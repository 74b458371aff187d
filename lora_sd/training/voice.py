"""What a run says of itself, and hears: events for whoever listens, and whether it was asked to end."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from ..data.cache import OnProgress
from ..events import Note, OnEvent, Phase

STALLED = 60.0  # seconds in which nothing comes, before that is worth a word


class Stopped(Exception):
    """Someone asked the run to stop before there was anything to save."""


class Voice(NamedTuple):
    tell: OnEvent
    asked_to_end: Callable[[], str]  # how: "stop" or "pause"; "" if nobody did

    def say(self, status: str, words: str) -> None:
        """Where the run is."""
        self.tell(Phase(status, words))

    def note(self, words: str) -> None:
        """Something worth knowing."""
        self.tell(Note(words))

    def progress(self, status: str, words: str) -> OnProgress:
        """For something that counts; raises Stopped from it when the run shall end."""

        came = [-1, time.monotonic()]  # how many there were, since when

        def on_progress(done: int, total: int) -> None:
            self.tell(Phase(status, words, done, total))
            if done != came[0]:
                came[:] = done, time.monotonic()
            elif time.monotonic() - came[1] > STALLED:
                came[1] = math.inf
                self.note(
                    f"{words} {done + 1} of {total} takes long: the disk or network share may not answer. "
                    "The run waits for it; you can stop it and resume later."
                )
            if self.asked_to_end():
                raise Stopped(
                    "Stopped before the first step; nothing was learned yet. Resume the run to go on."
                )

        return on_progress
