"""What strangers call things is safe to ask the system about, and to read in a sentence."""

import doctest
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_sd import paths

ANY = st.text(st.characters(exclude_categories=[]), max_size=400)


def test_the_examples_in_it_hold():
    assert doctest.testmod(paths).failed == 0


@given(ANY)
def test_what_is_typed_can_be_asked_about_or_is_refused(text):
    try:
        path = paths.typed(text, "The folder")
    except ValueError as error:
        assert str(error).startswith("The folder is ") and str(error).isprintable()
        return
    path.exists()


@given(ANY)
def test_what_is_shown_is_on_one_line_and_text(text):
    shown = paths.shown(text)
    assert shown.isprintable() and paths.is_text(shown) and len(shown) <= 301


def test_home_is_opened(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert paths.typed("~/cats", "The folder") == Path("/somewhere/cats")


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"\xff"])
def test_bytes_that_are_no_UTF_8_are_no_text(name):
    assert not paths.is_text(os.fsdecode(name)) and paths.is_text("café.png")
