"""A caption is written so that training reads it back, one file a picture, and a person's other files stay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app import captions
from app.project import open_project
from lora_sd.data.folder import find_examples


@pytest.fixture
def project():
    mine = open_project("cats")
    mine.images.mkdir(parents=True)
    return mine


def picture(project, name):
    path = project.images / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16)).save(path)
    return path


def names(project):
    return sorted(path.name for path in project.images.rglob("*") if path.suffix != ".png")


HARD = ["${1+1} <b>x</b> C:\\new \"q\" 'q' `a`", "Käse 日本 😀", "a\nb", "{a|b} |||, (x:1.2)"]


@pytest.mark.parametrize("text", HARD)
def test_training_reads_what_was_written(project, text):
    path = picture(project, "sub/a.png")
    captions.write(path, captions.cleaned(text))
    assert captions.read(project, [path]) == {path: text}
    [example] = find_examples(project.images, lines=True).examples
    assert example.caption == text
    assert names(project) == ["a.txt", "sub"]


@given(st.text(max_size=200))
def test_any_text_comes_back_as_it_was_cleaned(text):
    mine = open_project("any")
    mine.images.mkdir(parents=True, exist_ok=True)
    path = mine.images / "a.png"
    path.exists() or Image.new("RGB", (8, 8)).save(path)
    cleaned = captions.cleaned(text)
    captions.write(path, cleaned)
    assert captions.read(mine, [path]).get(path, "") == cleaned == captions.cleaned(cleaned)


def test_an_empty_caption_takes_its_file_away(project):
    path = picture(project, "a.png")
    captions.write(path, "words")
    captions.write(path, "")
    assert captions.read(project, [path]) == {} and names(project) == []


def test_an_empty_caption_hides_those_of_other_files(project):
    path = picture(project, "a.png")
    (project.images / "a.caption").write_text("old")
    captions.write(path, "")
    assert captions.read(project, [path]) == {path: ""}
    captions.write(path, "new")
    assert captions.read(project, [path]) == {path: "new"}
    assert names(project) == ["a.caption", "a.txt"]


def test_pictures_of_one_name_have_captions_of_their_own(project):
    one, two = picture(project, "a.png"), picture(project, "a.webp")
    (project.images / "a.txt").write_text("shared")
    captions.write(one, "mine")
    assert captions.read(project, [one, two]) == {one: "mine", two: "shared"}
    captions.write(two, "")
    assert captions.read(project, [one, two]) == {one: "mine"}
    assert project.captioned() == 1


def test_a_caption_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="20,001 letters"):
        captions.cleaned("a" * 20_001)
