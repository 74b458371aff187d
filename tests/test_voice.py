import pytest

from lora_sd import events
from lora_sd.training import voice
from lora_sd.training.voice import Stopped, Voice


def test_something_that_does_not_come_is_said_once(monkeypatch):
    told = []
    monkeypatch.setattr(voice, "STALLED", -1.0)
    progress = Voice(told.append, lambda: "").progress("caching", "Preparing picture")
    for done in (0, 1, 1, 1, 1):
        progress(done, 3)
    notes = [event.text for event in told if isinstance(event, events.Note)]
    assert len(notes) == 1 and notes[0].startswith("Preparing picture 2 of 3 takes long")


def test_whoever_asked_to_end_is_heard_while_things_are_counted():
    progress = Voice(lambda event: None, lambda: "stop").progress("caching", "Preparing picture")
    with pytest.raises(Stopped):
        progress(1, 3)
