"""Cache files are whole or absent; a shelf reads each once, as far as its memory goes."""

from pathlib import Path

import pytest
import torch

from lora_sd.data import store

KIB = {"x": torch.ones(256)}  # 1 KiB


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        store.write(tmp_path / "a.bin", KIB)
    assert not list(tmp_path.iterdir())


def test_a_shelf_keeps_what_its_room_allows(tmp_path: Path):
    shelf = store.Shelf(keep=2500)
    paths = [tmp_path / f"{number}.bin" for number in range(3)]
    for path in paths:
        store.write(path, KIB)
        assert torch.equal(shelf.read(path)["x"], KIB["x"])
    for path in paths:
        path.unlink()
    assert [shelf.read(path) is not None for path in paths] == [True, True, False]


def test_what_is_written_through_a_shelf_is_kept_too(tmp_path: Path):
    shelf = store.Shelf(keep=2500)
    shelf.write(tmp_path / "a.bin", KIB)
    (tmp_path / "a.bin").unlink()
    assert torch.equal(shelf.read(tmp_path / "a.bin")["x"], KIB["x"])


def test_a_checksum_is_verified_once_for_each_state_of_a_file(tmp_path: Path, monkeypatch):
    checked = []
    checksum = store._checksum
    monkeypatch.setattr(store, "_checksum", lambda data: checked.append(len(data)) or checksum(data))
    path, shelf = tmp_path / "a.bin", store.Shelf(keep=0)
    store.write(path, KIB)
    checked.clear()
    for _ in range(3):
        assert shelf.read(path) is not None
    assert len(checked) == 1
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    assert shelf.read(path) is None
    assert len(checked) == 2


def test_processes_of_one_machine_share_the_memory(monkeypatch):
    monkeypatch.setattr(store.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 8 * 2**30}))
    assert store.memory_to_keep() == 2**30
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert store.memory_to_keep() == 2**28


def test_a_right_checksum_of_something_else_is_a_damaged_file(tmp_path: Path):
    path, shelf = tmp_path / "a.bin", store.Shelf(keep=0, needs=("x",))
    path.write_bytes(store._checksum(b"not tensors") + b"not tensors")
    assert store.read(path) is None
    store.write(path, {"y": KIB["x"]})
    assert shelf.read(path) is None
