"""From the values of Try it to drawing jobs."""

import json
import struct
from pathlib import Path

import gradio as gr
import pytest
import torch
from safetensors.torch import load_file, save_file

from app import drawing, gallery, loras, places, try_page
from lora_sd import grid
from lora_sd.lora import beside
from lora_sd.lora.beside import Named


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    path = tmp_path / "tabby.safetensors"
    header = {"ss_tag_frequency": '{"10_secret": {}}', "modelspec.title": "tabby"}
    save_file({"lora_unet_x.lora_down.weight": torch.arange(6.0).reshape(2, 3)}, str(path), metadata=header)
    return path


@pytest.fixture
def values(lora: Path) -> dict:
    row = {"lora_0": str(lora), "strength_0": 0.8, "lora_1": "", "strength_1": 0.5}
    return row | {
        "base": "starter",
        "prompt": " a cat ",
        "negative": "",
        "seed": 3,
        "steps": 20.0,
        "guidance": 5,
        "sampler": "euler",
        "size": "",
        "on_cpu": False,
    }


def test_a_job_holds_the_chosen_loras_each_at_its_strength(values, lora):
    job = drawing.job(values, 2)
    assert job["loras"] == [[str(lora), 0.8]]
    assert (job["prompt"], job["steps"], job["size"], job["device"]) == ("a cat", 20, None, "auto")


def test_parts_of_a_lora_go_along_and_compare_and_another_strength_keep_them(values, lora):
    values |= {"text_0": 0.5, "mid_0": 1, "up_0": 0.25, "blocks_0": "IN04=0, OUT*=2"}
    job = drawing.job(values, 2)
    parts = {"unet": 1, "text": 0.5, "blocks": {"up": 0.25, "IN04": 0.0, "OUT*": 2.0}}
    assert job["loras"] == [[str(lora), {"whole": 0.8, **parts}]]
    assert grid.at(job, "strength", 0.3)["loras"] == [[str(lora), {"whole": 0.3, **parts}]]
    assert drawing.without_and_with(job)[0]["loras"] == [[str(lora), 0.0]]
    assert drawing.job(values | {"text_0": 1, "up_0": 1, "blocks_0": ""}, 2)["loras"] == [[str(lora), 0.8]]


class Slow:
    """A worker whose pictures take until they are given up, or until `finish`."""

    def __init__(self) -> None:
        self.job, self.alive, self.ready, self.given_up, self.drawn = None, True, True, [], []

    def generate(self, *, out, **job):
        self.job, path = {**job, "out": out}, Path(out) / "new.png"
        try:
            yield {"kind": "progress", "done": 1, "total": 2}
            if job["seed"] in self.given_up:
                yield {"kind": "cancelled"}
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"picture")
            self.drawn.append(job["seed"])
            yield {"kind": "picture", "path": str(path)}
        finally:
            self.job = None

    def cancel(self) -> None:
        self.given_up.append(self.job["seed"])


@pytest.fixture
def slow(monkeypatch) -> Slow:
    worker = Slow()
    monkeypatch.setattr(drawing, "client", worker)
    monkeypatch.setattr(drawing, "wanted", {})
    monkeypatch.setattr(drawing, "SETTLE", 0)
    places.tidy()
    return worker


def test_the_latest_wish_of_a_tab_wins_and_the_other_tab_is_left_alone(values, slow):
    old, new = (drawing.job(values | {"seed": seed}, 2) for seed in (1, 2))
    drawing.want("tab", [old])
    under_way = drawing.latest("tab", old)
    next(under_way)
    drawing.want("other", [new])
    drawing.want("tab", [old])  # told twice
    assert slow.given_up == []
    drawing.want("tab", [new])
    with pytest.raises(drawing.Cancelled):
        list(under_way)
    *_, path = drawing.latest("tab", new)
    assert slow.drawn == [2] and gallery.known(new) == path and gallery.known(old) is None


def test_a_wish_that_an_older_one_overtook_is_drawn_all_the_same(values, slow):
    old, new = (drawing.job(values | {"seed": seed}, 2) for seed in (1, 2))
    drawing.want("tab", [new])
    under_way = drawing.latest("tab", new)
    next(under_way)
    drawing.want("tab", [old])  # late
    slow.given_up = []  # the next try is let through
    drawing.want("tab", [new])
    assert isinstance([*under_way][-1], Path) and slow.drawn == [2]


