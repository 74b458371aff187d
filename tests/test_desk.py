"""The page's command at work: it is heard, can be given up, and ends with a file or a sentence."""

import time
from pathlib import Path

import pytest
from workshop_files import random_pairs, write

from app import desk, loras, tools_view
from app.tools_act import Act


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    return write(tmp_path / "cat.safetensors", random_pairs("sd15", every=90), "sd15")


def ended(work: desk.Desk, seconds: float = 60) -> desk.Desk:
    until = time.monotonic() + seconds
    while work.running:
        assert time.monotonic() < until, (work.text, work.done)
        time.sleep(0.05)
    return work


def text(tree) -> str:
    return tree if isinstance(tree, str) else " ".join(map(text, tree["children"]))


def resize(lora: Path, *words: str) -> Act:
    out = loras.folder().absolute() / "new.safetensors"
    return Act(["resize", str(lora), str(out), *words], "", out)


def test_a_command_ends_with_its_file_and_a_copy_to_take_away(lora):
    work = desk.Desk()
    work.begin("shrink", resize(lora, "--rank=2"))
    with pytest.raises(ValueError, match="Something is being made already"):
        work.begin("shrink", resize(lora, "--rank=2"))
    out = resize(lora).out
    assert not ended(work).error and work.done == work.total > 0
    assert work.offer.read_bytes() == out.read_bytes() and ("new", str(out)) in loras.menu()
    told = text(tools_view.draw(work))
    assert "new.safetensors" in told and "rank 2" in told and "of the update is lost" in told


def test_why_it_could_not_be_done_is_its_sentence(lora):
    work = desk.Desk()
    work.begin("shrink", resize(lora, "--rank=0"))
    assert text(tools_view.draw(ended(work))) == "The rank is 0; it must be at least 1."


def test_given_up_it_leaves_nothing(lora):
    work = desk.Desk()
    work.begin("shrink", resize(lora, "--rank=2"))
    work.cancel()  # before or while it begins
    assert not ended(work).error and "Cancelled" in text(tools_view.draw(work))
    assert not loras.folder().exists() or not [*loras.folder().iterdir()]
