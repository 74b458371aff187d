"""What a run says of itself, and hears: events for whoever listens, and whether it was asked to end."""

from collections.abc import Callable
from typing import NamedTuple

from ..data.cache import OnProgress
from ..events import Note, OnEvent, Phase


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

        def on_progress(done: int, total: int) -> None:
            self.tell(Phase(status, words, done, total))
            if self.asked_to_end():
                raise Stopped(
                    "Stopped before the first step; nothing was learned yet. Resume the run to go on."
                )

        return on_progress
