"""Captions by models: as transformers writes them, as the formula of a tagger says, and only where they are wanted."""

import builtins
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from captioning_models import TAGS, blip, parameters, tagger
from PIL import Image

import lora_sd
from lora_sd import __main__ as cli
from lora_sd.captioning import folder as captioning
from lora_sd.captioning.blip import Blip
from lora_sd.captioning.tagger import Tagger, plain, prepared
from lora_sd.captioning.wording import combined
from lora_sd.data import images
from lora_sd.data.folder import find_examples
from lora_sd.models import captioners


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("captioners")
    return {"blip": str(blip(root / "blip")), "tagger": str(tagger(root / "tagger"))}


@pytest.fixture
def folder(tmp_path):
    """Four pictures of several shapes and colours; the second has a caption, the third lies deeper."""
    colours = {"1.png": "navy", "2.jpg": "white", "deeper/3.png": "#ff8800", "4.webp": "black"}
    for number, (name, colour) in enumerate(colours.items()):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (40 + 9 * number, 40), colour)
        picture.paste("white", (0, 0, 9, 9))
        picture.save(path)
    (tmp_path / "pictures" / "2.txt").write_text("a dog")
    return tmp_path / "pictures"


def texts(folder):
    return {path.relative_to(folder).as_posix(): path.read_text().strip() for path in folder.rglob("*.txt")}


def rated(path):
    """The probabilities by the formula of the tiny tagger."""
    weights, bias = parameters()
    means = prepared(images.rgb(path), 16).mean((0, 1))
    return 1 / (1 + np.exp(-(means @ weights + bias)))


def test_blip_says_what_transformers_says(models, folder):
    from transformers import BlipForConditionalGeneration, BlipProcessor

    processor = BlipProcessor.from_pretrained(models["blip"])
    model = BlipForConditionalGeneration.from_pretrained(models["blip"]).eval()
    written = lora_sd.caption(folder, models["blip"], existing="replace", max_tokens=12, device="cpu")
    assert len(written) == 4 and len(set(written.values())) > 1
    for path, text in written.items():
        inputs = processor(images=images.rgb(path), return_tensors="pt")
        with torch.no_grad():
            tokens = model.generate(**inputs, max_new_tokens=12, num_beams=3)
        assert text == processor.decode(tokens[0], skip_special_tokens=True).strip()
        assert path.with_suffix(".txt").read_text() == text + "\n"


def test_blip_says_the_same_of_pictures_together_as_one_by_one(models, folder):
    pictures = [images.rgb(path) for path in captioning.to_do(folder, "replace")]
    model = Blip(Path(models["blip"]), torch.device("cpu"), torch.float32, max_tokens=12)
    assert model(pictures) == [text for picture in pictures for text in model([picture])]
    half = Blip(Path(models["blip"]), torch.device("cpu"), torch.bfloat16, max_tokens=12)
    assert half.model.dtype == torch.bfloat16 and len(half(pictures)) == 4


def test_a_tagger_writes_what_is_probable_enough_in_that_order_and_no_rating(models, folder):
    wishes = {"threshold": 0.4, "character_threshold": 0.6, "existing": "replace"}
    written = lora_sd.caption(folder, models["tagger"], **wishes)
    assert len(written) == 4
    for path, text in written.items():
        least = {0: 0.4, 4: 0.6, 9: 2}
        kept = [
            (rate, plain(name))
            for (name, category), rate in zip(TAGS, rated(path), strict=True)
            if rate >= least[category]
        ]
        assert text == ", ".join(name for _, name in sorted(kept, reverse=True))
    told = " ".join(written.values())
    assert len(set(written.values())) > 1 and "long hair" in told and "o_o" in told
    assert "other hero" in told and "general" not in told
    without = lora_sd.caption(folder, models["tagger"], **wishes, without=["Long_Hair"])
    assert "long hair" not in " ".join(without.values())


def test_a_picture_is_padded_with_white_to_a_square_and_is_BGR():
    picture = Image.new("RGB", (32, 16), (255, 128, 0))
    found = prepared(picture, 32)
    assert found.shape == (32, 32, 3) and found.dtype == np.float32
    assert found[0, 0].tolist() == [255, 255, 255] and found[16, 16].tolist() == [0, 128, 255]
    assert prepared(picture, 16).shape == (16, 16, 3)


def test_a_model_for_one_batch_size_gets_it(tmp_path, folder):
    pictures = [images.rgb(path) for path in sorted(folder.glob("*.*")) if path.suffix != ".txt"]
    free, fixed = (Tagger(tagger(tmp_path / str(n), batch=n)) for n in ("N", 2))
    assert (free.at_once, fixed.at_once) == (4, 2)
    assert fixed(pictures[:1]) + fixed(pictures[1:]) == free(pictures)


