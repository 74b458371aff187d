import shutil
from collections import namedtuple

import pytest
from small_runs import body, config_for, notes, stop_at, told

from app import loras
from lora_sd import config as cfg
from lora_sd import events, run
from lora_sd.lora.inspection import read_header
from lora_sd.training import saving, state
from lora_sd.training.train import resume, train
from lora_sd.training.trainer import Trainer

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


def files():
    return [path.stem.removeprefix("lora") for path in run.checkpoints(run.list_runs()[0].folder)]


@pytest.mark.parametrize(
    ("keep", "expected"), [(1, ["-000003", ""]), (0, ["-000001", "-000002", "-000003", ""])]
)
def test_the_last_files_are_kept_and_the_final_one(tiny_folder, pictures, keep, expected):
    train(config_for(tiny_folder("sd15"), pictures, **{"save.every": 1, "save.keep_last": keep}))
    assert files() == expected


@pytest.mark.parametrize("metadata", ["full", "minimal"])
def test_what_a_run_ended_with_before_it_was_made_longer_is_never_removed(tiny_folder, pictures, metadata):
    changes = {"optim.steps": 2, "save.every": 1, "save.keep_last": 1, "output.metadata": metadata}
    train(config_for(tiny_folder("sd15"), pictures, **changes))
    folder = run.list_runs()[0].folder
    if metadata == "full":
        (folder / "events.jsonl").unlink()  # the header says it, or the diary
    resume(folder, extend=2)
    assert files() == ["-000002", "-000003", ""]


def test_a_file_that_a_person_took_away_is_no_error(tiny_folder, pictures):
    def take_away(event):
        if isinstance(event, events.Saved):
            for path in run.checkpoints(run.list_runs()[0].folder):
                path.unlink()

    changes = {
        "optim.steps": 5,
        "save.every": 1,
        "save.keep_last": 1,
        "validate.split": 0.3,
        "save.keep_best": True,
    }
    train(config_for(tiny_folder("sd15"), pictures, **changes), take_away)
    assert files() == [] and run.read_state(run.list_runs()[0].folder).status == "finished"


def test_the_best_file_is_that_of_the_lowest_held_out_loss_also_after_a_resume(
    tiny_folder, pictures, monkeypatch
):
    losses = [0.2, 0.5, 0.4, 0.3, 0.35, None, 0.3, 0.4]  # of step 0, which is no LoRA yet, and those after it
    monkeypatch.setattr(Trainer, "measure", lambda self: losses[self.done])
    changes = {"optim.steps": 7, "validate.split": 0.3, "validate.every": 1, "save.keep_best": True}
    config = config_for(tiny_folder("sd15"), pictures, **changes)
    train(cfg.changed(config, {"save.keep_best": False, "optim.steps": 3}))
    expected = body(run.checkpoints(run.list_runs()[0].folder)[-1])
    train(config, stop_at(4))
    folder = run.list_runs()[0].folder
    train(config, folder=folder)
    path = run.checkpoints(folder)[-2]
    assert path.name == "lora-best.safetensors" and body(path) == expected
    assert read_header(path).metadata["ss_steps"] == "3" and loras.step(path) == "best (step 3)"
    found = [e for e in told(folder) if isinstance(e, events.Saved) and e.best is not None]
    assert [(e.step, e.best) for e in found] == [(1, 0.5), (2, 0.4), (3, 0.3)]
    values = state.read(folder / "state")
    assert (values["best_step"], values["best_loss"]) == (3, 0.3)


def test_a_best_file_that_can_not_be_written_is_said_and_costs_no_step(tiny_folder, pictures):
    changes = {"validate.split": 0.3, "validate.every": 2, "save.keep_best": True}

    def in_the_way(event):
        if isinstance(event, events.Step) and event.step == 1:
            (run.list_runs()[0].folder / "checkpoints" / "lora-best.safetensors").mkdir()

    train(config_for(tiny_folder("sd15"), pictures, **changes), in_the_way)
    assert any("The best file stays that of an earlier step" in note for note in notes())
    assert run.read_state(run.list_runs()[0].folder).status == "finished"
