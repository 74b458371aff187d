"""Whatever Pillow reads arrives upright, in RGB, on white and in its bucket; whatever it does not is named."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lora_sd.data import images
from lora_sd.data.buckets import Fit, fit, nearest


def whole(w: int, h: int) -> Fit:
    return Fit((w, h), (w, h), (0, 0))


@pytest.fixture
def quadrants() -> Image.Image:
    """48 × 32: red, green / blue, black."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24, 0] = pixels[:16, 24:, 1] = pixels[16:, :24, 2] = 255
    return Image.fromarray(pixels)


def test_pixels_are_scaled_to_minus_one_to_one(tmp_path: Path, quadrants):
    quadrants.save(tmp_path / "a.png")
    found = images.load(tmp_path / "a.png", whole(48, 32))
    assert found.shape == (3, 32, 48) and found.dtype == torch.float32
    assert found[:, 0, 0].tolist() == [1, -1, -1] and found[:, 31, 47].tolist() == [-1, -1, -1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_pixels_and_size(tmp_path: Path, quadrants, orientation):
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = quadrants.transpose(inverse[orientation]) if orientation > 1 else quadrants
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    for name in ("a.png", "a.jpg"):
        stored.save(tmp_path / name, exif=exif, quality=100, subsampling=0)
        assert images.check(tmp_path / name) == (48, 32)
        difference = np.asarray(images.rgb(tmp_path / name)).astype(int) - np.asarray(quadrants)
        assert abs(difference).max() <= 3


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_white(tmp_path: Path, mode):
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 4, 8))
    picture.convert(mode).save(tmp_path / "a.png")
    found = images.rgb(tmp_path / "a.png")
    assert found.mode == "RGB"
    assert found.getpixel((0, 0)) == (0, 0, 0) and found.getpixel((7, 0)) == (255, 255, 255)


def test_half_transparent_is_half_white(tmp_path: Path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 128)).save(tmp_path / "a.png")
    assert images.rgb(tmp_path / "a.png").getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_keep_their_tones(tmp_path: Path, suffix):
    ramp = np.tile(np.linspace(0, 65535, 256).round().astype(np.uint16), (4, 1))
    Image.fromarray(ramp).save(tmp_path / f"a.{suffix}")
    assert np.asarray(images.rgb(tmp_path / f"a.{suffix}"))[0, :, 0].tolist() == list(range(256))


@pytest.mark.parametrize(
    ("mode", "name"), [("L", "a.png"), ("1", "a.png"), ("P", "a.gif"), ("CMYK", "a.jpg")]
)
def test_every_mode_becomes_rgb(tmp_path: Path, quadrants, mode, name):
    quadrants.convert(mode).save(tmp_path / name)
    assert images.check(tmp_path / name) == (48, 32)
    assert images.load(tmp_path / name, whole(48, 32)).shape == (3, 32, 48)


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert images.rgb(tmp_path / "a.gif").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(63, 100), (400, 50), (64, 64), (1, 1)])
def test_any_size_fills_its_bucket(tmp_path: Path, size):
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    placed = fit(size, nearest(size, [(64, 128), (128, 64), (96, 96)]))
    found = images.load(tmp_path / "a.png", placed)
    assert found.shape == (3, *placed.bucket[::-1])
    assert found.amax((1, 2)).tolist() == [1, -1, -1]


def test_the_crop_is_the_one_of_the_fit(tmp_path: Path):
    ramp = np.tile(np.arange(100, dtype=np.uint8), (50, 1))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    found = images.load(tmp_path / "a.png", Fit((50, 40), (100, 50), (25, 5)))
    assert (found[0, 0] * 127.5 + 127.5).round().tolist() == list(range(25, 75))


def damaged(kind: str, good: bytes) -> bytes:
    return {"empty": b"", "text": b"this is no picture", "cut": good[: len(good) // 2]}[kind]


@pytest.mark.parametrize("read", [images.check, images.rgb])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("empty", "is empty (0 bytes); export it again or remove it."),
        ("text", "is not a picture that can be read; convert it to PNG or remove it."),
        ("cut", "; replace it or remove it."),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tif"])
def test_what_is_wrong_with_a_file_is_one_sentence(tmp_path: Path, read, kind, said, suffix):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(damaged(kind, path.read_bytes()))
    with pytest.raises(ValueError) as caught:
        read(path)
    assert str(caught.value).startswith(f"a.{suffix} is ")
    assert said in str(caught.value) or (kind == "cut" and "not a picture" in str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [images.check, images.rgb])
def test_a_huge_picture_is_refused_from_its_header(tmp_path: Path, read):
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"no pixels"))]
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    )
    with pytest.raises(
        ValueError, match=r"a\.png has more than 179 megapixels, too many to open safely; make it"
    ):
        read(tmp_path / "a.png")


def test_floating_point_pixels_are_refused(tmp_path: Path):
    Image.new("F", (8, 8), 0.5).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif .*floating-point"):
        images.check(tmp_path / "a.tif")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"a\.png can't be opened \(No such file"):
        images.check(tmp_path / "a.png")


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_is_none_is_upright(tmp_path: Path, quadrants, value):
    exif = Image.Exif()
    exif[images.ORIENTATION] = value
    quadrants.save(tmp_path / "a.jpg", exif=exif)
    assert images.check(tmp_path / "a.jpg") == images.rgb(tmp_path / "a.jpg").size == (48, 32)


def test_damaged_exif_is_upright(tmp_path: Path, quadrants):
    quadrants.save(tmp_path / "a.jpg", exif=b"Exif\0\0garbage" * 20)
    assert images.check(tmp_path / "a.jpg") == images.rgb(tmp_path / "a.jpg").size == (48, 32)


@pytest.mark.filterwarnings("ignore:Image size")  # pytest listens to what the program does not
def test_a_large_picture_is_no_bomb(tmp_path: Path):
    Image.new("1", (12_000, 8_000)).save(tmp_path / "a.png")
    assert images.check(tmp_path / "a.png") == (12_000, 8_000)
