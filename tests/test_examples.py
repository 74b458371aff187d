"""Which pictures a run looks at: those to learn, those to hold out, and those not to forget."""

import doctest
import json
import tomllib
from collections import Counter
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_runs import body, config_for, notes, stop_at

from app import form
from lora_sd import config as cfg
from lora_sd import flags, run
from lora_sd.data.batches import batches
from lora_sd.lora.metadata import inspect
from lora_sd.training import examples
from lora_sd.training.sameness import Changed
from lora_sd.training.train import resume, train


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


FOLDER = {"path": "more", "repeats": 3, "weight": 0.5, "trigger": "dog_x", "prefix": "photo of", "flip": True}


def test_several_folders_have_settings_of_their_own(pictures, class_pictures):
    more = {**FOLDER, "path": str(class_pictures)}
    train_on, _, _ = found(pictures, **{"data.folders": [more, str(pictures)], "data.trigger": "mycat"})
    first, second, third = train_on[:3], train_on[3:8], train_on[8:]
    assert {(e.repeats, e.weight, e.flip, e.wording.prefix) for e in first + third} == {(1, 1.0, False, "")}
    assert {(e.repeats, e.weight, e.flip, e.wording.prefix) for e in second} == {(3, 0.5, True, "photo of")}
    assert all("mycat" in e.caption for e in first) and all("dog_x" in e.caption for e in second)
    alone, _, _ = found("", **{"data.folders": [more]})
    assert alone == second


def test_folders_have_masks_of_their_own(pictures, class_pictures, tmp_path):
    (tmp_path / "masks").mkdir()
    Image.new("L", (128, 128), 255).save(tmp_path / "masks" / "c1.png")
    more = {"path": str(class_pictures), "masks": str(tmp_path / "masks"), "trigger": "x"}
    train_on, _, _ = found(pictures, **{"data.folders": [more]})
    assert [e.path.name for e in train_on if e.mask] == ["c1.png"]


def test_folders_survive_toml_flags_and_the_form_and_are_relative_to_their_file(tmp_path):
    folders = [FOLDER, "C:\\cats {1}", "starter:streamline"]
    config = cfg.changed(cfg.TrainConfig(), {"data.folders": folders})
    assert cfg.parse(tomllib.loads(cfg.dumps(config))) == config
    assert flags.parse(flags.command(config), cfg.TrainConfig()) == config
    shown = form.show({"data.folders": config.data.folders})
    assert form.config(form.read(shown)) == config
    assert eval(repr(config.data.folders)) == list(map(str, config.data.folders))
    (tmp_path / "run.toml").write_text('[[data.folders]]\npath = "cats"\nmasks = "m"\nrepeats = 2\n')
    [one] = cfg.load(tmp_path / "run.toml").data.folders
    assert (one.path, one.masks, one.repeats) == (str(tmp_path / "cats"), str(tmp_path / "m"), 2)


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [
        ({"path": "a", "repeats": 0}, "data.folders.0.repeats is 0; it must be at least 1."),
        ({"path": "a", "rpeats": 2}, "There is no setting 'data.folders.0.rpeats'"),
        ('{"path": ', "write a path, or JSON like"),
        ({"repeats": 2}, "data.folders.0.path is"),
        (7, "data.folders.0 is 7"),
    ],
)
def test_a_wrong_folder_is_one_sentence(folder, sentence):
    with pytest.raises(ValueError) as caught:
        cfg.changed(cfg.TrainConfig(), {"data.folders": [folder]})
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_of_two_folders_goes_on_wherever_they_lie_and_not_worded_otherwise(
    tiny_folder, pictures, class_pictures, tmp_path
):
    more = {**FOLDER, "path": str(class_pictures), "repeats": 1}
    config = config_for(tiny_folder("sd15"), pictures, **{"data.folders": [more]})
    whole = train(config)
    train(config, stop_at(2))
    folder = run.list_runs()[0].folder
    more["path"] = str(class_pictures.rename(tmp_path / "elsewhere"))
    with pytest.raises(Changed, match=r"data\.folders was .*photo of"):
        resume(folder, changes={"data.folders": [{**more, "prefix": "a"}]})
    assert body(resume(folder, changes={"data.folders": [more]})) == body(whole)


@pytest.mark.parametrize("count, words", [(1, "one picture"), (4, "only 4 pictures"), (5, None)])
def test_too_few_pictures_are_told(tmp_path, count, words):
    for index in range(count):
        Image.new("RGB", (64, 64), (index, 0, 0)).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(f"cat {index}")
    said = found(tmp_path)[2]
    assert [note for note in said if "pictures do better" in note] == [
        note for note in said if words and words in note
    ]
    assert bool(words) == bool(said)


def test_pictures_that_all_have_one_caption_are_told(tmp_path):
    for index in range(6):
        Image.new("RGB", (64, 64), (index, 0, 0)).save(tmp_path / f"{index}.png")
    assert any("same caption, 'mycat'" in note for note in found(tmp_path, **{"data.trigger": "mycat"})[2])
    (tmp_path / "0.txt").write_text("mycat on a chair")
    assert not any("same caption" in note for note in found(tmp_path, **{"data.trigger": "mycat"})[2])
