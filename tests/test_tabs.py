"""What a tab is sent: only what it does not show, looked up once for all of them."""

import pytest

from app import tabs
from app.tabs import Shared, Tab, Tabs


def test_what_is_looked_up_serves_all_who_ask_in_a_moment():
    asked = []
    shared = Shared(lambda key: asked.append(key) or [key], seconds=60)
    assert all(shared("a") is shared("a") for _ in range(50))
    assert shared("b") == ["b"] and asked == ["a", "b"]


def test_what_was_looked_up_before_is_let_go():
    shared = Shared(lambda key: [key], seconds=0)
    first = shared("a")
    assert shared("a") == first and shared("a") is not first
    shared("b")
    assert [key for _, key in shared.kept] == ["b"]


def test_readers_of_two_languages_share_nothing(monkeypatch):
    shared = Shared(lambda key: [key])
    english = shared("a")
    assert shared("a") is english
    monkeypatch.setattr("app.tabs.language", lambda: "de")
    assert shared("a") is not english


def test_a_tab_is_sent_only_what_it_does_not_show():
    tab = Tab()
    assert tab.fresh({"header": "step 1", "past": None}) == {"header": "step 1", "past": None}
    assert tab.fresh({"header": "step 2", "past": None}) == {"header": "step 2"}
    assert tab.fresh({"header": "step 2", "past": None}) == {}


def test_a_tab_is_behind_until_it_follows():
    tab = Tab()
    assert tab.behind({"runs": [], "busy": False}) == {"runs", "busy"}
    tab.facts.update(runs=[], busy=False)
    assert tab.behind({"runs": ["cat"], "busy": False}) == {"runs"}


def test_a_tab_that_went_away_is_forgotten_and_told_everything_when_it_returns(monkeypatch):
    known = Tabs()
    known["a"].fresh({"header": "step 1"})
    assert known["a"].fresh({"header": "step 1"}) == {}
    monkeypatch.setattr(tabs, "AWAY_SECONDS", -1)
    known["b"]
    assert list(known.known) == ["b"]
    assert known["a"].fresh({"header": "step 1"}) == {"header": "step 1"}


@pytest.mark.parametrize(("count", "pause"), [(1, 1), (30, 1), (31, 2), (50, 2), (200, 8)])
def test_many_tabs_ask_less_often(count, pause):
    known = Tabs()
    for session in range(count):
        known[str(session)]
    assert known.pause == pause
    assert count / known.pause <= tabs.POLLS_A_SECOND
