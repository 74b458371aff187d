import shutil
from collections import namedtuple

import pytest
from small_runs import config_for, notes, stop_at, told

from lora_sd import events, run
from lora_sd.training import saving, state
from lora_sd.training.train import train

Usage = namedtuple("Usage", "total used free")


def states():
    return sorted(int(path.stem) for path in (run.list_runs()[0].folder / "state").glob("*.pt"))


@pytest.mark.parametrize(
    ("every", "expected"),
    [(3, [3, 6]), ("50%", [3, 6]), (0, [0, 6]), ("off", [0, 6]), ("60 minutes", [0, 6])],
)
def test_states_come_as_often_as_is_set_and_at_the_end(tiny_folder, pictures, every, expected):
    train(config_for(tiny_folder("sd15"), pictures, **{"optim.steps": 6, "save.state_every": every}))
    assert states() == expected


def test_a_state_by_the_clock_comes_when_its_minutes_are_over(tiny_folder, pictures, monkeypatch):
    train(config_for(tiny_folder("sd15"), pictures, **{"save.state_every": "0.0001 min"}))
    assert states() == [3, 4]


def test_a_lora_file_comes_with_a_state(tiny_folder, pictures):
    config = config_for(tiny_folder("sd15"), pictures, **{"save.every": 3, "save.state_every": 0})
    train(config, stop_at(3))
    assert states() == [0, 3]


def test_a_run_that_fails_keeps_the_steps_that_were_done(tiny_folder, pictures, monkeypatch):
    """Whatever it is that goes wrong: here whoever listens to its events."""

    def burn(event):
        if isinstance(event, events.Step) and event.step == 2:
            raise KeyError("a bug")

    config = config_for(tiny_folder("sd15"), pictures, **{"save.state_every": 0})
    with pytest.raises(KeyError):
        train(config, burn)
    folder = run.list_runs()[0].folder
    assert state.read(folder / "state")["step"] == 2
    assert run.read_state(folder).status == "failed"
    assert train(config, folder=folder).exists()


def test_room_that_will_not_do_is_said_before_the_first_step(tiny_folder, pictures, monkeypatch):
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda folder: Usage(10**9, 10**9 - 1000, 1000))
    train(config_for(tiny_folder("sd15"), pictures, **{"optim.steps": 1}))
    assert any("are free on the disk of" in note for note in notes())


def test_what_a_run_needs_is_about_what_it_writes(tiny_folder, pictures, monkeypatch):
    needed = []
    monkeypatch.setattr(saving.Saver, "check_room", lambda self: needed.append(self.bytes_needed()))
    train(
        config_for(tiny_folder("sd15"), pictures, **{"save.every": 1, "lora.rank": 16, "save.dtype": "fp16"})
    )
    folder = run.list_runs()[0].folder
    written = sum(p.stat().st_size for part in ("state", "checkpoints") for p in (folder / part).iterdir())
    assert 0.6 < written / needed[0] < 1.2


def test_a_base_model_whose_file_is_gone_keeps_nothing_from_being_saved(tiny_folder, pictures, tmp_path):
    copy = tmp_path / "base"
    shutil.copytree(tiny_folder("sd15"), copy)

    def remove(event):
        if isinstance(event, events.Step) and event.step == 1:
            shutil.rmtree(copy)

    assert train(config_for(copy, pictures), remove).exists()
    assert isinstance(told()[-1], events.Finished)
