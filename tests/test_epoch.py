"""The page counts, from names and headers, what training counts."""

import pytest
from PIL import Image

from app import epoch, plan
from lora_sd import config as cfg
from lora_sd import length
from lora_sd.data import buckets
from lora_sd.data.buckets import Rules
from lora_sd.models import family
from lora_sd.training import examples

SIZES = [(600, 400)] * 5 + [(400, 600)] * 3 + [(512, 512)] * 2


@pytest.fixture
def folder(tmp_path):
    for place in (tmp_path / "mine", tmp_path / "mine" / "3_often", tmp_path / "more"):
        place.mkdir()
        for number, size in enumerate(SIZES):
            picture = Image.new("RGB", size, "red")
            exif = picture.getexif()
            exif[0x0112] = 6 if number == 0 else 1  # a phone held upright
            picture.save(place / f"{number}.jpg", exif=exif)
    return tmp_path


def counted(config, root):
    pictures = sorted(root.rglob("*.jpg"))
    return epoch.length_of(config, pictures, root, side=512, bucket_step=64)


@pytest.mark.parametrize(
    "settings",
    [
        {"optim.epochs": 3},
        {"optim.images_seen": 500, "optim.batch_size": 4, "optim.accumulation": 3},
        {"optim.epochs": 2, "optim.batch_size": 4, "data.buckets": False},
        {"optim.epochs": 2, "optim.batch_size": 2, "data.repeats": {"0.jpg": 0, "5.jpg": 4, "3_often/*": 2}},
        {"optim.steps": 77, "optim.batch_size": 3, "data.folders": 2},
        {"optim.epochs": 2, "optim.batch_size": 4, "data.regularisation": "more"},
    ],
)
def test_it_is_what_training_counts(folder, settings):
    if "data.folders" in settings:
        settings = settings | {"data.folders": [{"path": str(folder / "more"), "repeats": 2}]}
    if "data.regularisation" in settings:
        settings = settings | {
            "data.regularisation": str(folder / "more"),
            "data.regularisation_caption": "a square",
        }
    changes = {"data.images": str(folder / "mine"), "data.trigger": "sks"} | settings
    config = cfg.changed(cfg.TrainConfig(), changes)
    found, _ = examples.find(config.data, config.captions, config.validate, 1, on_note=lambda note: None)
    rules = Rules(shapes=config.data.buckets)
    fits = buckets.fits([example.size for example in found], 512, 64, rules)
    batches = buckets.batches_per_epoch(
        [f.bucket for f in fits], [e.repeats for e in found], config.optim.batch_size
    )
    shown = sum(example.repeats for example in found if not example.prior)
    expected = length.Epoch(
        pictures=sum(not example.prior for example in found),
        shown=shown,
        prior=sum(example.repeats for example in found if example.prior),
        batches=batches,
        batch_size=config.optim.batch_size,
        accumulation=config.optim.accumulation,
    )
    mine = counted(config, folder / "mine")
    assert mine.sentence.removeprefix("about ") == length.sentence(config.optim, expected)
    assert mine.steps == length.total(config.optim, expected)


def test_a_share_that_is_held_out_is_taken_off(folder):
    config = cfg.changed(cfg.TrainConfig(), {"validate.split": 0.25, "optim.epochs": 1})
    assert counted(config, folder / "mine").sentence.startswith("about 15 pictures")


def test_without_pictures_there_is_nothing_to_count(folder):
    (folder / "mine" / "broken.jpg").write_text("no picture")
    assert (
        epoch.length_of(
            cfg.TrainConfig(), [folder / "mine" / "broken.jpg"], folder / "mine", side=512, bucket_step=64
        )
        is None
    )


def test_the_steps_of_buckets_are_those_of_the_families():
    for one in (family.SD15, family.SD2, family.SDXL):
        assert plan.BUCKET_STEPS.get(one.name, 64) == one.bucket_step


def test_a_length_in_epochs_is_told_with_its_arithmetic_and_takes_the_place_of_the_proposal(folder):
    from app import sheet
    from app.project import Choices, open_project

    project = open_project("cats")
    project.add([folder / "more"])
    facts = sheet.fill(
        project, Choices(base="starter", trigger="sks", changes={"optim.epochs": 10, "optim.steps": None})
    )
    [line] = [line for line in facts.lines() if line.what == "Length"]
    assert line.value == "30 steps"
    assert line.why.endswith("10 epochs = 30 steps")
    assert facts.config().optim.steps is None and facts.obstacle() == ""
    both = sheet.fill(
        project, Choices(base="starter", trigger="sks", changes={"optim.epochs": 10, "optim.steps": 7})
    )
    assert "a run has one length" in both.obstacle()


def test_an_unusual_rate_is_a_line_that_warns(folder):
    from app import sheet
    from app.project import Choices, open_project

    project = open_project("cats")
    project.add([folder / "more"])
    facts = sheet.fill(project, Choices(base="starter", trigger="sks", changes={"optim.learning_rate": 1.0}))
    assert facts.lines()[-1].warning and "may burn" in facts.lines()[-1].why
