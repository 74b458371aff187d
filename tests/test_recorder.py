import os

import pytest

from lora_sd import config as cfg
from lora_sd import events, run
from lora_sd.recorder import Recorder


@pytest.fixture
def folder():
    return run.create(cfg.TrainConfig())


def texts(folder):
    return [event.text for event in run.read_events(folder)[0]]


def test_lines_that_have_no_room_wait_and_come_in_order(folder, monkeypatch):
    resource = pytest.importorskip("resource")
    recorder = Recorder(folder, 10)
    recorder(events.Note("one"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (folder / "events.jsonl").stat().st_size
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (size + 20, limits[1])
    )  # the next line breaks off in the middle
    try:
        recorder(events.Note("two"))
        assert (folder / "events.jsonl").stat().st_size == size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    recorder(events.Note("three"))
    assert texts(folder) == ["one", "two", "three"]


def test_a_failure_is_recorded_where_no_new_file_can_be_made(folder, monkeypatch):
    """As on a disk without a free block: the state is written over in place."""
    recorder = Recorder(folder, 10)
    monkeypatch.setattr(
        os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    recorder(events.Failed("The disk is full."))
    assert (run.read_state(folder).status, run.read_state(folder).error) == ("failed", "The disk is full.")


def test_time_that_runs_backwards_changes_nothing(folder, monkeypatch):
    recorder = Recorder(folder, 10)
    recorder(events.Step(step=1, total=10, loss=0.1, t=5000.0))
    recorder(events.Step(step=2, total=10, loss=0.1, t=100.0))
    recorder.close()
    assert run.read_state(folder).step == 2
    assert [event.step for event in run.read_events(folder)[0]] == [1, 2]
