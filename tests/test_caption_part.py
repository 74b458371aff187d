"""Captions that the page has written: in a process of its own, one order at a time, at the end in one go."""

import time

import pytest
from captioning_models import blip, tagger
from PIL import Image

from app import caption_part, captioning
from app.captioning import Captioning, Order
from app.project import open_project
from lora_sd.models import captioners


@pytest.fixture
def project(home, tmp_path):
    """A project of three pictures, one with a caption, in a home with a tagger."""
    tagger(home / "models" / "owner--tagger")
    project = open_project("cats")
    for name, colour in {"1.png": "navy", "2.png": "red", "3.png": "white"}.items():
        Image.new("RGB", (64, 48), colour).save(tmp_path / name)
    (tmp_path / "3.txt").write_text("by hand")
    project.add(sorted(tmp_path.glob("*.*")))
    return project


def ended(job, seconds=60):
    until = time.time() + seconds
    while job.running:
        assert time.time() < until
        time.sleep(0.02)
    return job


def order(project, **wishes):
    return Order(project, "owner/tagger", device="cpu", **{"options": {"threshold": 0.3}, **wishes})


def texts(project):
    return {path.name: path.read_text().strip() for path in project.images.glob("*.txt")}


def words(tree):
    return tree if isinstance(tree, str) else " ".join(map(words, tree["children"])) if tree else ""


def test_captions_come_and_are_handed_over_at_once(project):
    job, kept = Captioning(), []
    job.start(order(project, trigger="mycat"), kept.append)
    assert ended(job).error == ""
    assert kept == [job.written] and [path.name for path in job.written] == ["1.png", "2.png"]
    assert all(text.startswith("mycat") for text in job.written.values()) and texts(project) == {
        "3.txt": "by hand"
    }
    told = words(caption_part.draw_job(job))
    assert told.startswith("2 captions were written.") and job.new[project.images / "2.png"] in told
    job.start(order(project, existing="append"))
    assert ended(job).written and texts(project)["3.txt"].startswith("by hand")
    assert texts(project).keys() == {"1.txt", "2.txt", "3.txt"}


def test_a_caption_written_by_hand_meanwhile_stays(project, monkeypatch):
    job = Captioning()
    hear = job._hear

    def slowly(message):
        (project.images / "1.txt").write_text("mine")
        hear(message)

    monkeypatch.setattr(job, "_hear", slowly)
    job.start(order(project))
    assert [path.name for path in ended(job).written] == ["2.png"] and texts(project)["1.txt"] == "mine"


def test_one_at_a_time_and_a_cancelled_one_keeps_what_it_has(project, tmp_path):
    for number in range(100):
        Image.new("RGB", (900, 900), (number, 9, 9)).save(project.images / f"x{number}.bmp")
    job = Captioning()
    job.start(order(project))
    with pytest.raises(ValueError, match="being written already"):
        job.start(order(project))
    until = time.time() + 60
    while job.done < 8 and time.time() < until:
        time.sleep(0.005)
    shown = words(caption_part.draw_job(job))
    job.cancel()
    assert 8 <= len(ended(job).written) < 102 and job.error == ""
    assert len(texts(project)) == 1 + len(job.written)
    assert f" of {job.total} pictures" in shown
    assert words(caption_part.draw_job(job)).startswith(
        f"Cancelled; {len(job.written)} captions were written."
    )


def test_what_goes_wrong_is_a_sentence(project, monkeypatch):
    job = Captioning()
    job.start(order(project, options={"threshold": 3}))
    assert "threshold is 3; it is a probability" in ended(job).error and job.written == {}
    assert "it is a probability" in words(caption_part.draw_job(job))
    monkeypatch.setattr(captioning.run.sys, "executable", "/bin/false")
    job.start(order(project))
    assert "ended unexpectedly" in ended(job).error


def test_a_disk_that_is_full_is_said(project):
    def full(changes):
        raise OSError(28, "No space left on device", "1.txt")

    job = Captioning()
    job.start(order(project), full)
    assert "The disk is full: 1.txt" in ended(job).error


@pytest.fixture
def asked():
    return {
        "project": "cats",
        "model": "owner/tagger",
        "existing": "skip",
        "trigger": "",
        "threshold": 0.3,
        "character_threshold": 0.85,
        "without": "long hair",
        "max_tokens": 40,
        "on_cpu": True,
    }


def test_the_button_begins_or_says_why_not(project, asked, monkeypatch):
    monkeypatch.setattr(captioning, "current", Captioning())
    kept = []
    write = lambda values: caption_part.write(values, lambda project: kept.append)  # noqa: E731
    assert "No usable pictures" in words(write({**asked, "project": "none"}))
    assert "press Download first" in words(write({**asked, "model": "SmilingWolf/wd-vit-tagger-v3"}))
    assert "There is no model at" in words(write({**asked, "model": "/nowhere"}))
    assert write(asked) is None
    ended(captioning.current)
    assert len(kept) == 1 and "long hair" not in " ".join(kept[0].values())
    (project.images / "1.txt").write_text("a")
    (project.images / "2.txt").write_text("b")
    assert "Every picture has a caption" in words(write(asked))


def test_while_others_are_let_in_only_models_of_the_menu_are_loaded(project, asked, tmp_path, monkeypatch):
    monkeypatch.setattr("app.reach.confined", True)
    monkeypatch.setattr(captioning, "current", Captioning())
    told = caption_part.write({**asked, "model": str(tagger(tmp_path / "elsewhere"))}, lambda project: print)
    assert "not in the menu" in words(told) and not captioning.current.running
    assert "is not a Hugging Face name" in words(caption_part.get(str(tmp_path)))


def test_the_menu_begins_with_what_is_here(project, home):
    blip(home / "models" / "owner--blip")
    names = [name for _, name in caption_part.menu()]
    assert names == ["owner/blip", "owner/tagger", *captioners.OFFERS]
    assert [caption_part.kind_of(name) for name in names[:3]] == ["blip", "tagger", "blip"]
    assert caption_part.kind_of("/nowhere") is None
