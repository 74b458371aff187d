"""Any folder of pictures becomes examples, or one sentence about what is wrong with it."""

import doctest
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_sd.data import folder, images
from lora_sd.data.folder import Example, find_examples


def picture(path: Path, caption: str | None = None, size: tuple[int, int] = (48, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path, format="PNG")
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def cut(path: Path) -> Path:
    """A PNG of noise, cut off in the middle."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:4000])
    return path


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}


def test_docstrings_are_true():
    assert doctest.testmod(folder).failed == 0


def test_a_flat_folder_is_found_whole_and_left_as_it_was(tmp_path: Path):
    for number in (10, 2, 1):
        picture(tmp_path / f"{number}.png", f"number {number}")
    before = contents(tmp_path)
    found = find_examples(tmp_path)
    assert found.examples == [Example(tmp_path / f"{n}.png", f"number {n}", (48, 32)) for n in (1, 2, 10)]
    assert found.skipped == [] and found.notes == []
    assert contents(tmp_path) == before


def test_nested_and_numbered_folders_count_as_named(tmp_path: Path):
    picture(tmp_path / "a.png", "x")
    picture(tmp_path / "5_cat" / "b.png", "x")
    picture(tmp_path / "5_cat" / "deep" / "c.png", "x")
    picture(tmp_path / "5_cat" / "2_face" / "d.png", "x")
    picture(tmp_path / "0_later" / "e.png", "x")
    picture(tmp_path / "2024_holiday" / "f.png", "x")
    found = find_examples(tmp_path)
    assert {e.path.stem: e.repeats for e in found.examples} == {"a": 1, "b": 5, "c": 5, "d": 2, "f": 1}
    assert found.notes == [
        "Pictures in 0_later (1) are left out, as its name says.",
        "Pictures in 2_face (1) count 2 times each.",
        "Pictures in 5_cat (2) count 5 times each.",
    ]


def test_single_pictures_count_as_often_as_their_name_or_pattern_says(tmp_path: Path):
    for name in ("a.png", "b [1].png", "face 1.png", "face 2.png", "5_cat/c.png", "0_later/d.png"):
        picture(tmp_path / name, "x")
    own = {"face*": 3, "face 2.png": 0, "b [1].png": 2, "5_cat/*": 2, "gone.png": 0}
    found = find_examples(tmp_path, own_repeats=own)
    counts = {e.path.name: e.repeats for e in found.examples}
    assert counts == {"a.png": 1, "b [1].png": 2, "face 1.png": 3, "c.png": 10}
    assert folder.repeats_of(tmp_path, [e.path for e in found.examples], own) == {
        e.path: e.repeats for e in found.examples
    }
    assert found.notes[2:] == [
        "1 picture is left out, as data.repeats says.",
        "No picture is called gone.png, which data.repeats names; check the spelling.",
    ]


def test_a_damaged_picture_that_is_left_out_stops_nothing(tmp_path: Path):
    picture(tmp_path / "a.png", "x")
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert [e.path.name for e in find_examples(tmp_path, own_repeats={"b.png": 0}).examples] == ["a.png"]


def test_hidden_and_system_files_are_no_pictures(tmp_path: Path):
    picture(tmp_path / "a.png", "x")
    for name in ("._a.png", ".cache/b.png", "__MACOSX/c.png", "@eaDir/d.png"):
        picture(tmp_path / name)
    (tmp_path / "Thumbs.db").write_bytes(b"\xd0\xcf")
    assert [e.path.name for e in find_examples(tmp_path).examples] == ["a.png"]


def test_pictures_are_known_by_content_too(tmp_path: Path):
    picture(tmp_path / "no suffix", "x")
    picture(tmp_path / "named.jpg", "x")
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.JPG_large", format="JPEG")
    (tmp_path / "photo.txt").write_text("x")
    (tmp_path / "notes.docx").write_bytes(b"PK\3\4")
    names = [e.path.name for e in find_examples(tmp_path).examples]
    assert names == ["named.jpg", "no suffix", "photo.JPG_large"]


def test_names_of_any_script_work(tmp_path: Path):
    names = ["猫 ねこ.png", "Käfer (1).png", "${1+1} {{x}}.png", "con.png", "a.b.c.png"]
    for name in names:
        picture(tmp_path / name, name)
    assert {e.path.name: e.caption for e in find_examples(tmp_path).examples} == {n: n for n in names}


def test_links_in_a_circle_end(tmp_path: Path):
    picture(tmp_path / "set" / "a.png", "x")
    os.symlink(tmp_path, tmp_path / "set" / "again")
    os.symlink(tmp_path / "set", tmp_path / "twice")
    assert len(find_examples(tmp_path).examples) == 1


def test_a_link_to_nowhere_is_named(tmp_path: Path):
    picture(tmp_path / "a.png", "x")
    os.symlink(tmp_path / "gone.png", tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b\.png can't be opened \(No such file"):
        find_examples(tmp_path)


@pytest.mark.parametrize("style", ["fluent", "streamline"])
def test_the_shipped_sets_are_found_by_name(style):
    assert len(find_examples(f"starter:{style}").examples) == 24
    assert len(find_examples(f"starter:{style}/heldout").examples) == 16
    assert all(f"{style} style" in e.caption for e in find_examples(f"starter:{style}").examples)
    with pytest.raises(ValueError, match=f"no set of pictures named starter:{style[:-1]}; there is starter:"):
        find_examples(f"starter:{style[:-1]}")


def test_size_is_that_of_the_upright_picture(tmp_path: Path):
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6
    Image.new("RGB", (48, 32)).save(tmp_path / "a.jpg", exif=exif)
    assert find_examples(tmp_path, trigger="x").examples[0].size == (32, 48)


# captions


def test_every_caption_has_the_trigger_word(tmp_path: Path):
    picture(tmp_path / "a.png", "a cat")
    picture(tmp_path / "b.png", "mycat asleep")
    picture(tmp_path / "c.png", "")
    found = find_examples(tmp_path, trigger="mycat")
    assert [e.caption for e in found.examples] == ["mycat, a cat", "mycat asleep", "mycat"]
    assert found.notes == []


def test_missing_captions_become_the_trigger_word_and_are_told(tmp_path: Path):
    picture(tmp_path / "a.png", "a cat")
    picture(tmp_path / "deep" / "b.png")
    found = find_examples(tmp_path, trigger="mycat")
    assert [e.caption for e in found.examples] == ["mycat, a cat", "mycat"]
    assert found.notes == ["1 of 2 pictures have captions; missing: deep/b.png."]


def test_no_captions_and_a_trigger_word_is_enough(tmp_path: Path):
    picture(tmp_path / "a.png")
    found = find_examples(tmp_path, trigger="mycat")
    assert [e.caption for e in found.examples] == ["mycat"]
    assert found.notes == ["No caption files: every picture is captioned 'mycat'."]


@pytest.mark.parametrize("others", [[], ["a cat"]])
def test_a_picture_without_caption_and_trigger_is_refused_with_both_remedies(tmp_path: Path, others):
    for caption in others:
        picture(tmp_path / "a.png", caption)
    picture(tmp_path / "b.png")
    with pytest.raises(ValueError) as caught:
        find_examples(tmp_path)
    for part in (f"{len(others)} of", "b.png", "data.trigger", 'data.captions = "filename"'):
        assert part in str(caught.value)


def test_file_names_are_captions_when_asked(tmp_path: Path):
    picture(tmp_path / "a_red_fox.png", "not this")
    examples = find_examples(tmp_path, captions="filename", trigger="myfox").examples
    assert [e.caption for e in examples] == ["myfox, a red fox"]


def test_captions_are_paired_by_path(tmp_path: Path):
    for where in ("x", "y"):
        for name in ("1", "2"):
            picture(tmp_path / where / f"{name}.png", f"{where}{name}")
    (tmp_path / "x" / "1.txt").unlink()
    found = find_examples(tmp_path, trigger="t").examples
    assert [e.caption for e in found] == ["t", "t, x2", "t, y1", "t, y2"]


def test_metadata_fills_what_has_no_file(tmp_path: Path):
    picture(tmp_path / "a.png", "from its file")
    picture(tmp_path / "deep" / "b.png")
    lines = [
        '{"file_name": "a.png", "text": "from metadata"}',
        '{"file_name": "deep/b.png", "text": "from metadata"}',
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert [e.caption for e in find_examples(tmp_path).examples] == ["from its file", "from metadata"]


def test_a_json_without_a_caption_is_a_missing_one(tmp_path: Path):
    picture(tmp_path / "a.png")
    (tmp_path / "a.json").write_text('{"seed": 7}')
    with pytest.raises(ValueError, match="0 of 1 pictures have captions"):
        find_examples(tmp_path)


def test_a_guessed_encoding_is_told_with_its_file(tmp_path: Path):
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes("ein Käfer".encode("latin-1"))
    found = find_examples(tmp_path)
    assert found.examples[0].caption == "ein Käfer"
    assert found.notes == ["Not UTF-8, so read as Windows-1252: a.txt. Check the accented letters."]


# what is wrong


def test_a_truncated_picture_among_good_ones_stops_or_is_skipped(tmp_path: Path):
    picture(tmp_path / "a.png", "x")
    bad = cut(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r'b\.png is damaged .* Or set data\.on_bad_image = "skip"'):
        find_examples(tmp_path)
    found = find_examples(tmp_path, on_bad_image="skip")
    assert [e.path.name for e in found.examples] == ["a.png"]
    assert [path for path, _ in found.skipped] == [bad] and "damaged" in found.skipped[0][1]


def test_a_mended_picture_is_read_again(tmp_path: Path):
    bad = cut(tmp_path / "a.png")
    with pytest.raises(ValueError):
        find_examples(tmp_path, trigger="x")
    picture(bad)
    assert len(find_examples(tmp_path, trigger="x").examples) == 1


def test_many_bad_pictures_are_counted(tmp_path: Path):
    picture(tmp_path / "good.png", "x")
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"0\.png is empty .* 2 more can't be read either"):
        find_examples(tmp_path)


def test_only_bad_pictures_are_not_skipped_to_nothing(tmp_path: Path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"None of the pictures can be read\. a\.png is not a picture"):
        find_examples(tmp_path, on_bad_image="skip")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "There is no folder at .*; check its spelling"),
        (lambda path: path.mkdir(), "The folder .* is empty; put your pictures in it"),
        (
            lambda path: (path.mkdir(), (path / "a.txt").touch()),
            r"has no pictures, only a\.txt; PNG, JPEG and WebP",
        ),
        (lambda path: path.touch(), "is a file; give the folder that your pictures are in"),
        (lambda path: picture(path / "0_off" / "a.png"), "Every picture of .* is left out"),
    ],
)
def test_a_folder_that_is_none_is_one_sentence(tmp_path: Path, make, said):
    make(tmp_path / "set")
    with pytest.raises(ValueError, match=said):
        find_examples(tmp_path / "set")


def test_no_folder_given_is_one_sentence():
    with pytest.raises(ValueError, match=r"No folder of pictures was given; set data\.images"):
        find_examples("")


def test_a_good_picture_is_decoded_once_and_a_changed_one_again(tmp_path: Path, monkeypatch):
    pictures, memory = tmp_path / "pictures", tmp_path / "good.json"
    pictures.mkdir()
    for number in range(3):
        Image.new("RGB", (48, 32), "red").save(pictures / f"{number}.png")
    (pictures / "cut.png").write_bytes(b"\x89PNG")
    decoded = []
    check = images.check
    monkeypatch.setattr(images, "check", lambda path: decoded.append(path.name) or check(path))

    def find():
        decoded.clear()
        found = find_examples(pictures, trigger="x", on_bad_image="skip", memory=memory)
        return {example.path.name: example.size for example in found.examples}

    assert find() == {"0.png": (48, 32), "1.png": (48, 32), "2.png": (48, 32)}
    assert sorted(decoded) == ["0.png", "1.png", "2.png", "cut.png"]
    Image.new("RGB", (32, 64), "blue").save(pictures / "1.png")
    assert find() == {"0.png": (48, 32), "1.png": (32, 64), "2.png": (48, 32)}
    assert sorted(decoded) == ["1.png", "cut.png"]


def test_caption_files_are_not_opened_to_see_whether_they_are_pictures(tmp_path: Path):
    Image.new("RGB", (48, 32), "red").save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"\x89PNG")
    assert len(find_examples(tmp_path).examples) == 1
