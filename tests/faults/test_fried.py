"""What tells that a LoRA is burnt, though every number is one: flat previews, a held-out loss above the base model's."""

import pytest
from PIL import Image
from small_runs import config_for, notes

from lora_sd import events
from lora_sd.training.held_out import HeldOut
from lora_sd.training.previews import flat
from lora_sd.training.train import train


@pytest.mark.parametrize("colour", ["black", "white", "#808182"])
def test_a_picture_of_one_colour_is_flat(colour):
    assert flat(Image.new("RGB", (64, 64), colour))


def test_a_picture_with_something_in_it_is_not(starter_picture):
    assert not flat(starter_picture)


@pytest.fixture
def starter_picture():
    from lora_sd.data.folder import find_examples

    return Image.open(find_examples("starter:streamline").examples[0].path).convert("RGB")


def test_a_rate_far_too_high_is_said(pictures):
    """On the starter: a tiny random model has nothing to lose."""
    burning = {
        "optim.learning_rate": 1.0,
        "optim.steps": 3,
        "validate.images": str(pictures),
        "validate.every": 1,
    }
    train(config_for("starter", pictures, **burning))
    said = [note for note in notes() if "over-trained or burnt" in note]
    assert len(said) == 1


def test_a_good_run_is_not_warned_of(tiny_folder, pictures):
    told = []
    train(config_for(tiny_folder("sd15"), pictures, **{"validate.images": str(pictures)}), told.append)
    assert not [e for e in told if isinstance(e, events.Note) and "burnt" in e.text]


def test_without_held_out_pictures_there_is_nothing_to_say(tiny_folder, pictures):
    held_out = HeldOut.__new__(HeldOut)
    held_out.of_base = None
    assert held_out.warning(0, None) == "" and held_out.warning(5, 1.0) == ""
