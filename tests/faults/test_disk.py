"""A disk that is full, closed or gone at each kind of write: what was reported stays, and the run ends as if nothing had been.

Where this machine may mount, the disk is a real one of a few pages, full to the last byte; elsewhere the system limits the
size of files instead (RLIMIT_FSIZE), which refuses the large ones in the middle of a write.
"""

import contextlib
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from small_runs import body, config_for, notes, told

from lora_sd import __main__ as cli
from lora_sd import config as cfg
from lora_sd import events, run
from lora_sd.training import saving
from lora_sd.training.train import train

FULL = "The disk is full: .* could not be saved|was not saved: .* make room"

resource = pytest.importorskip("resource")  # not on Windows


def can_mount() -> bool:
    with contextlib.suppress(OSError):
        done = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "t", "/mnt"], capture_output=True)
        return done.returncode == 0 and os.geteuid() == 0
    return False


class Disk:
    """A small real disk at `path`."""

    def __init__(self, path: Path, options: str = "size=4m"):
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", str(path)], check=True)

    def fill(self) -> None:
        with contextlib.suppress(OSError), open(self.path / "filler", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        (self.path / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path):
    if not can_mount():
        pytest.skip("this machine may not mount")
    disks = []

    def make(path: Path, **options) -> Disk:
        disks.append(Disk(path, **options))
        return disks[-1]

    yield make
    for found in reversed(disks):
        found.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(saving, "PATIENCE", 0.4)
    monkeypatch.setattr(saving, "PAUSE", 0.1)


@pytest.fixture
def config(tiny_folder, pictures):
    often = {"save.every": 2, "save.state_every": 1, "preview.every": 2, "preview.steps": 1}
    return config_for(tiny_folder("sd15"), pictures, **often, **{"preview.prompts": ["a cat"]})


def fill_at(step: int, disk: Disk, free_at: int | None = None):
    """An `on_event`: the disk is full from the end of a step on, until the end of another."""

    def listen(event):
        if isinstance(event, events.Step) and event.step == step:
            disk.fill()
        if isinstance(event, events.Step) and event.step == free_at:
            disk.free()

    return listen


def on_disk_of_its_own(folder: Path, part: str, disk) -> Disk:
    """A part of a run's folder on a small disk; "." is the whole of it, with events, settings and state.json."""
    if part != ".":
        return disk(folder / part)
    moved = shutil.move(folder, folder.with_name("moved"))
    small = disk(folder)
    shutil.copytree(moved, folder, dirs_exist_ok=True)
    return small


@pytest.mark.parametrize("part", ["previews", "state", "checkpoints", "."])
def test_a_disk_that_is_full_for_a_while_costs_no_step(config, disk, part):
    undisturbed = train(cfg.changed(config, {"output.name": "whole"}))
    folder = run.create(config)
    small = on_disk_of_its_own(folder, part, disk)
    path = train(config, fill_at(1, small, free_at=3), folder=folder)
    assert body(path) == body(undisturbed)
    assert run.read_state(folder).status == "finished"
    assert any(re.search(FULL, note) for note in notes(folder))
    assert [e.step for e in told(folder) if isinstance(e, events.Step)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("part", ["state", "checkpoints", "."])
def test_a_disk_that_stays_full_ends_the_run_with_a_sentence_and_it_can_go_on(config, disk, part):
    undisturbed = train(cfg.changed(config, {"output.name": "whole"}))
    folder = run.create(config)
    small = on_disk_of_its_own(folder, part, disk)
    with pytest.raises(OSError):
        train(config, fill_at(2, small), folder=folder)
    state = run.read_state(folder)
    assert state.status == "failed" and re.search(FULL, state.error)
    small.free()
    assert body(train(config, folder=folder)) == body(undisturbed)
    assert not list(folder.rglob("*.tmp")) and not list(folder.rglob("*.part"))


@pytest.mark.parametrize("part", ["latents", "text"])
def test_a_full_disk_while_caching_is_one_sentence(config, disk, home, part, capsys):
    small = disk(home / "cache" / part)
    small.fill()
    folder = run.create(config)
    assert cli.main(["resume", str(folder)]) == cli.FAILED
    assert "The disk is full" in capsys.readouterr().err
    assert run.read_state(folder).status == "failed" and "disk is full" in run.read_state(folder).error
    small.free()
    assert cli.main(["resume", str(folder)]) == cli.DONE


def test_no_room_for_a_new_run_is_one_sentence(config, disk, tmp_path, capsys):
    small = disk(tmp_path / "small")
    small.fill()
    settings = tmp_path / "run.toml"
    settings.write_text(cfg.dumps(cfg.changed(config, {"output.dir": str(small.path / "runs")})))
    assert cli.main(["train", str(settings)]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert "The disk is full" in error and "Traceback" not in error


def test_a_folder_that_may_only_be_read_is_one_sentence(config, disk, tmp_path, capsys):
    disk(tmp_path / "closed", options="size=1m,ro")
    settings = tmp_path / "run.toml"
    settings.write_text(cfg.dumps(cfg.changed(config, {"output.dir": str(tmp_path / "closed" / "runs")})))
    assert cli.main(["train", str(settings)]) == cli.BAD_INPUT
    assert f"may not read or write {tmp_path}" in capsys.readouterr().err


def test_a_folder_below_a_file_is_one_sentence(config, tmp_path, capsys):
    (tmp_path / "file").touch()
    settings = tmp_path / "run.toml"
    settings.write_text(cfg.dumps(cfg.changed(config, {"output.dir": str(tmp_path / "file" / "runs")})))
    assert cli.main(["train", str(settings)]) == cli.BAD_INPUT
    assert "part of that path is a file" in capsys.readouterr().err


def test_pictures_on_a_disk_that_may_only_be_read_train(config, disk, pictures, tmp_path):
    small = disk(tmp_path / "readable")
    shutil.copytree(pictures, small.path / "set")
    subprocess.run(["mount", "-o", "remount,ro", str(small.path)], check=True)
    assert train(cfg.changed(config, {"data.images": str(small.path / "set")})).exists()


@contextlib.contextmanager
def files_up_to(num_bytes: int):
    """The system writes no file beyond this size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_writer_that_stops_in_the_middle_leaves_the_state_before(config):
    """The size limit lets the small files through; LoRA files and states break off."""
    undisturbed = train(cfg.changed(config, {"output.name": "whole"}))
    folder = run.create(config)
    limits = contextlib.ExitStack()

    def limit(event):
        if isinstance(event, events.Step) and event.step == 2:
            limits.enter_context(files_up_to(8_000))

    with limits, pytest.raises(OSError):
        train(config, limit, folder=folder)
    assert re.search(FULL, run.read_state(folder).error)
    assert [path.name for path in sorted((folder / "state").glob("*.pt"))] == ["000000.pt", "000001.pt"]
    assert body(train(config, folder=folder)) == body(undisturbed)


def test_the_end_waits_for_room_and_a_stop_gives_up(config, monkeypatch):
    monkeypatch.setattr(saving, "PATIENCE", 60.0)
    folder = run.create(config)
    limits = contextlib.ExitStack()

    def listen(event):
        if isinstance(event, events.Step) and event.step == 3:
            limits.enter_context(files_up_to(8_000))
        if isinstance(event, events.Note) and "The run waits" in event.text:
            run.command(folder, "stop")

    began = time.monotonic()
    with limits, pytest.raises(OSError):
        train(config, listen, folder=folder)
    assert time.monotonic() - began < 30
    assert train(config, folder=folder).exists()


def test_room_that_comes_while_the_end_waits_is_used(config, monkeypatch):
    monkeypatch.setattr(saving, "PATIENCE", 60.0)
    limits = contextlib.ExitStack()

    def listen(event):
        if isinstance(event, events.Step) and event.step == 3:
            limits.enter_context(files_up_to(8_000))
        if isinstance(event, events.Note) and "The run waits" in event.text:
            threading.Timer(0.3, limits.close).start()

    with limits:
        assert train(config, listen).exists()
    assert run.list_runs()[0].state.status == "finished"


def test_a_run_folder_that_is_removed_under_the_trainer_does_not_lose_the_lora(config):
    folder = run.create(config)

    def remove(event):
        if isinstance(event, events.Step) and event.step == 2:
            shutil.rmtree(folder)

    assert body(train(config, remove, folder=folder)) == body(train(config))
