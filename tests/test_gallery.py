"""The pictures that are kept, stars, and the copies in other programs' folders."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from app import export, gallery, gallery_view, loras, places, reach, stars
from lora_sd import run
from lora_sd.lora import beside
from lora_sd.lora.beside import Named

JOB = {
    "base": "starter",
    "loras": [],
    "prompt": "a ${cat} <b>",
    "negative": "",
    "seed": 1,
    "steps": 2,
    "guidance": 4,
}


def kept(tmp_path: Path, **changes: object) -> str:
    """A picture in the gallery; its id."""
    places.tidy()
    path = tmp_path / "new.png"
    Image.new("RGB", (32, 32), "teal").save(path)
    return gallery.keep({**JOB, **changes}, path).stem


def test_a_picture_is_kept_with_its_job_and_found_by_it_after_a_restart(tmp_path):
    name = kept(tmp_path)
    places.tidy()
    assert gallery.known(JOB) == gallery.get(name).path and gallery.known({**JOB, "seed": 2}) is None
    assert gallery.get(name).job == JOB and not gallery.get(name).starred


def test_the_newest_is_first_and_stars_stay(tmp_path):
    names = [kept(tmp_path, seed=seed) for seed in (1, 2)]
    assert gallery.ids() == sorted(names, reverse=True)
    gallery.star(names[0], True)
    assert gallery.ids(starred=True) == [names[0]] and gallery.get(names[0]).starred
    gallery.delete(names[0])
    assert gallery.ids() == [names[1]] and gallery.ids(starred=True) == []
    assert json.loads((gallery.folder() / stars.NAME).read_text()) == []


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "20260101-000000-" + "0" * 20, "a/b"])
def test_a_name_that_is_no_picture_is_none(tmp_path, name):
    kept(tmp_path)
    assert gallery.get(name) is None
    gallery.delete(name)
    assert len(gallery.ids()) == 1


def test_a_damaged_job_hides_one_picture_and_no_more(tmp_path):
    names = [kept(tmp_path, seed=seed) for seed in (1, 2)]
    (gallery.folder() / f"{names[0]}.json").write_text("{")
    assert gallery.get(names[0]) is None and gallery.get(names[1])
    assert str(gallery_view.draw()).count("'cls'") == 0 and "picture" in str(gallery_view.draw())


def test_a_page_shows_so_many_and_leads_to_the_older_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery_view, "A_PAGE", 2)
    for seed in range(5):
        kept(tmp_path, seed=seed)
    first = str(gallery_view.draw())
    assert "5 pictures" in first and "1–2 of 5" in first and "Older" in first and "Newer" not in first
    last = str(gallery_view.draw(gallery_view.place({"at": "999"})))
    assert "5–5 of 5" in last and "Older" not in last


@pytest.mark.parametrize("click", [{}, {"at": "-1"}, {"at": "x" * 99, "id": "../x"}, {"at": "9" * 99}])
def test_a_click_of_a_stranger_is_harmless(tmp_path, click):
    kept(tmp_path)
    assert "1 picture" in str(gallery_view.draw(gallery_view.place(click)))


# -- stars of LoRAs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def lora(home: Path) -> Path:
    path = home / "models" / "loras" / "tabby.safetensors"
    path.parent.mkdir(parents=True)
    save_file({"lora_unet_x.lora_down.weight": torch.ones(2, 3)}, path, {"ss_tag_frequency": "secret"})
    return path


def test_a_star_is_in_the_menu_and_on_disk(lora):
    assert loras.menu() == [("tabby", str(lora))]
    assert loras.give_star(str(lora)) and loras.menu() == [("★ tabby", str(lora))]
    assert json.loads((lora.parent / "stars.json").read_text()) == ["tabby.safetensors"]
    assert not loras.give_star(str(lora)) and loras.menu() == [("tabby", str(lora))]


def test_a_list_of_stars_that_is_none_is_empty(tmp_path):
    for text in ("", "{}", "[1, null]", "[" * 10_000):
        (tmp_path / "stars.json").write_text(text)
        assert stars.of(tmp_path) == frozenset()


def test_files_elsewhere_have_no_star(lora, tmp_path):
    with pytest.raises(ValueError, match="Only LoRAs of the menu"):
        loras.give_star(str(tmp_path / "other.safetensors"))


def test_a_file_of_a_run_and_a_path_are_named_as_the_menu_has_them(home, tmp_path):
    ours = run.home() / "runs" / "20260101-000000-cat" / "checkpoints" / "cat.safetensors"
    assert loras.of_path(str(ours)) == "20260101-000000-cat/cat.safetensors"
    assert loras.of_path(str(tmp_path / "x.safetensors")) == str(tmp_path / "x.safetensors")


# -- copies ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def comfy(tmp_path: Path, monkeypatch) -> Path:
    """A ComfyUI with its folders."""
    for name in ("checkpoints", "loras", "embeddings"):
        (tmp_path / "ComfyUI" / "models" / name).mkdir(parents=True)
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "ComfyUI"))
    return tmp_path / "ComfyUI" / "models"


def test_a_copy_is_the_same_file_and_overwrites_nothing(lora, comfy):
    [program] = [one for one in export.programs() if one.loras == comfy / "loras"]
    assert (program.name, program.embeddings) == ("ComfyUI", comfy / "embeddings")
    there = str(comfy / "loras")
    first = export.into_program(str(lora), there, "", plain=False)
    assert (
        first.lora == comfy / "loras" / "tabby.safetensors" and first.lora.read_bytes() == lora.read_bytes()
    )
    again = export.into_program(str(lora), there, "", plain=False)
    assert again.lora == first.lora and "already" in again.note
    plain = export.into_program(str(lora), there, "tabby", plain=True)
    assert plain.lora.name == "tabby-2.safetensors" and b"secret" not in plain.lora.read_bytes()
    assert first.lora.read_bytes() == lora.read_bytes()
    named = export.into_program(str(lora), there, "../my cat/x", plain=False)
    assert named.lora.parent == comfy / "loras" and named.lora.read_bytes() == lora.read_bytes()


def test_a_word_goes_into_the_embeddings_under_its_name_and_replaces_no_other(lora, comfy):
    word = lora.parent / "mycat-000050.safetensors"
    save_file({"emb_params": torch.ones(2, 8)}, word)
    named = Named(word.name, "mycat", 2, beside.body_hash(word))
    save_file({"lora_unet_x.lora_down.weight": torch.ones(2, 3)}, lora, {beside.KEY: str(named)})
    copied = export.into_program(str(lora), str(comfy / "loras"), "", plain=False)
    assert copied.word == comfy / "embeddings" / "mycat.safetensors"
    assert beside.body_hash(copied.word) == named.hash

    copied.word.write_bytes(b"another's")
    copied = export.into_program(str(lora), str(comfy / "loras"), "again", plain=False)
    assert copied.word is None and "another word's file" in copied.note
    assert (comfy / "embeddings" / "mycat.safetensors").read_bytes() == b"another's"


def test_a_typed_folder_must_be_there_and_others_may_copy_nowhere(lora, comfy, tmp_path, monkeypatch):
    copied = export.into_folder(str(lora), f' "{tmp_path}" ', "x", plain=False)
    assert copied.lora == tmp_path / "x.safetensors"
    for text, sentence in (("", "Type the folder"), ("/nowhere/at/all", "There is no folder at /nowhere")):
        with pytest.raises(ValueError, match=sentence):
            export.into_folder(str(lora), text, "", plain=False)
    with pytest.raises(ValueError, match="not there any more"):
        export.into_program(str(lora), str(tmp_path), "", plain=False)
    monkeypatch.setattr(reach, "confined", True)
    for copy in (export.into_folder, export.into_program):
        with pytest.raises(ValueError, match="only at the computer itself"):
            copy(str(lora), str(comfy / "loras"), "", plain=False)


def test_a_copy_that_fails_leaves_nothing_behind(lora, comfy, monkeypatch):
    monkeypatch.setattr(export.shutil, "copyfileobj", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError):
        export.into_program(str(lora), str(comfy / "loras"), "", plain=False)
    assert list((comfy / "loras").iterdir()) == []
