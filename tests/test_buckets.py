"""Bucket lists, choices and crops: a table measured on another trainer, and what must hold for any size."""

import doctest
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_sd.data import buckets
from lora_sd.data.buckets import Fit, Rules, fit, fits, make_buckets, nearest, step_for

SD = make_buckets(512, step=64)
XL = make_buckets(1024, step=64, smallest=256, largest=2048)
STARTER = make_buckets(128, step=16)
sizes = st.tuples(st.integers(1, 20_000), st.integers(1, 20_000))
lists = st.sampled_from([SD, XL, STARTER])


def test_docstrings_are_true():
    assert doctest.testmod(buckets).failed == 0


@pytest.mark.parametrize(
    ("resolution", "step", "smallest", "largest", "count"),
    [
        (512, 64, 256, 1024, 17),
        (768, 64, 256, 1024, 19),
        (1024, 64, 256, 2048, 41),
        (1024, 32, 256, 2048, 81),
    ],
)
def test_lists_have_the_members_of_sd_scripts(resolution, step, smallest, largest, count):
    found = make_buckets(resolution, step=step, smallest=smallest, largest=largest)
    assert len(found) == len(set(found)) == count
    assert {(h, w) for w, h in found} == set(found)


def test_512_is_the_known_list():
    portraits = [
        (256, 832),
        (256, 896),
        (256, 960),
        (256, 1024),
        (320, 704),
        (320, 768),
        (384, 640),
        (448, 576),
    ]
    assert make_buckets(512, step=64) == sorted([*portraits, (512, 512), *((h, w) for w, h in portraits)])


@pytest.mark.parametrize(
    ("found", "size", "expected"),
    [  # measured on sd-scripts 0.10.1, but for 400 × 585, where |log ratio| differs
        (SD, (1920, 1080), Fit((640, 384), (683, 384), (21, 0))),
        (SD, (3000, 2000), Fit((640, 384), (640, 427), (0, 21))),
        (SD, (585, 400), Fit((576, 448), (655, 448), (39, 0))),
        (SD, (400, 585), Fit((448, 576), (448, 655), (0, 39))),
        (SD, (4000, 500), Fit((1024, 256), (2048, 256), (512, 0))),
        (XL, (1920, 1080), Fit((1344, 768), (1365, 768), (10, 0))),
        (XL, (2000, 1500), Fit((1152, 896), (1195, 896), (21, 0))),
    ],
)
def test_fits_are_the_measured_ones(found, size, expected):
    assert fit(size, nearest(size, found)) == expected


@given(sizes, lists)
def test_every_picture_covers_a_whole_bucket(size, found):
    placed = fit(size, nearest(size, found))
    (w, h), (left, top) = placed.resized, placed.crop
    assert placed.bucket in found and min(placed.bucket) > 0
    assert 0 <= left <= w - placed.bucket[0] and 0 <= top <= h - placed.bucket[1]
    assert w == placed.bucket[0] or h == placed.bucket[1]
    assert 0 <= placed.cropped_away < 1


@given(sizes, lists)
def test_mirrored_pictures_get_mirrored_fits(size, found):
    placed, mirrored = (fit(s, nearest(s, found)) for s in (size, size[::-1]))
    assert mirrored == Fit(*(pair[::-1] for pair in placed))


@given(sizes, lists)
def test_no_bucket_is_nearer_by_log_ratio(size, found):
    def distance(bucket):
        return abs(log(bucket[0] / bucket[1]) - log(size[0] / size[1]))

    if size not in found:
        assert distance(nearest(size, found)) <= min(map(distance, found)) + 1e-9


@given(lists.flatmap(st.sampled_from))
def test_a_picture_of_a_buckets_size_is_left_as_it_is(bucket):
    found = SD if bucket in SD else XL if bucket in XL else STARTER
    assert fit(bucket, nearest(bucket, found)) == Fit(bucket, bucket, (0, 0))


@given(st.integers(64, 2048), st.sampled_from([32, 64]))
def test_any_resolution_has_buckets_within_its_limits(resolution, family_step):
    step = step_for(resolution, family_step)
    found = make_buckets(resolution, step=step)
    assert all(
        side % step == 0 and resolution // 2 <= side <= 2 * resolution for size in found for side in size
    )
    assert all(w * h <= resolution**2 for w, h in found)
    assert step % 8 == 0 and len(found) > 6


def test_a_resolution_below_its_step_is_refused():
    with pytest.raises(
        ValueError, match="The resolution is 60; with sides in steps of 64 it must be between 64 and"
    ):
        make_buckets(60, step=64)


def test_size_conditions_tell_the_crop_that_was_applied():
    placed = fit((1920, 1080), (640, 384))
    assert placed.time_ids((1920, 1080)) == (1080, 1920, 0, 21, 384, 640)


def test_notes_name_enlarged_and_much_cropped_pictures():
    pictures = {"tiny.png": (63, 100), "banner.png": (4000, 500), "fine.png": (1000, 1000)}
    enlarged, cropped = sorted(
        buckets.notes((name, size, fit(size, nearest(size, SD))) for name, size in pictures.items())
    )
    assert enlarged.startswith("Smaller") and "tiny.png (63×100)" in enlarged and "fine" not in enlarged
    assert cropped.startswith("banner.png is 4000×500 and trains as 1024×256: 50% of it is cropped away.")


def chosen(size, **rules):
    [found] = fits([size], 512, 64, Rules(**rules))
    return found


sides = st.integers(64, 3000)


@given(sides, sides)
def test_without_rules_a_picture_is_fitted_as_ever(w, h):
    assert chosen((w, h)) == fit((w, h), nearest((w, h), make_buckets(512, step=64)))


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((300, 300), (256, 256)),
        ((600, 400), (576, 384)),
        ((1920, 1080), (640, 384)),
        ((4000, 500), (1024, 256)),
    ],
)
def test_a_small_picture_that_is_not_enlarged_has_the_bucket_of_sd_scripts(size, bucket):
    """But for 4000×500: sd-scripts makes it 1024×128, below its smallest side."""
    found = chosen(size, enlarge=False)
    assert found.bucket == bucket and all(a <= b for a, b in zip(found.resized, size, strict=True))


@given(sides, sides)
def test_nothing_is_enlarged_that_is_as_large_as_the_smallest_bucket(w, h):
    found = chosen((w, h), enlarge=False)
    assert all(256 <= side <= 1024 and side % 64 == 0 for side in found.bucket)
    if min(w, h) >= 256:
        assert found.resized[0] <= w and found.resized[1] <= h


@given(sides, sides)
def test_step_and_sides_are_kept_and_without_shapes_all_is_square(w, h):
    found = chosen((w, h), step=32, smallest=384, largest=640)
    assert all(384 <= side <= 640 and side % 32 == 0 for side in found.bucket)
    assert chosen((w, h), shapes=False, enlarge=False).bucket == (512, 512)


def test_sides_that_leave_no_size_are_a_sentence():
    with pytest.raises(ValueError, match="The resolution is 512; with sides in steps of 64"):
        chosen((600, 400), smallest=640)
