import pytest

from lora_sd import events

EXAMPLES = [
    events.Phase("caching", "Preparing picture", 3, 24),
    events.Step(step=3, total=10, loss=0.5, learning_rate=1e-4, seconds=0.25, memory=1),
    events.Preview(step=3, prompt='a "cat"\nwith ünïcode', index=0, path="previews/000003-0.png"),
    events.Saved(step=3, path="checkpoints/a.safetensors", modules={"unet": 192}),
    events.Note("all is well"),
    events.Failed("no", "Traceback …"),
    events.Finished(step=3, path="checkpoints/a.safetensors"),
]


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda e: e.kind)
def test_every_event_survives_its_line(event):
    line = events.to_line(event)
    assert "\n" not in line and events.from_line(line) == event


def test_fields_of_later_versions_are_passed_over():
    assert events.from_line('{"kind": "note", "text": "a", "t": 1.0, "new": 2}') == events.Note("a", t=1.0)