def test_a_picture_that_still_waits_for_the_model_can_be_cancelled(values, slow, monkeypatch):
    job = drawing.job(values, 2)
    drawing.want("tab", [job])
    monkeypatch.setattr(slow, "cancel", lambda: None)  # it reaches the loading, not the picture
    under_way = drawing.latest("tab", job)
    assert next(under_way) == (1, 2)
    drawing.cancel("tab")
    with pytest.raises(drawing.Cancelled):
        list(under_way)


def test_a_cancelled_picture_stays_cancelled(values, slow):
    job = drawing.job(values, 2)
    drawing.want("tab", [job])
    under_way = drawing.latest("tab", job)
    next(under_way)
    drawing.cancel("tab")
    with pytest.raises(drawing.Cancelled):
        list(under_way)
    assert "tab" not in drawing.wanted


def test_compare_has_the_same_job_with_every_lora_off(values, lora):
    without, with_it = drawing.without_and_with(drawing.job(values, 2))
    assert without == with_it | {"loras": [[str(lora), 0.0]]}


def test_another_strength_is_another_picture_and_the_same_job_is_the_same(values):
    job = drawing.job(values, 2)
    assert (
        gallery.key(grid.at(job, "strength", 0.8))
        == gallery.key(job)
        != gallery.key(grid.at(job, "strength", 1.0))
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"prompt": " "}, "Write what the picture should show."),
        ({"size": "wide"}, "The size is 'wide'; write width × height"),
        ({"lora_1": "{lora}"}, "chosen twice"),
        ({"blocks_0": "IN04"}, "'IN04' is no part's strength"),
        ({"lora_0": "/nowhere/a.safetensors"}, "There is no LoRA at /nowhere/a.safetensors"),
        ({"lora_0": "/etc/passwd"}, "passwd is not a .safetensors file"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(values, lora, change, sentence):
    changed = {name: str(value).format(lora=lora) for name, value in change.items()}
    with pytest.raises(ValueError) as error:
        drawing.job(values | changed, 2)
    assert sentence in str(error.value)


@pytest.mark.parametrize("text", ["768x512", "768 × 512", " 768 512 "])
def test_sizes_are_read_as_people_write_them(text):
    assert drawing.size(text) == (768, 512)


def test_a_copy_without_details_has_the_same_weights_and_no_captions(lora):
    plain = loras.without_details(lora)
    before, after = load_file(lora), load_file(plain)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    data = plain.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert b"secret" not in data and length % 8 == 0
    assert "__metadata__" in json.loads(data[8 : 8 + length])
    assert plain.name == lora.name


def test_a_lora_with_a_word_of_its_own_offers_both_files_and_says_where_one_is_missing(tmp_path):
    save_file({"emb_params": torch.ones(2, 8)}, tmp_path / "mycat-000050.safetensors", {"ss_seed": "secret"})
    named = Named(
        "mycat-000050.safetensors", "mycat", 2, beside.body_hash(tmp_path / "mycat-000050.safetensors")
    )
    lora = tmp_path / "tabby.safetensors"
    save_file({"lora_unet_x.lora_down.weight": torch.ones(2, 3)}, lora, {beside.KEY: str(named)})
    with gr.Blocks():
        page = try_page.build()

    shown = try_page.picked(page, str(lora))
    offered = Path(shown[page.download_word]["value"])
    assert shown[page.download_word]["visible"] and offered.name == "mycat.safetensors"
    assert beside.body_hash(offered) == named.hash and b"secret" not in offered.read_bytes()
    assert "2 vectors" in str(shown[page.about]) and "not here" not in str(shown[page.about])

    (tmp_path / "mycat-000050.safetensors").unlink()
    shown = try_page.picked(page, str(lora))
    assert shown[page.download_word]["visible"] is False
    assert "It goes with mycat-000050.safetensors, which is not here" in str(shown[page.about])


def test_an_embedding_that_is_brought_is_found_by_its_lora_and_usable_alone(tmp_path):
    save_file({"emb_params": torch.ones(2, 8)}, tmp_path / "mycat.safetensors")
    named = Named("mycat.safetensors", "mycat", 2, beside.body_hash(tmp_path / "mycat.safetensors"))
    (tmp_path / "elsewhere").mkdir()
    lora = tmp_path / "elsewhere" / "tabby.safetensors"
    save_file({"lora_unet_x.lora_down.weight": torch.ones(2, 3)}, lora, {beside.KEY: str(named)})
    brought = loras.bring(lora)
    assert loras.embedding(brought) is None
    word = loras.bring(tmp_path / "mycat.safetensors")
    assert loras.embedding(brought) == word and loras.file(str(word)) == word
