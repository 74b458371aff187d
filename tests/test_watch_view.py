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


def test_pictures_that_can_not_be_used_are_counted_once_and_named(recorder):
    for name in ("cat07.png", "cat08.png", "cat07.png"):  # a resume tells it again
        recorder(events.Note(f"{events.WITHOUT} {name}: it is damaged."))
    recorder(events.Note("Something else."))
    said = header(recorder.folder)
    assert "2 pictures are left out" in said and "cat08.png: it is damaged." in said
    assert said.count("cat07.png") == 1 and "Something else." in said


def test_a_full_card_with_slow_steps_is_said_to_use_the_computers_memory(recorder, monkeypatch):
    from types import SimpleNamespace

    monkeypatch.setattr(watch_view.hardware, "best", lambda: SimpleNamespace(kind="cuda", total=1000))
    for step in range(48, 90):
        recorder(events.Step(step=step, total=100, loss=0.1, seconds=4.0, memory=980))
    assert "uses the computer's memory" in header(recorder.folder)
    for step in range(60, 90):
        recorder(events.Step(step=step, total=100, loss=0.1, seconds=1.0, memory=980))
    assert "uses the computer's memory" not in header(recorder.folder)


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        ("spread", [0, 10, 20, 30, 40, 50, 60, 70, 80]),
        ("latest", [0, 45, 50, 55, 60, 65, 70, 75, 80]),
        ("all", list(range(0, 85, 5))),
    ],
)
def test_of_many_steps_those_are_shown_that_are_asked_for(columns, shown):
    assert watch_view.chosen(list(range(0, 85, 5)), columns) == shown
    assert watch_view.chosen([0, 5], columns) == [0, 5]


def test_a_picture_that_is_gone_takes_nothing_else_away(recorder):
    from PIL import Image

    for step in (0, 20):
        path = f"previews/{step:06d}-0.png"
        Image.new("RGB", (64, 64)).save(recorder.folder / path)
        recorder(events.Preview(step=step, prompt="a cat", index=0, path=path))
    (recorder.folder / "previews" / "000020-0.png").unlink()
    drawn = watch_view.draw_previews(story.read(recorder.folder))
    assert "This picture is gone" in words(drawn) and "without LoRA" in words(drawn)


def test_a_status_of_a_later_version_is_shown_as_it_is():
    assert watch_view.word(run.State(status="dreaming")) == "dreaming"
