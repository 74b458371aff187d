"""The open tabs of the page, and what each shows already, so that it is sent only what it does not show."""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from .words import language

SHARED_SECONDS = 0.3  # that something looked up serves every tab
POLLS_A_SECOND = 30  # of all tabs together: with more of them each asks less often
AWAY_SECONDS = 60  # without a poll, and a tab is forgotten; it is told everything when it comes back
T = TypeVar("T")


class Shared(Generic[T]):
    """`shared(key)` is `look(key)`, at most SHARED_SECONDS old, and the same object for all who ask in one language."""

    def __init__(self, look: Callable[[Any], T], *, seconds: float = SHARED_SECONDS):
        self.look, self.seconds = look, seconds
        self.kept: dict[Hashable, tuple[float, T]] = {}
        self.lock = threading.Lock()

    def __call__(self, key: Hashable) -> T:
        asked = language(), key
        with self.lock:
            oldest = time.monotonic() - self.seconds
            self.kept = {key: kept for key, kept in self.kept.items() if kept[0] > oldest}
            if asked not in self.kept:
                self.kept[asked] = time.monotonic(), self.look(key)
            return self.kept[asked][1]


class Tab:
    """What one tab shows: views, and facts that its menus and its chart follow, by name."""

    def __init__(self) -> None:
        self.views: dict[str, Any] = {}
        self.facts: dict[str, Any] = {}
        self.asked = time.monotonic()
        self.charted = 0.0  # when its chart was drawn
        self.count = 0  # of news that it was sent

    def fresh(self, views: dict[str, Any]) -> dict[str, Any]:
        """Those that it does not show already; from now on it does."""
        news = {
            name: value
            for name, value in views.items()
            if name not in self.views or self.views[name] != value
        }
        self.views.update(news)
        return news

    def behind(self, facts: dict[str, Any]) -> set[str]:
        """The names of those that it does not follow yet."""
        return {name for name, fact in facts.items() if name not in self.facts or self.facts[name] != fact}


class Tabs:
    """The open tabs by Gradio's session."""

    def __init__(self) -> None:
        self.known: dict[str, Tab] = {}
        self.lock = threading.Lock()

    def __getitem__(self, session: str) -> Tab:
        now = time.monotonic()
        with self.lock:
            self.known = {name: tab for name, tab in self.known.items() if now - tab.asked < AWAY_SECONDS}
            tab = self.known.setdefault(session, Tab())
            tab.asked = now
            return tab

    @property
    def pause(self) -> int:
        """Seconds between two polls of a tab: 1, and 2, 4, 8 … as they get many."""
        pause = 1
        while len(self.known) > pause * POLLS_A_SECOND:
            pause *= 2
        return pause
