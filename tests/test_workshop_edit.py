"""Edited headers say what was asked, and every tensor keeps its bytes."""

import base64
import io

import pytest
import safetensors.torch
import torch
from PIL import Image
from workshop_files import random_pairs, write

from lora_sd import __main__ as cli
from lora_sd.lora import formats
from lora_sd.lora.inspection import inspect
from lora_sd.models.family import SD15
from lora_sd.workshop.edit import FIELDS, edit
from lora_sd.workshop_command import EDITED


@pytest.fixture
def path(tmp_path):
    """A file of ours."""
    metadata = {"ss_output_name": "cat", "lora_sd.family": "sd15", "modelspec.title": "old"}
    formats.save(tmp_path / "x.safetensors", random_pairs("sd15"), SD15, metadata=metadata)
    return tmp_path / "x.safetensors"


def body(path) -> bytes:
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def metadata(path) -> dict[str, str]:
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata()


def test_fields_are_set_and_all_else_stays(path):
    before, tensors = metadata(path), body(path)
    changes = {field: f"my {field} — ü" for field in FIELDS if field != "thumbnail"}
    edit(path, changes)
    after = metadata(path)
    assert body(path) == tensors
    assert {key: after[key] for key in FIELDS.values() if key in after} == {
        FIELDS[field]: text for field, text in changes.items()
    }
    assert {k: v for k, v in after.items() if k not in FIELDS.values()} == {
        **{k: v for k, v in before.items() if k not in FIELDS.values()},
        "modelspec.sai_model_spec": "1.0.1",
    }
    assert inspect(path).trigger == "my trigger — ü"


def test_an_empty_text_takes_a_field_away_and_back_it_is_the_same_file(path, tmp_path):
    edit(path, {"title": "one"})
    edit(path, {"title": "two", "author": "me"}, tmp_path / "y.safetensors")
    edit(tmp_path / "y.safetensors", {"title": "one", "author": ""})
    assert (tmp_path / "y.safetensors").read_bytes() == path.read_bytes()


def test_a_thumbnail_is_a_small_jpeg_that_any_program_shows(path, tmp_path):
    Image.new("RGBA", (600, 300), (200, 30, 30, 255)).save(tmp_path / "cat.png")
    edit(path, {"thumbnail": str(tmp_path / "cat.png")})
    kind, _, data = metadata(path)["modelspec.thumbnail"].partition(",")
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == "data:image/jpeg;base64" and picture.size == (256, 128)


def test_other_kinds_and_files_without_a_header_are_edited_too(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {
        f"lora_unet_mid_block_attentions_0_proj_in.{end}": torch.randn(2, 3)
        for end in ("hada_w1_a", "hada_w1_b")
    }
    safetensors.torch.save_file(tensors, path)
    edit(path, {"author": "me"})
    assert metadata(path)["modelspec.author"] == "me" and len(metadata(path)["sshs_model_hash"]) == 64
    assert all(torch.equal(tensors[key], tensor) for key, tensor in safetensors.torch.load_file(path).items())


def test_the_command_knows_every_field(path, capsys):
    assert EDITED.keys() == FIELDS.keys()
    assert cli.main(["edit", str(path), "--title", "Cat", "--tags", "cat, animal"]) == 0
    assert capsys.readouterr().out == f"{path}: saved.\n"
    assert metadata(path)["modelspec.tags"] == "cat, animal" and metadata(path)["modelspec.title"] == "Cat"


def test_bad_inputs_are_sentences_and_change_nothing(path, tmp_path, capsys):
    (tmp_path / "cat.png").write_text("no picture")
    safetensors.torch.save_file({"x": torch.ones(2)}, tmp_path / "model.safetensors")
    before = path.read_bytes()
    for words, sentence in [
        ([path], "Nothing would change"),
        ([path, "--thumbnail", tmp_path / "cat.png"], "cat.png"),
        ([path, "--thumbnail", tmp_path / "gone.png"], "gone.png"),
        ([path, "--title", "x" * 20_001], "it may have 20,000"),
        ([path, "--title", "\ud800"], "can't be written in a file"),
        ([path, "--out", tmp_path / "y.bin", "--title", "x"], "must end in .safetensors"),
        ([tmp_path / "model.safetensors", "--title", "x"], "is not a LoRA file"),
    ]:
        assert cli.main(["edit", *map(str, words)]) == 2
        assert sentence in capsys.readouterr().err
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="There is no field 'colour'; there are title"):
        edit(write(tmp_path / "z.safetensors", random_pairs("sd15"), "sd15"), {"colour": "red"})
