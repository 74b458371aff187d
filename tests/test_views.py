"""What is seen of a picture: mirrored and cropped elsewhere, drawn anew each time it is shown, cached all the same."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import body, config_for, stop_at

from lora_sd import run
from lora_sd.data import images
from lora_sd.data.batches import collate
from lora_sd.data.buckets import fit
from lora_sd.data.cache import LatentCache
from lora_sd.data.folder import Example, find_examples
from lora_sd.lora.metadata import inspect
from lora_sd.training.prepare import Dataset
from lora_sd.training.train import train

sides = st.integers(64, 3000)


def test_the_crop_of_a_mirrored_picture_is_told_where_it_lies_in_that():
    """2000×1500 covers 1024² as 1365×1024: 170 pixels are cut off at the left of it, 171 of its mirror image."""
    square = fit((2000, 1500), (1024, 1024))
    assert square.time_ids((2000, 1500))[2:4] == (0, 170)
    assert square.mirrored().time_ids((2000, 1500)) == (1500, 2000, 0, 171, 1024, 1024)


@given(sides, sides, st.integers(0, 99))
def test_a_crop_elsewhere_lies_in_the_picture(w, h, seed):
    middle = fit((w, h), (128, 96))
    found = middle.elsewhere(random.Random(seed))
    assert (found.bucket, found.resized) == (middle.bucket, middle.resized)
    assert all(0 <= a <= b - c for a, b, c in zip(found.crop, found.resized, found.bucket, strict=True))
    assert middle.mirrored().mirrored() == middle


def test_a_mirrored_picture_is_encoded_by_itself(tiny_models, pictures, tmp_path):
    vae = tiny_models("sdxl").vae
    [_, example, _] = find_examples(pictures).examples
    placed = fit(example.size, (128, 96))
    cache = LatentCache(tmp_path, vae)
    mirrored = replace(example, flipped=True)
    mean, _ = cache.load(mirrored, placed)
    pixels = images.load(example.path, placed).flip(-1)[None]
    with torch.no_grad():
        assert torch.equal(mean, vae.encode(pixels).latent_dist.mean[0] * vae.config.scaling_factor)
    assert not torch.equal(cache.load(example, placed)[0], mean)
    batch = collate([(mirrored, placed)], cache)
    assert batch.sizes.tolist() == [list(placed.mirrored().time_ids(example.size))]


def test_every_view_is_seen_as_often_and_a_picture_that_fills_its_bucket_has_one(tmp_path):
    examples = [
        Example(tmp_path / "wide.png", "", (300, 100), flip=True),
        Example(tmp_path / "square.png", "", (64, 64)),
    ]
    data = Dataset(examples, [fit(e.size, (64, 64)) for e in examples], None, seed=3, crops=3)
    assert len(data.views(0)) == 6 and len(data.views(1)) == 1
    assert data.views(0)[0] == (examples[0], data.fits[0])
    seen = Counter((e.flipped, placed) for e, placed in (data.view(0, shown) for shown in range(3000)))
    assert len(seen) == 6 and all(count == pytest.approx(500, abs=100) for count in seen.values())
    assert data.view(0, None) == data.views(0)[0]
    again = Dataset(examples, data.fits, None, seed=3, crops=3)
    assert [again.view(0, shown) for shown in range(50)] == [data.view(0, shown) for shown in range(50)]


def test_with_mirrors_and_crops_4_steps_are_2_and_2_bit_for_bit(tiny_folder, pictures):
    changes = {"data.flip": True, "data.crops": 2, "captions.shuffle": True, "captions.dropout": 0.2}
    config = config_for(tiny_folder("sd15"), pictures, **{"optim.steps": 4, **changes})
    whole = train(config)
    train(config, stop_at(2))
    assert body(train(config, folder=run.list_runs()[0].folder)) == body(whole)
    assert body(train(config_for(tiny_folder("sd15"), pictures, **{"optim.steps": 4}))) != body(whole)
    told = inspect(whole).metadata
    assert told["ss_flip_aug"] == told["ss_random_crop"] == "True"
