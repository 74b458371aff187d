"""Captions are read from what people have, and the trigger word is added where it is missing."""

import codecs
import doctest
import json
from pathlib import Path

import pytest

from lora_sd.data import captions


def test_docstrings_are_true():
    assert doctest.testmod(captions).failed == 0


@pytest.mark.parametrize(
    ("caption", "trigger", "expected"),
    [
        ("a cat", "mycat", "mycat, a cat"),
        ("mycat on a mat", "mycat", "mycat on a mat"),
        ("a photo of MyCat.", "mycat", "a photo of MyCat."),
        ("mycats on a mat", "mycat", "mycat, mycats on a mat"),
        ("mycat_lx sits", "mycat", "mycat, mycat_lx sits"),
        ("a red fox runs", "red fox", "a red fox runs"),
        ("<fox> in snow", "<fox>", "<fox> in snow"),
        ("", "mycat", "mycat"),
        ("a cat", "  ", "a cat"),
        ("猫が寝る", "狐", "狐, 猫が寝る"),
    ],
)
def test_the_trigger_word_is_there_once(caption, trigger, expected):
    assert captions.with_trigger(caption, trigger) == expected


@pytest.mark.parametrize(
    ("data", "expected", "guessed"),
    [
        ("ein Käfer\n".encode(), "ein Käfer", None),
        (codecs.BOM_UTF8 + "ein Käfer".encode(), "ein Käfer", None),
        ("ein Käfer".encode("utf-16"), "ein Käfer", None),
        ("ein Käfer – grün".encode("cp1252"), "ein Käfer – grün", "Windows-1252"),
        ("ein Käfer".encode("latin-1"), "ein Käfer", "Windows-1252"),
        (b"\x81 ein K\xe4fer", "\x81 ein Käfer", "Latin-1"),
        (b"fox,\r\nsnow,  \r\n\r\ntree\r\n", "fox, snow, tree", None),
        (b"", "", None),
    ],
)
def test_any_encoding_is_read_and_a_guess_is_told(tmp_path: Path, data, expected, guessed):
    (tmp_path / "fox.txt").write_bytes(data)
    assert captions.read(tmp_path / "fox.txt") == (expected, guessed)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a red  fox", "a red fox"),
        (["fox", "snow"], "fox, snow"),
        ({"caption": "a fox", "tags": "fox"}, "a fox"),
        ({"text": "a fox"}, "a fox"),
        ({"tags": ["fox", "snow"]}, "fox, snow"),
        ({"tags": "fox, snow"}, "fox, snow"),
        ({"tags": {"fox": 0.98, "snow": 0.7}}, "fox, snow"),
        ({"tags": {"general": ["snow"], "species": ["fox"]}}, "snow, fox"),
        ({"caption": ""}, ""),
        ({"seed": 7}, None),
        ({"tags": [{"id": 1}]}, None),
        (7, None),
    ],
)
def test_the_usual_shapes_of_json_are_understood(tmp_path: Path, value, expected):
    (tmp_path / "fox.json").write_text(json.dumps(value))
    assert captions.read(tmp_path / "fox.json") == (expected, None)


def test_broken_json_is_named(tmp_path: Path):
    (tmp_path / "fox.json").write_text('{"caption": ')
    with pytest.raises(ValueError, match=r"fox\.json is not valid JSON .*; mend it or remove it"):
        captions.read(tmp_path / "fox.json")


def test_metadata_is_read_by_path(tmp_path: Path):
    lines = [
        {"file_name": "a.png", "text": "one"},
        {"file_name": "sub\\b.png", "caption": "two"},
        {"file_name": "c.png"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n\n".join(map(json.dumps, lines)), encoding="utf-8-sig")
    found, guessed = captions.read_metadata(tmp_path / "metadata.jsonl")
    assert found == {
        captions.name_of(tmp_path / "a.png"): "one",
        captions.name_of(tmp_path / "sub" / "b.png"): "two",
    }
    assert guessed is None


@pytest.mark.parametrize("line", ["nonsense", '{"text": "no name"}', "[1]", '{"file_name": 5}'])
def test_a_broken_metadata_line_is_named(tmp_path: Path, line):
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "one"}\n' + line)
    with pytest.raises(ValueError, match=r"metadata\.jsonl, line 2, is not an object"):
        captions.read_metadata(tmp_path / "metadata.jsonl")


@pytest.mark.parametrize("name", ["fox.txt", "fox.TXT", "fox.caption", "fox.json", "fox.png.txt"])
def test_a_caption_file_is_found_beside_its_picture(name):
    files = captions.by_name([Path("fox.png"), Path("fox2.txt"), Path("Fox.txt"), Path(name)])
    assert captions.beside(Path("fox.png"), files) == Path(name)


def test_accents_may_be_spelled_in_two_ways():
    composed, decomposed = "K\u00e4fer", "Ka\u0308fer"
    files = captions.by_name([Path(f"{decomposed}.txt")])
    assert captions.beside(Path(f"{composed}.png"), files) == Path(f"{decomposed}.txt")
