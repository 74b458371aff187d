"""Curves that are read back are those of events.jsonl."""

import sys

import numpy as np
import pytest
from PIL import Image
from small_runs import at_calls, config_for, notes, told

from lora_sd import config as cfg
from lora_sd import events, run
from lora_sd.training import trackers
from lora_sd.training.train import resume, train


def curves(folder):
    """{name: {step: value}} as tensorboard shows them, and its pictures as {name: {step: PNG}}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(
        str(folder / "tensorboard" / folder.name), size_guidance={"images": 0, "scalars": 0}
    )
    read.Reload()
    tags = read.Tags()
    scalars = {tag: {e.step: e.value for e in read.Scalars(tag)} for tag in tags["scalars"]}
    assert all(len(read.Scalars(tag)) == len(found) for tag, found in scalars.items())  # none twice
    return scalars, {
        tag: {e.step: e.encoded_image_string for e in read.Images(tag)} for tag in tags["images"]
    }


def newest_steps(folder):
    """The last that was told of each step."""
    return {event.step: event for event in told(folder) if isinstance(event, events.Step)}


def of(steps, name):
    found = {number: getattr(event, name) for number, event in steps.items()}
    return pytest.approx({number: value for number, value in found.items() if value is not None}, rel=1e-6)


SETTINGS = {
    "output.trackers": ["tensorboard"],
    "optim.steps": 6,
    "optim.schedule": "linear",
    "lora.text_encoders": True,
    "optim.text_encoder_rate": [5e-3],
    "validate.split": 0.3,
    "validate.every": 2,
    "preview.every": 3,
    "preview.steps": 1,
    "preview.prompts": ["a cat"],
    "save.state_every": 2,
}


def test_tensorboard_shows_what_the_events_tell_also_after_a_kill_and_a_resume(tiny_folder, pictures):
    config = config_for(tiny_folder("sd15"), pictures, **SETTINGS)

    def die(event):
        if isinstance(event, events.Step) and event.step == 5:
            raise SystemExit  # no state of step 5 is written; the run goes on from step 4

    with pytest.raises(SystemExit):
        train(config, die)
    folder = run.list_runs()[0].folder
    resume(folder)
    steps, (scalars, images) = newest_steps(folder), curves(folder)
    assert [e.step for e in told(folder) if isinstance(e, events.Step)] == [0, 1, 2, 3, 4, 5, 5, 6]
    assert scalars["loss/train"] == of(steps, "loss") and scalars["loss/held_out"] == of(steps, "held_out")
    assert scalars["rate/unet"] == of(steps, "learning_rate")
    assert scalars["norm/gradient"] == of(steps, "gradient_norm")
    halves = {step: rate / 2 for step, rate in scalars["rate/unet"].items()}
    assert scalars["rate/text_encoders"] == pytest.approx(halves)
    [(name, shown)] = images.items()
    assert name == "previews/0 a cat" and sorted(shown) == [0, 3, 6]
    (folder / "back.png").write_bytes(shown[6])
    with Image.open(folder / "back.png") as back:
        assert np.array_equal(np.asarray(back), trackers.pixels(folder / "previews" / "000006-0.png"))


def test_going_back_to_a_good_state_hides_the_steps_that_were_given_up(tiny_folder, pictures, monkeypatch):
    at_calls(monkeypatch, range(4, 7), lambda losses: losses * float("nan"))
    changes = {"output.trackers": ["tensorboard"], "optim.steps": 7, "save.state_every": 2}
    changes |= {"preview.every": 7, "preview.steps": 1, "preview.prompts": ["a cat"]}
    train(config_for(tiny_folder("sd15"), pictures, **changes))
    folder = run.list_runs()[0].folder
    assert any("Going back to step 2" in note for note in notes(folder))
    scalars, images = curves(folder)
    assert scalars["loss/train"] == of(newest_steps(folder), "loss")
    assert sorted(images["previews/0 a cat"]) == [0, 7]


class Breaks:
    def log(self, values, step):
        if step == 2:
            raise OSError("the network is away, and the key is sesame")

    def show(self, name, picture, step): ...

    def close(self):
        raise AssertionError("it was left alone")


def test_a_tracker_that_fails_is_told_of_once_and_stops_nothing(tiny_folder, pictures, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "sesame")
    monkeypatch.setattr(trackers, "Tensorboard", lambda folder: Breaks())
    train(config_for(tiny_folder("sd15"), pictures, **{"output.trackers": ["tensorboard"]}))
    [note] = [note for note in notes() if "tensorboard" in note]
    assert note == (
        "tensorboard failed (the network is away, and the key is …) and hears no more of this run; the training goes on."
    )
    assert run.read_state(run.list_runs()[0].folder).status == "finished"


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_package_that_is_missing_is_a_sentence_before_anything_is_loaded(
    tiny_folder, tmp_path, monkeypatch, name
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=rf"{name}, which is not installed.*pip install {name}"):
        train(config_for("nowhere", tmp_path / "no pictures", **{"output.trackers": [name]}))
    assert run.read_state(run.list_runs()[0].folder).status == "failed"


class FakeRun:
    """What of a run of Weights & Biases is used here: a history of steps that go up."""

    step = 0

    def __init__(self):
        self.history = []

    def log(self, values, step):
        assert not self.history or step >= self.history[-1][0]
        self.history.append((step, values))
        FakeRun.step = step + 1

    def finish(self): ...


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package, which is large and no part of the tests' environment."""
    from types import SimpleNamespace

    monkeypatch.setattr(FakeRun, "step", 0)
    fake = SimpleNamespace(
        Settings=lambda **options: options, Image=lambda array: array.shape, begun=[], __spec__=None
    )

    def init(**options):
        fake.begun.append((options, FakeRun()))
        return fake.begun[-1][1]

    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_hears_every_step_once_and_no_place_of_this_computer(tiny_folder, pictures, wandb):
    config = config_for(tiny_folder("sd15"), pictures, **SETTINGS, **{"output.name": "cat"})
    config = cfg.changed(config, {"output.trackers": ["wandb"]})

    def die(event):
        if isinstance(event, events.Step) and event.step == 5:
            raise SystemExit

    with pytest.raises(SystemExit):
        train(config, die)
    folder = run.list_runs()[0].folder
    resume(folder)
    (first, one), (second, other) = wandb.begun
    assert first["id"] == second["id"] and (first["project"], first["name"]) == ("lora_sd", folder.name)
    assert first["resume"] == "allow" and first["settings"]["console"] == "off"
    assert first["config"]["optim.steps"] == "6" and not any(
        str(pictures) in v for v in first["config"].values()
    )
    told_of = [step for step, values in one.history + other.history if "loss/train" in values]
    assert told_of == [1, 2, 3, 4, 5, 6]  # 5 twice in the events, the same both times
    shown = [step for step, values in one.history + other.history if "previews/0 a cat" in values]
    assert shown == [0, 3, 6]
