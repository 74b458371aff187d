"""The text that says how a picture was made: of the form that other programs read, and read back as it was."""

from pathlib import Path

import pytest
from PIL import Image

from lora_sd import infotext, sample
from lora_sd.infotext import Used, parse, text
from lora_sd.lora.strength import Strength

FACTS = {
    "negative": "bad, worse",
    "seed": 5,
    "steps": 8,
    "guidance": 5.5,
    "sampler": "dpmpp_2m_karras",
    "size": (512, 768),
    "base": "/x/my, model: 2.safetensors",
}
TABBY = Used("tabby", Strength(0.8), "ab" * 32)


def test_the_text_has_the_lines_that_a1111_writes():
    told = text("a cat", **FACTS, loras=[TABBY], model_hash="0123456789")
    assert told.splitlines()[:2] == ["a cat <lora:tabby:0.8>", "Negative prompt: bad, worse"]
    assert told.splitlines()[2].startswith(
        "Steps: 8, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5.5, Seed: 5, Size: 512x768, "
        'Model hash: 0123456789, Model: "my, model: 2", RNG: CPU, Lora hashes: "tabby: abababababab", Version: lora_sd '
    )


@pytest.mark.parametrize(
    "prompt", ["a cat", 'in "quotes", with: colons', "two\nlines", "größer ★ 猫", "Steps: 3, x"]
)
def test_what_was_written_is_read_back(prompt):
    loras = [TABBY, Used("b", Strength(0.5, text=0, blocks={"mid": 0.5, "IN04": 0}), "cd" * 32)]
    told = parse(text(prompt, **FACTS, loras=loras))
    assert (told.prompt, told.negative) == (prompt, "bad, worse")
    assert [(one.name, one.strength) for one in told.loras] == [(one.name, one.strength) for one in loras]
    assert told.pairs["Size"] == "512x768" and told.pairs["Model"] == "my, model: 2"


def test_text_encoders_of_their_own_strength_are_named_as_a1111_has_them():
    """<lora:NAME:TEXT ENCODERS:U-NET>."""
    assert "<lora:tabby:0:0.8>" in text("a", **FACTS, loras=[Used("tabby", Strength(0.8, text=0))])
    [used] = parse("a <lora:tabby:0.2:0.8>\nSteps: 1, Seed: 2, Size: 8x8").loras
    assert (used.strength.whole, used.strength.text) == (0.8, 0.25)
    assert "lora:" not in text("a", **FACTS, loras=[Used("tabby", Strength(0))])


def test_a_text_without_settings_is_all_prompt():
    assert parse("a cat: what else, really") == infotext.Told("a cat: what else, really", "", [], {})


def test_a_drawn_picture_keeps_its_text_in_the_file(tiny_models, tmp_path: Path):
    [picture] = sample.generate(
        tiny_models("sd15"), "größer ★", steps=1, seeds=[3], sampler="euler", size=(64, 64)
    )
    infotext.save(picture, tmp_path / "a.png")
    told = infotext.of_picture(tmp_path / "a.png")
    assert told and parse(told).pairs | {"Steps": "1", "Seed": "3", "Size": "64x64"} == parse(told).pairs
    assert Image.open(tmp_path / "a.png").tobytes() == picture.tobytes()


def test_a_picture_of_elsewhere_has_none_and_what_is_no_picture_is_told(tmp_path: Path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    assert infotext.of_picture(tmp_path / "a.png") is None
    with pytest.raises(ValueError, match=r"b\.png is not a picture"):
        infotext.of_picture(tmp_path / "b.png")
