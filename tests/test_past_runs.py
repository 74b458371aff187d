"""The list of all runs: every run has its picture, its end and its buttons; deleting takes one with its traces."""

import time

import pytest
from PIL import Image

from app import bar, past_runs, story, watch_page
from lora_sd import config, events, run
from lora_sd.recorder import Recorder


def ended(name: str, event: events.Event, *, picture: bool = True):
    settings = config.changed(config.TrainConfig(), {"output.name": name, "optim.steps": 10})
    recorder = Recorder(run.create(settings), 10)
    recorder(events.Step(step=5, total=10, loss=0.1))
    for step in (0, 5) if picture else ():
        Image.new("RGB", (600, 300)).save(recorder.folder / "previews" / f"{step:06d}-0.png")
    recorder(event)
    recorder.close()
    return recorder.folder


def words(node) -> str:
    return node if isinstance(node, str) else " ".join(words(child) for child in node["children"])


def row(folder) -> dict:
    found = next(found for found in story.runs() if found.folder == folder)
    return past_runs.draw_run(found, time.monotonic() + 10)


FINISHED = events.Finished(step=10, path="")


def test_a_run_shows_its_newest_picture_and_what_can_be_done():
    folder = ended("cat", events.Failed("It broke."))
    said = words(row(folder))
    assert all(text in said for text in ("cat", "failed", "step 5 of 10", "Resume", "Use these settings"))
    assert row(folder)["children"][0]["tag"] == "img"
    assert story.newest_preview(folder).name == "000005-0.png"


def test_without_a_picture_or_time_for_it_its_place_is_empty():
    gone = ended("gone", FINISHED, picture=False)
    assert row(gone)["children"][0]["tag"] == "span"
    late = ended("late", FINISHED)
    found = next(found for found in story.runs() if found.folder == late)
    assert past_runs.draw_run(found, 0.0)["children"][0]["tag"] == "span"
    broken = ended("broken", FINISHED)
    (broken / "previews" / "000005-0.png").write_bytes(b"no picture")
    assert row(broken)["children"][0]["tag"] == "span"


def test_deleting_says_how_much_goes_and_takes_the_small_pictures_with_it():
    folder = ended("cat", FINISHED)
    assert "deleted for good: 0.0 MB" in words(row(folder))
    assert any(past_runs.thumbs(folder).iterdir())
    past_runs.delete(folder)
    assert not folder.exists() and not past_runs.thumbs(folder).exists() and story.runs() == []


def test_a_run_that_trains_can_not_be_deleted_and_tells_no_step_that_would_change_the_list():
    recorder = Recorder(run.create(config.TrainConfig()), 10)
    recorder(events.Phase(status="training", text="Training"))
    recorder(events.Step(step=5, total=10, loss=0.1))
    recorder.close()
    said = words(row(recorder.folder))
    assert "Delete" not in said and "step 5" not in said
    with pytest.raises(ValueError, match="being trained"):
        past_runs.delete(recorder.folder)


def test_no_runs_say_what_to_do():
    """In the header, which is all that Watch shows then."""
    assert "Go to Make" in words(watch_page.views(None)["header"])
    assert "No runs yet" in words(past_runs.draw([]))


def test_many_runs_can_be_searched_and_more_than_many_are_counted(monkeypatch):
    folders = [ended(f"cat{number}", FINISHED, picture=False) for number in range(3)]
    monkeypatch.setattr(past_runs, "MANY", 2)
    monkeypatch.setattr(past_runs, "MOST_RUNS", 2)
    drawn = past_runs.draw(story.runs())
    assert drawn["children"][0]["attributes"]["type"] == "search" and len(folders) == 3
    assert "1 older ones" in words(drawn)


def test_the_tab_is_called_as_the_run_goes_and_then_as_it_ended():
    recorder = Recorder(run.create(config.changed(config.TrainConfig(), {"output.name": "cat"})), 200)
    recorder(events.Phase(status="training", text="Training"))
    recorder(events.Step(step=124, total=200, loss=0.1))
    recorder.save()
    told = bar.signal(story.read(recorder.folder), story.runs())
    assert (told["run"], told["title"], told["ended"]) == (recorder.folder.name, "62 % · cat", "")
    time.sleep(0.01)
    recorder(events.Finished(step=200, path=""))
    told = bar.signal(None, story.runs())
    assert told == {"run": "", "title": "", "ended": recorder.folder.name, "end": "✓ cat finished"}
    time.sleep(0.01)
    recorder(events.Failed("It broke."))
    assert bar.signal(None, story.runs())["end"] == "✕ cat failed"