def test_what_has_a_caption_is_skipped_replaced_or_added_to(models, folder):
    assert captioning.to_do(folder, "skip") == [folder / "1.png", folder / "4.webp", folder / "deeper/3.png"]
    lora_sd.caption(folder, models["tagger"], trigger="mycat")
    found = texts(folder)
    assert found["2.txt"] == "a dog" and len(found) == 4
    assert all(text.startswith("mycat") for name, text in found.items() if name != "2.txt")
    assert lora_sd.caption(folder, models["tagger"]) == {}
    lora_sd.caption(folder, models["tagger"], existing="append")
    added = texts(folder)
    assert added["2.txt"].startswith("a dog, ") and added["1.txt"] == found["1.txt"]
    lora_sd.caption(folder, models["tagger"], existing="replace")
    assert texts(folder)["2.txt"] == added["2.txt"].removeprefix("a dog, ")
    assert {e.path: e.caption for e in find_examples(folder).examples}[folder / "2.jpg"] == texts(folder)[
        "2.txt"
    ]


def test_a_caption_that_came_meanwhile_stays():
    assert combined("tags", "by hand", existing="skip", trigger="mycat") == "by hand"
    assert combined("a cat", "", existing="skip", trigger="mycat") == "mycat, a cat"


def test_captions_can_be_handed_to_whoever_keeps_them(models, folder):
    kept = []
    written = lora_sd.caption(folder, models["tagger"], write=kept.append)
    assert kept == [written] and texts(folder) == {"2.txt": "a dog"}


def test_a_damaged_picture_is_left_out_and_named(models, folder):
    (folder / "5.png").write_bytes(b"no picture")
    made = []
    written = lora_sd.caption(folder, models["tagger"], on_made=made.append)
    assert len(written) == 3
    [(path, why)] = [item for part in made for item in part.skipped.items()]
    assert path.name == "5.png" and "not a picture" in why
    assert made[-1].done == made[-1].total == 4


def test_the_command_line(models, folder, capsys):
    asked = ["caption", str(folder), "--model", models["tagger"], "--device", "cpu"]
    assert cli.main([*asked, "--trigger", "mycat", "--threshold", "0.5", "--without", "outdoors, o_o"]) == 0
    told = capsys.readouterr()
    assert told.out == "3 captions written.\n" and "3 of 3 pictures" in told.err
    assert all(text.startswith("mycat") for name, text in texts(folder).items() if name != "2.txt")
    assert cli.main([*asked, "--threshold", "7"]) == 0  # nothing left to do
    assert cli.main([*asked, "--replace", "--threshold", "7"]) == 2
    assert "threshold is 7.0; it is a probability" in capsys.readouterr().err


def test_ctrl_c_keeps_what_was_written(models, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(300):
        Image.new("RGB", (600, 400), (number % 256, 99, 0)).save(folder / f"{number}.bmp")
    command = [sys.executable, "-m", "lora_sd", "caption", str(folder), "--model", models["tagger"]]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    until = time.time() + 60
    while not texts(folder) and time.time() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    count = len(texts(folder))
    assert process.returncode == 3 and 0 < count < 300 and out.decode() == f"{count} captions written.\n"


def test_the_process_behind_the_page_tells_each_batch_and_writes_nothing(models, folder):
    pictures = [str(path) for path in captioning.to_do(folder, "replace")]
    job = {"pictures": [*pictures, str(folder / "none.png")], "model": models["tagger"], "device": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "lora_sd.captioning.process"],
        input=json.dumps(job) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [message["kind"] for message in told] == ["loaded", "made", "made", "done"]
    assert [*told[1]["captions"], *told[2]["captions"]] == pictures
    assert "none.png can't be opened" in told[2]["skipped"][str(folder / "none.png")]
    assert texts(folder) == {"2.txt": "a dog"}


def test_models_are_found_by_name_in_our_folder_and_in_the_cache_offline(models, home, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    name = "owner/tagger"
    with pytest.raises(ValueError, match="python -m lora_sd download owner/tagger gets it"):
        captioners.describe(name)
    snapshot = tmp_path / "hub" / "models--owner--tagger" / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    os.symlink(models["tagger"], snapshot)
    refs = tmp_path / "hub" / "models--owner--tagger" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    assert captioners.describe(name).path == snapshot
    (home / "models").mkdir()
    os.symlink(models["blip"], home / "models" / "other--blip")
    found = {(model.source, model.kind) for model in captioners.installed()}
    assert found == {("other/blip", "blip"), (name, "tagger")}
    assert captioners.describe("other/blip").kind == "blip"


def test_without_onnxruntime_it_says_what_to_install(models, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(
        ValueError, match=r"install it with: pip install onnxruntime, or pip install -e \.\[tagger\]"
    ):
        Tagger(captioners.describe(models["tagger"]).path)
