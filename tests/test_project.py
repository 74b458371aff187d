"""A project opens whatever happened to its file, and what it can't read is put aside, not lost."""

from pathlib import Path

import pytest

from app import project
from app.project import Choices


@pytest.mark.parametrize("text", ["", "{", "[1]", "5", "null", "[" * 100_000, "\x00\xff"])
def test_a_damaged_file_is_put_aside(text):
    mine = project.open_project("cat")
    mine.folder.mkdir(parents=True)
    (mine.folder / "project.json").write_text(text)
    assert mine.choices() == Choices() and mine.skipped() == []
    assert (mine.folder / "project-damaged.json").read_text() == text
    mine.choose(Choices(trigger="mycat"))
    assert mine.choices() == Choices(trigger="mycat")


@pytest.mark.parametrize(
    "text",
    [
        '{"choices": 5, "skipped": 5}',
        '{"choices": [1], "skipped": {"a": 1}}',
        '{"choices": {"trigger": 5, "changes": [], "kind": null}, "skipped": [1, ["a"], [1, 2], [[], {}]]}',
    ],
)
def test_choices_of_other_kinds_are_not_taken(text):
    mine = project.open_project("cat")
    mine.folder.mkdir(parents=True)
    (mine.folder / "project.json").write_text(text)
    assert mine.choices() == Choices() and mine.skipped() == []


def test_captions_are_counted_without_asking_for_each_file(monkeypatch):
    mine = project.open_project("cat")
    (mine.images / "sub").mkdir(parents=True)
    for name in ("a.png", "a.txt", "b.png", "sub/b.txt", "sub/c.png", "sub/c.caption"):
        (mine.images / name).touch()
    monkeypatch.setattr(Path, "exists", lambda path: pytest.fail("a look at the disk for each picture"))
    assert mine.captioned() == 2
