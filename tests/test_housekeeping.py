"""What is temporary can be taken away, and nothing else is."""

import pytest

from app import housekeeping, housekeeping_part, places
from lora_sd import config, events, run
from lora_sd.recorder import Recorder


@pytest.fixture
def files(home) -> dict[str, bool]:
    """Files of a home by whether they are temporary."""
    found = {
        "cache/latents/a.pt": True,
        "cache/models.json": True,
        "thumbs/a.webp": True,
        "models/loras/.new.safetensors.1.2.tmp": True,
        "models/loras/cat.safetensors": False,
        "projects/cat/images/a.png": False,
        "cache/page/handed-out.safetensors": False,
        "pictures/a.png": False,
    }
    for name in found:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"1234")
    return found


def test_what_is_told_goes_and_all_else_stays(home, files):
    assert housekeeping.temporary().size == 4 * sum(files.values())
    assert housekeeping.remove() == 4 * sum(files.values())
    assert {name: not (home / name).exists() for name in files} == files
    assert housekeeping.temporary().files == [] and places.uploads().is_dir()


def test_a_training_keeps_them(home, files):
    recorder = Recorder(run.create(config.changed(config.TrainConfig(), {"output.name": "tabby"})), 20)
    recorder(events.Phase(status="training", text="Training"))
    with pytest.raises(ValueError, match="tabby is training"):
        housekeeping.remove()
    recorder.close()
    assert all((home / name).exists() for name in files)


def test_it_asks_before_it_removes():
    asked = housekeeping_part.ask()
    assert [b["attributes"]["data-act"] for b in asked["children"][1]["children"]] == ["remove", "keep"]
