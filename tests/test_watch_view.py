"""What Watch says of a run, by what happened to it."""

import time

import pytest

from app import story, watch_view
from lora_sd import config, events, run
from lora_sd.recorder import Recorder


@pytest.fixture
def recorder() -> Recorder:
    recorder = Recorder(run.create(config.changed(config.TrainConfig(), {"optim.steps": 100})), 100)
    recorder(events.Phase(status="training", text="Training"))
    for step in range(48):
        recorder(events.Step(step=step, total=100, loss=0.1 if step else None, seconds=1.0))
    recorder.save()
    return recorder


def words(node) -> str:
    """All text of a piece of page."""
    return node if isinstance(node, str) else " ".join(words(child) for child in node["children"])


def header(folder) -> str:
    return words(watch_view.draw_header(story.read(folder)))


def kill(recorder: Recorder) -> None:
    recorder.state.pid = 2**22 + 1  # of no process
    recorder.save()


def test_a_killed_run_says_where_it_goes_on_not_where_it_was(recorder):
    (recorder.folder / "state" / "000045.pt").touch()
    kill(recorder)
    said = header(recorder.folder)
    assert "It ended without a word" in said and "All was saved at step 45" in said
    assert "Resume from step 45" in said and "step 47 of 100" in said


def test_a_run_killed_before_its_first_state_can_start_again(recorder):
    kill(recorder)
    assert "It can start again." in header(recorder.folder) and "Start again" in header(recorder.folder)


def test_a_run_that_says_nothing_for_long_is_not_taken_for_a_busy_one(recorder, monkeypatch):
    assert "No news" not in header(recorder.folder)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 600)
    assert "No news for 10 min" in header(recorder.folder)


def test_a_run_that_would_go_on_differently_offers_to_do_so_on_purpose(recorder):
    recorder(events.Failed("This run would go on differently: cat.png is gone.", code="changed"))
    said = header(recorder.folder)
    assert "cat.png is gone" in said and "Resume with the changes" in said
    recorder(events.Failed("The disk is full."))
    assert "Resume with the changes" not in header(recorder.folder)
