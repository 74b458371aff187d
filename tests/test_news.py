"""A poll: what fifty tabs cost, and that nothing is sent twice."""

import gradio as gr
import pytest

from app import line, news, pages, story
from app.tabs import Shared, Tabs
from lora_sd import config, events, run
from lora_sd.recorder import Recorder


@pytest.fixture
def recorder(monkeypatch) -> Recorder:
    monkeypatch.setattr(news, "tabs", Tabs())
    monkeypatch.setattr(news, "now", Shared(news.look, seconds=0))
    settings = config.changed(config.TrainConfig(), {"output.name": "tabby", "optim.steps": 100})
    recorder = Recorder(run.create(settings), 100)
    recorder(events.Phase(status="training", text="Training"))
    step(recorder, 1)
    return recorder


def step(recorder: Recorder, number: int) -> None:
    recorder(events.Step(step=number, total=100, loss=0.1, seconds=1.0))
    recorder.save()


def ask(name: str, tab: str) -> dict | None:
    """A poll of a tab that got all answers before."""
    return news.poll(name, tab, news.tabs[tab].count)


def test_a_tab_is_sent_everything_once_and_then_what_changed(recorder):
    name = recorder.folder.name
    first = ask(name, "a")
    assert {"bar", "header", "previews", "words", "log", "past"} <= set(first["shown"])
    assert first["behind"] == ["menus", "chart"]
    news.late(name, "a"), news.chart(name, "a")
    assert ask(name, "a") is None
    step(recorder, 2)
    assert "header" in ask(name, "a")["shown"]
    assert ask(name, "a") is None


def test_a_tab_that_missed_an_answer_is_sent_everything_again(recorder):
    name = recorder.folder.name
    first = ask(name, "a")
    step(recorder, 2)
    assert set(news.poll(name, "a", first["count"])["shown"]) < set(first["shown"])
    assert set(news.poll(name, "a", first["count"])["shown"]) == set(first["shown"])


def test_a_tab_is_told_again_that_it_is_behind_until_it_asks(recorder):
    name = recorder.folder.name
    ask(name, "a")
    assert ask(name, "a")["behind"] == ["menus", "chart"]
    assert {"runs", "loras", "pause"} <= set(news.late(name, "a"))
    assert ask(name, "a")["behind"] == ["chart"]


def test_the_chart_of_a_run_that_is_over_has_its_last_step(recorder):
    name = recorder.folder.name
    news.chart(name, "a")
    step(recorder, 2)
    recorder(events.Finished(step=2, path=""))
    assert "chart" in ask(name, "a")["behind"]
    assert news.chart(name, "a")["value"]["step"].max() == 2
    assert "chart" not in ask(name, "a")["behind"]


def test_fifty_tabs_look_at_the_disk_once(recorder, monkeypatch):
    looked = []
    monkeypatch.setattr(
        news, "now", Shared(lambda run_id: looked.append(run_id) or news.look(run_id), seconds=60)
    )
    sent = [ask(recorder.folder.name, str(number)) for number in range(50)]
    assert len(looked) == 1
    assert all(one["shown"]["header"] is sent[0]["shown"]["header"] for one in sent)


def test_a_poll_changes_one_component_only():
    """Gradio builds every output anew, even one that is left alone."""
    functions = pages.build().fns.values()
    [poll] = [one for one in functions if any(event == "tick" for _, event in one.targets)]
    assert len(poll.outputs) == 1 and not poll.queue


def test_a_run_that_is_not_there_is_no_error(recorder):
    assert "header" not in ask("gone", "a")["shown"]
    assert story.active() is not None


def test_pages_that_were_closed_do_not_fill_the_memory(monkeypatch):
    """Gradio keeps half a MiB of every page that was ever opened, of 10,000 of them unless told."""
    given = {}
    monkeypatch.setattr(gr.Blocks, "launch", lambda demo, **options: given.update(options))
    monkeypatch.setattr(line, "keep_going", lambda: None)  # its thread would outlive this test
    pages.launch(pages.build(), address="127.0.0.1", port=0, browser=False, share=False, auth=None)
    assert given["state_session_capacity"] == pages.SESSIONS <= 200
