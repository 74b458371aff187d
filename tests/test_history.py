"""Every edit of captions, use and repeats can be undone and done again, after a restart, too; nobody else's change is lost."""

import json

import pytest
from PIL import Image

from app import captions, history
from app.history import Change
from app.project import open_project


@pytest.fixture
def project():
    mine = open_project("cats")
    mine.images.mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (16, 16)).save(mine.images / f"{name}.png")
        (mine.images / f"{name}.txt").write_text(f"cat {name}")
    return mine


def texts(project):
    return [captions.read(project, project.pictures()).get(path, "") for path in project.pictures()]


def restart():
    history._known.clear()


def rename(project, name, before, after):
    return history.make(project, [Change(name, "caption", before, after)])


def test_undo_and_redo_go_through_all_edits_and_survive_a_restart(project):
    rename(project, "a.png", "cat a", "one")
    history.make(project, [Change("a.png", "caption", "one", "two"), Change("b.png", "caption", "cat b", "")])
    history.make(project, [Change("b.png", "on", True, False)])
    history.make(project, [Change("a.png", "times", 1, 3)])
    assert texts(project) == ["two", ""] and project.repeats() == {"b.png": 0, "a.png": 3}
    restart()
    for _ in range(4):
        history.undo(project)
    assert texts(project) == ["cat a", "cat b"] and project.repeats() == {}
    restart()
    for _ in range(4):
        history.redo(project)
    assert texts(project) == ["two", ""] and project.repeats() == {"b.png": 0, "a.png": 3}
    with pytest.raises(ValueError, match="nothing to do again"):
        history.redo(project)


def test_a_new_edit_ends_what_could_be_done_again(project):
    rename(project, "a.png", "cat a", "one")
    history.undo(project)
    rename(project, "a.png", "cat a", "two")
    with pytest.raises(ValueError, match="nothing to do again"):
        history.redo(project)


def test_what_was_changed_elsewhere_since_stays(project):
    history.make(
        project, [Change("a.png", "caption", "cat a", "one"), Change("b.png", "caption", "cat b", "two")]
    )
    (project.images / "a.txt").write_text("by hand")
    assert history.undo(project) == (1, ["a.png"])
    assert texts(project) == ["by hand", "cat b"]
    assert rename(project, "a.png", "cat a", "other") == (0, ["a.png"])


def test_a_torn_or_foreign_line_costs_only_itself(project):
    rename(project, "a.png", "cat a", "one")
    with open(project.folder / "history.jsonl", "ab") as lines:
        lines.write(
            b'{"changes": [[1, 2, 3, 4], ["a.png", "size", 1, 2], ["a.png", [], "", ""]]}\n[1]\n\xff\n{"chan'
        )
    restart()
    rename(project, "b.png", "cat b", "two")
    restart()
    history.undo(project)
    assert texts(project) == ["one", "cat b"]
    last = (project.folder / "history.jsonl").read_bytes().splitlines()[-1]
    assert json.loads(last) == {"undo": True}


def test_edits_that_a_full_disk_cut_short_can_be_undone(project, monkeypatch):
    write = captions.write

    def full(path, text):
        if path.name == "b.png":
            raise OSError(28, "No space left on device")
        write(path, text)

    monkeypatch.setattr(captions, "write", full)
    both = [Change("a.png", "caption", "cat a", "one"), Change("b.png", "caption", "cat b", "two")]
    with pytest.raises(OSError, match="No space"):
        history.make(project, both)
    assert texts(project) == ["one", "cat b"]
    history.undo(project)
    assert texts(project) == ["cat a", "cat b"]
