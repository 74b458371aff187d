"""How the Make page words what a person changed."""

import pytest

from app import make_view, sheet
from app.project import Choices, open_project


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("preview.seed", 1, "1 instead of 42"),  # and not "on", though 1 is equal to True
        ("lora.conv_rank", 1, "1 instead of 0"),
        ("data.flip", True, "on instead of off"),
        ("model.clip_skip", 2, "2 instead of automatic"),
        ("preview.prompts", ["a", "b"], "a · b instead of nothing"),
    ],
)
def test_a_change_is_told_with_what_was_proposed(home, name, value, words):
    facts = sheet.fill(open_project("cats"), Choices(base="starter", changes={name: value}))
    assert words in str(make_view.draw_changed(facts))
