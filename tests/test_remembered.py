"""What was computed of a file is looked up until the file changes."""

from pathlib import Path

import pytest

from lora_sd.remembered import Remembered


def test_a_file_is_computed_once_until_it_changes(tmp_path: Path):
    seen = []
    file = tmp_path / "model"
    file.write_text("one")

    def read(path: Path) -> str:
        seen.append(path)
        return path.read_text()

    first = Remembered(tmp_path / "cache" / "memory.json", read)
    assert (first[file], first[file]) == ("one", "one")
    first.save()
    second = Remembered(tmp_path / "cache" / "memory.json", read)
    assert second[file] == "one"
    assert len(seen) == 1
    file.write_text("two.")
    assert second[file] == "two."
    assert len(seen) == 2


def test_a_damaged_memory_is_only_forgotten(tmp_path: Path):
    (tmp_path / "memory.json").write_text('{"cut')
    file = tmp_path / "model"
    file.write_text("one")
    assert Remembered(tmp_path / "memory.json", Path.read_text)[file] == "one"


def test_nothing_new_writes_nothing(tmp_path: Path):
    Remembered(tmp_path / "memory.json", Path.read_text).save()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("memory", ["[1, 2]", "5", '"text"', "null", "[" * 100_000])
def test_a_memory_of_another_kind_is_only_forgotten(tmp_path: Path, memory):
    (tmp_path / "memory.json").write_text(memory)
    file = tmp_path / "model"
    file.write_text("one")
    remembered = Remembered(tmp_path / "memory.json", Path.read_text)
    assert remembered[file] == "one"
    remembered.save()
    assert Remembered(tmp_path / "memory.json", len)[file] == "one"
