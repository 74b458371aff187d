"""What the pages tell of a run, read from its events as they come."""

import time

import pytest

from app import story
from lora_sd import config, events, run
from lora_sd.recorder import Recorder


@pytest.fixture
def recorder() -> Recorder:
    settings = config.changed(config.TrainConfig(), {"output.name": "tabby", "optim.steps": 100})
    return Recorder(run.create(settings), 100)


def train(recorder: Recorder, first: int, last: int, loss: float = 0.1) -> None:
    recorder(events.Phase(status="training", text="Training"))
    for step in range(first, last + 1):
        recorder(events.Step(step=step, total=100, loss=loss, seconds=2.0))
    recorder.save()


def test_reading_goes_on_where_it_stopped(recorder):
    train(recorder, 1, 3)
    told = story.read(recorder.folder)
    offset = told.offset
    train(recorder, 4, 5)
    assert [step.step for step in story.read(recorder.folder).steps] == [1, 2, 3, 4, 5]
    assert story.read(recorder.folder) is told and told.offset > offset > 0


def test_steps_that_a_resume_does_again_replace_the_first_ones(recorder):
    train(recorder, 1, 9, loss=0.5)
    train(recorder, 6, 7, loss=0.1)
    told = story.read(recorder.folder)
    assert [step.step for step in told.steps] == [1, 2, 3, 4, 5, 6, 7]
    assert [step.loss for step in told.steps[-3:]] == [0.5, 0.1, 0.1]


def test_time_left_comes_with_enough_steps_and_only_while_it_runs(recorder):
    train(recorder, 1, 4)
    assert story.read(recorder.folder).seconds_left is None
    train(recorder, 5, 40)
    assert story.read(recorder.folder).seconds_left == 2.0 * 60
    recorder(events.Finished(step=40, path="", stopped=True))
    assert story.read(recorder.folder).seconds_left is None


def test_the_list_of_runs_follows_what_is_on_disk(recorder):
    assert [(found.name, found.state.status) for found in story.runs()] == [("tabby", "starting")]
    train(recorder, 1, 2)
    assert story.active().folder == recorder.folder
    time.sleep(0.01)
    recorder(events.Finished(step=2, path=""))
    assert story.active() is None
    second = run.create(config.changed(config.TrainConfig(), {"output.name": "second"}))
    assert {found.folder for found in story.runs()} == {recorder.folder, second}


def test_runs_that_are_over_are_not_read_again(recorder, monkeypatch):
    recorder(events.Finished(step=2, path=""))
    (recorder.folder.parent / "no run").mkdir()
    story.runs()
    monkeypatch.setattr(run, "list_runs", lambda: pytest.fail("nothing is new"))
    monkeypatch.setattr(run, "read_state", lambda folder: pytest.fail("nothing has changed"))
    assert [found.name for found in story.runs()] == ["tabby"]


def test_checkpoints_are_listed_again_only_when_their_folder_has_changed(recorder, monkeypatch):
    monkeypatch.setattr(story, "SETTLED_NS", -(10**12))
    folder = recorder.folder / "checkpoints"
    (folder / "tabby-000002.safetensors").touch()
    first = story.checkpoints(recorder.folder)
    assert [path.name for path in first] == ["tabby-000002.safetensors"]
    assert story.checkpoints(recorder.folder) is first
    time.sleep(0.02)
    (folder / "tabby.safetensors").touch()
    assert [path.name for path in story.checkpoints(recorder.folder)][-1] == "tabby.safetensors"


def test_a_folder_that_has_just_changed_is_not_trusted(recorder):
    (recorder.folder / "checkpoints" / "tabby.safetensors").touch()
    assert story.checkpoints(recorder.folder) is not story.checkpoints(recorder.folder)


def test_smoothing_keeps_a_constant_and_does_not_lag():
    assert story.smooth([0.3] * 5) == pytest.approx([0.3] * 5)
    step_up = story.smooth([0.0] * 50 + [1.0] * 50)
    assert step_up[49] < 0.5 < step_up[50]


@pytest.mark.parametrize(("count", "most"), [(3, 10), (10, 10), (1000, 7)])
def test_thinning_keeps_both_ends(count, most):
    kept = story.thin(count, most)
    assert len(kept) == min(count, most) == len(set(kept))
    assert (kept[0], kept[-1]) == (0, count - 1)


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45 s"), (89.6, "90 s"), (1080, "18 min"), (7500, "2 h 05 min")]
)
def test_durations_are_words(seconds, text):
    assert story.duration(seconds) == text


def test_a_run_that_says_nothing_for_long_is_silent(recorder, monkeypatch):
    train(recorder, 1, 10)
    told = story.read(recorder.folder)
    assert told.silence is None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 200)
    assert told.silence == pytest.approx(200, abs=1)
    recorder(events.Finished(step=10, path=""))
    assert story.read(recorder.folder).silence is None
