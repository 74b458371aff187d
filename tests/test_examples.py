"""Which pictures a run looks at: those to learn, those to hold out, and those not to forget."""

import doctest
import json
from collections import Counter
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_runs import body, config_for, notes, stop_at

from lora_sd import config as cfg
from lora_sd import run
from lora_sd.data.batches import batches
from lora_sd.lora.metadata import inspect
from lora_sd.training import examples
from lora_sd.training.train import train


@pytest.fixture
def class_pictures(tmp_path):
    """Five pictures of the class, two of them with captions of their own."""
    folder = tmp_path / "class"
    folder.mkdir()
    for index in range(5):
        noise = torch.randint(0, 256, (128, 128, 3), generator=torch.Generator().manual_seed(90 + index))
        Image.fromarray(noise.to(torch.uint8).numpy()).save(folder / f"c{index}.png")
    (folder / "c0.txt").write_text("a cat, sitting")
    (folder / "c1.txt").write_text("sleeping")
    return folder


def found(pictures, **changes):
    config = cfg.changed(cfg.TrainConfig(), {"data.images": str(pictures), **changes})
    said = []
    return *examples.find(config.data, config.captions, config.validate, 1, on_note=said.append), said


def test_docstrings_are_true():
    assert doctest.testmod(examples).failed == 0


@given(st.integers(0, 500), st.integers(1, 99))
def test_sharing_out_makes_what_is_wanted_evenly(wanted, count):
    shares = examples.shared_out(wanted, count)
    assert sum(shares) == wanted and max(shares) - min(shares) <= 1


def test_an_epoch_has_as_many_pictures_of_the_class_as_of_the_subject(pictures, class_pictures):
    changes = {
        "data.regularisation": str(class_pictures),
        "data.regularisation_caption": "a cat",
        "data.regularisation_weight": 0.5,
        "data.trigger": "mycat",
        "captions.shuffle": True,
        "captions.prefix": "photo of",
        "data.flip": True,
    }
    train_on, apart, said = found(pictures, **changes)
    prior = [example for example in train_on if example.prior]
    assert sum(e.repeats for e in prior) == 3 == len(train_on) - len(prior) and not apart
    assert {e.weight for e in prior} == {0.5} and not any(e.flip or e.wording.varies("a, b") for e in prior)
    assert all("mycat" not in e.caption and "a cat" in e.caption for e in prior)
    assert "Beside 3 pictures an epoch has as many for regularisation: 3 of 5" in said[-1]
    order = batches(0, [(64, 64)] * len(train_on), [e.repeats for e in train_on], 1)
    counts = Counter(train_on[index].prior for [index], _ in islice(order, 6))
    assert counts == {True: 3, False: 3}


def test_few_pictures_of_the_class_are_shown_more_often(pictures, class_pictures):
    changes = {"data.regularisation": str(pictures), "data.images": str(class_pictures), "data.trigger": "x"}
    train_on, _, _ = found(pictures, **changes)
    assert sorted(e.repeats for e in train_on if e.prior) == [1, 2, 2]


def test_pictures_of_the_class_without_captions_ask_for_their_own_setting(pictures, class_pictures):
    with pytest.raises(ValueError, match=r"2 of 5 pictures have captions.*data\.regularisation_caption"):
        found(pictures, **{"data.regularisation": str(class_pictures)})


def test_a_run_with_pictures_of_the_class_goes_on_bit_for_bit(tiny_folder, pictures, class_pictures):
    changes = {"data.regularisation": str(class_pictures), "data.regularisation_caption": "a cat"}
    changes |= {"data.buckets": False, "data.bucket_step": 32}
    config = config_for(tiny_folder("sd15"), pictures, **changes)
    whole = train(config)
    train(config, stop_at(2))
    assert body(train(config, folder=run.list_runs()[0].folder)) == body(whole)
    told = inspect(whole).metadata
    assert (told["ss_num_reg_images"], told["ss_num_train_images"]) == ("3", "3")
    assert json.loads(told["ss_tag_frequency"]).keys() == {"pictures"}
    assert [b["resolution"] for b in json.loads(told["ss_bucket_info"])["buckets"].values()] == [[128, 128]]
    assert any("for regularisation" in note for note in notes())
