"""Deleting a run: only what is ours goes, and never of one that trains or waits."""

import psutil
import pytest

from lora_sd import config, discard, lock, queue, run


@pytest.fixture
def folder():
    folder = run.create(config.TrainConfig())
    for name in ("previews/000000-0.png", "checkpoints/lora.safetensors", "state/000010.pt"):
        (folder / name).write_bytes(bytes(1000))
    run.write_state(folder, run.State(status="finished", step=1, total=1))
    return folder


def test_all_of_a_run_goes_and_its_size_was_told_before(folder):
    assert 3000 < discard.size(folder) < 20_000
    with lock.hold(folder, ""):
        pass
    discard.delete(folder)
    assert not folder.exists() and run.home().joinpath("runs").exists()


def test_what_a_person_put_there_stays(folder, tmp_path):
    (folder / "notes.txt").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "lora.safetensors").touch()
    (folder / "checkpoints" / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "commands").rmdir()
    (folder / "commands").symlink_to(tmp_path / "elsewhere")
    discard.delete(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["lora.safetensors"]
    assert run.list_runs() == []


def test_a_run_that_trains_or_waits_stays(folder):
    me = psutil.Process()
    run.write_state(folder, run.State(status="training", pid=me.pid, created=me.create_time()))
    with pytest.raises(ValueError, match="being trained"):
        discard.delete(folder)
    run.write_state(folder, run.State(status="stopped", step=1, total=2))
    queue.add(folder)
    with pytest.raises(ValueError, match="waits in line"):
        discard.delete(folder)
    assert (folder / "checkpoints" / "lora.safetensors").exists()
