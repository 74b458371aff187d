"""Strengths by part: what a layer gets, the text form, and that pictures are those of a file whose updates were scaled."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lora_sd import sample
from lora_sd.lora import blocks, formats, layers, targets
from lora_sd.lora.strength import Strength, of_file, parts

LAYERS = {
    "unet.down_blocks.0.attentions.0.proj_in": "IN01",
    "unet.mid_block.attentions.0.proj_in": "MID",
    "unet.up_blocks.1.attentions.0.proj_in": "OUT03",
    "text_encoder.text_model.encoder.layers.0.mlp.fc1": "TE1",
}


def test_a_layer_has_the_whole_times_every_part_that_it_is_in():
    strength = Strength(0.8, unet=0.5, text=0.25, blocks={"mid": 0.5, "OUT*": 2, "out03": 3})
    assert [round(value, 6) for value in strength.by_layer(LAYERS).values()] == [0.4, 0.2, 2.4, 0.2]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("cat.safetensors", Strength()),
        ("cat.safetensors:0.8", Strength(0.8)),
        ("cat.safetensors:0.8:text=0:mid=0.5", Strength(0.8, text=0, blocks={"mid": 0.5})),
        ("cat.safetensors:unet=1.2:IN04=0", Strength(unet=1.2, blocks={"IN04": 0})),
    ],
)
def test_the_text_form_is_read_and_written(text, parsed):
    assert of_file(text) == (Path("cat.safetensors"), parsed)
    assert of_file(f"cat.safetensors:{parsed}") == (Path("cat.safetensors"), parsed)


def test_a_drive_letter_and_an_equals_sign_in_a_name_are_no_strength():
    assert of_file(r"C:\x\cat.safetensors:0.5")[0] == Path(r"C:\x\cat.safetensors")
    assert of_file("C:/a=b/cat.safetensors") == (Path("C:/a=b/cat.safetensors"), Strength())


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [("mid=", "'mid=' is no part's strength"), ("=1", "no part's"), ("text=x", "text=x")],
)
def test_a_part_without_a_number_is_told(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        parts([wrong])


def test_numbers_out_of_reach_and_blocks_that_are_not_there_are_told():
    with pytest.raises(ValueError, match="The strength of mid is nan; it must be -100 to 100"):
        Strength(blocks={"mid": float("nan")})
    with pytest.raises(
        ValueError, match="No block or layer of the LoRA is named 'IN11'; its blocks are IN01, MID"
    ):
        Strength(blocks={"IN11": 0}).by_layer(LAYERS)


def scaled(path: Path, models, factor) -> Path:
    """The file with each layer's update times `factor(layer)`."""
    file = formats.load(path, models.parts(), models.family)
    pairs = {name: pair._replace(up=pair.up * factor(name)) for name, pair in file.pairs.items()}
    target = path.with_name("scaled.safetensors")
    formats.save(target, pairs, models.family, metadata={}, dtype=torch.float32)
    return target


def test_pictures_are_those_of_a_file_whose_updates_were_scaled(tiny_models, tmp_path):
    models, path = tiny_models("sdxl"), tmp_path / "a.safetensors"
    found = models.parts()
    layers.inject(found, targets.resolve(found, "attention", rank=4, text_encoders=True), 1.0)
    with torch.no_grad():
        for pair in layers.adapters(found).values():
            pair.up.normal_(0, 0.1)
    formats.save(path, layers.adapters(found), models.family, metadata={}, dtype=torch.float32)
    layers.detach(found, "lora")
    strength = Strength(0.8, text=0.5, blocks={"mid": 0.25, "down": 2, "OUT01": 0})

    def factor(layer: str) -> float:
        block = blocks.block_of(layer, models.family)
        side = {"M": 0.25, "I": 2.0}.get(block[0], 1.0)
        return 0.8 * (0.5 if block.startswith("TE") else side) * (0 if block == "OUT01" else 1)

    [ours] = sample.generate(models, "a cat", steps=2, loras={path: strength})
    [theirs] = sample.generate(models, "a cat", steps=2, loras={scaled(path, models, factor): 1.0})
    [whole] = sample.generate(models, "a cat", steps=2, loras={path: 0.8})
    assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 1
    assert np.abs(np.asarray(ours, int) - np.asarray(whole, int)).max() > 3
