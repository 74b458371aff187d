"""What is told of a picture is what its pixels are, not how its file was saved."""

import doctest
import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from lora_sd.data import health


def scene(seed: int, size=(480, 360)) -> Image.Image:
    """Something like a photograph: soft areas with edges on them."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 256, (7, 7, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    spots = Image.fromarray(rng.integers(0, 2, (30, 40), np.uint8) * 255).resize(
        size, Image.Resampling.NEAREST
    )
    return Image.composite(ImageEnhance.Brightness(soft).enhance(0.7), soft, spots)


def saved(picture: Image.Image, quality: int) -> Image.Image:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=quality)
    return Image.open(data)


SAME = {
    "saved as JPEG": lambda picture: saved(picture, 40),
    "reduced": lambda picture: picture.resize((200, 150), Image.Resampling.LANCZOS),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.1),
    "greyscale": lambda picture: picture.convert("L"),
}


def test_docstrings_are_true():
    assert doctest.testmod(health).failed == 0


def test_the_cosine_transform_is_the_fourier_transform_of_the_values_and_their_mirror_image():
    values = np.random.default_rng(0).normal(size=32)
    mirrored = np.fft.fft([*values, *values[::-1]])[:32]
    assert np.allclose(
        2 * health._cosines() @ values, (mirrored * np.exp(-1j * np.pi * np.arange(32) / 64)).real
    )


@pytest.mark.parametrize("name", SAME)
def test_the_same_picture_saved_otherwise_is_found(name):
    for seed in range(10):
        prints = [health.fingerprint(picture) for picture in (scene(seed), SAME[name](scene(seed)))]
        assert health.alike(prints) == [[0, 1]]


def test_other_pictures_are_not():
    assert health.alike([health.fingerprint(scene(seed)) for seed in range(100)]) == []


def test_a_blurred_picture_is_told_from_a_sharp_one():
    for seed in range(5):
        assert health.sharpness(scene(seed)) > health.BLURRED
        assert health.sharpness(scene(seed).filter(ImageFilter.GaussianBlur(6))) < health.BLURRED


def test_a_picture_of_one_pixel_has_no_edges():
    assert health.sharpness(Image.new("RGB", (1, 1))) == 0
    assert health.fingerprint(Image.new("RGB", (1, 1), "red")) == 0
