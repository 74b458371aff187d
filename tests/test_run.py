import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lora_sd import config as cfg
from lora_sd import events, lock, run
from lora_sd.recorder import Recorder


@pytest.fixture
def folder(tmp_path):
    return run.create(
        cfg.changed(cfg.TrainConfig(), {"output.dir": str(tmp_path / "runs"), "output.name": "my cat"})
    )


def running(folder, **values):
    me = psutil.Process()
    run.write_state(folder, run.State(status="training", pid=me.pid, created=me.create_time(), **values))


def test_a_new_run_has_its_settings_and_waits(folder):
    assert cfg.load(folder / "config.toml").output.name == "my cat"
    assert run.read_state(folder).status == "starting"
    assert folder.name.endswith("-my_cat") and json.loads((folder / "versions.json").read_text())["python"]


def test_two_runs_of_one_second_get_two_folders(tmp_path):
    config = cfg.changed(cfg.TrainConfig(), {"output.dir": str(tmp_path)})
    assert run.create(config) != run.create(config)


def test_what_a_killed_trainer_left_half_written_is_taken_away(folder):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    left, busy = (folder / "previews" / f".1-0.png.{pid}.7.tmp" for pid in (child.pid, os.getpid()))
    others = [folder / "previews" / "1-0.png", folder / "state" / ".mine.tmp", busy]
    for path in (left, *others):
        path.write_bytes(b"")
    run.tidy(folder)
    assert not left.exists() and all(path.exists() for path in others)


def test_a_command_is_taken_once(folder):
    run.command(folder, "stop")
    assert run.take(folder, "stop") and not run.take(folder, "stop")


def test_events_come_back_in_pieces(folder):
    recorder = Recorder(folder, 10)
    recorder(events.Note("one"))
    first, offset = run.read_events(folder)
    recorder(events.Note("two"))
    second, _ = run.read_events(folder, offset)
    recorder.close()
    assert [e.text for e in first + second] == ["one", "two"] and len(first) == 1


def test_a_line_still_being_written_waits(folder):
    with open(folder / "events.jsonl", "a") as file:
        file.write(events.to_line(events.Note("whole")) + '\n{"kind": "no')
    found, _ = run.read_events(folder)
    assert [e.text for e in found] == ["whole"]


def test_a_torn_line_does_not_swallow_the_next_event(folder):
    with open(folder / "events.jsonl", "a") as file:
        file.write('{"kind": "no')
    recorder = Recorder(folder, 10)
    recorder(events.Note("after the crash"))
    recorder.close()
    assert [e.text for e in run.read_events(folder)[0]] == ["after the crash"]


def test_phases_are_state_and_no_event(folder):
    recorder = Recorder(folder, 10)
    recorder(events.Phase("caching", "Preparing picture", 3, 24))
    recorder.close()
    state = run.read_state(folder)
    assert (state.status, state.phase) == ("caching", "Preparing picture 3 of 24")
    assert run.read_events(folder)[0] == []


def test_a_run_whose_process_is_gone_is_interrupted(folder):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    run.write_state(
        folder, run.State(status="training", pid=child.pid, created=psutil.Process(child.pid).create_time())
    )
    assert run.read_state(folder).status == "training"
    child.kill()
    child.wait()
    assert run.read_state(folder).status == "interrupted"


def test_a_killed_child_that_nobody_waited_for_is_interrupted(folder):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    run.write_state(
        folder, run.State(status="training", pid=child.pid, created=psutil.Process(child.pid).create_time())
    )
    deadline = time.time() + 10
    while run.read_state(folder).status != "interrupted" and time.time() < deadline:
        time.sleep(0.05)
    assert run.read_state(folder).status == "interrupted"
    child.wait()


def test_another_process_with_the_same_pid_is_not_the_trainer(folder):
    run.write_state(
        folder, run.State(status="training", pid=os.getpid(), created=psutil.Process().create_time() - 3600)
    )
    assert run.read_state(folder).status == "interrupted"


def test_an_unreadable_state_says_so(folder):
    (folder / "state.json").write_text("{")
    assert run.read_state(folder).status == "interrupted" and run.read_state(folder).error


def test_runs_are_listed_newest_first(tmp_path):
    for name in ("20250101-000000-old", "20260101-000000-new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text(cfg.dumps(cfg.TrainConfig()))
    assert [r.name for r in run.list_runs(tmp_path)] == ["new", "old"]


def test_files_are_in_the_order_of_their_steps_whatever_their_times(folder):
    names = [
        "cat.safetensors",
        "cat-best.safetensors",
        "cat-1000000.safetensors",
        "cat-000100.safetensors",
        "cat-000050.safetensors",
    ]
    for name in names:
        (folder / "checkpoints" / name).touch()
    assert [path.name for path in run.checkpoints(folder)] == names[::-1]


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("20260101-120000-cat/checkpoints/cat-best", True),
        ("20260101-120000-cat/checkpoints/cat", False),
        ("20260101-120000-cat-best/checkpoints/cat-best", False),
        ("20260101-120000-cat-best-2/checkpoints/cat-best", False),
        ("20260101-120000-cat-best/checkpoints/cat-best-best", True),
        ("renamed/checkpoints/cat-best", True),
    ],
)
def test_the_best_file_is_told_from_the_final_one_of_a_run_so_called(name, best):
    assert run.is_best(Path(f"{name}.safetensors")) == best


@pytest.mark.parametrize("run_id", ["", "..", "../secret", "/etc", "gone"])
def test_only_a_run_of_ours_is_found(folder, run_id):
    assert run.find(run_id, folder.parent) is None and run.find(folder.name, folder.parent) == folder


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("my cat", "my_cat"),
        ("../../x", "x"),
        ("CON", "CON_"),
        ("", "lora"),
        ("a:b/c\\d", "a_b_c_d"),
        ("猫", "猫"),
    ],
)
def test_names_become_file_names(name, safe):
    assert run.safe_name(name) == safe


def test_a_write_that_fails_leaves_the_old_file(folder, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    before = (folder / "state.json").read_text()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        run.write_text(folder / "state.json", "new")
    assert (folder / "state.json").read_text() == before


def test_a_process_of_ours_is_given_no_secrets(monkeypatch):
    monkeypatch.setenv("LORA_SD_PASSWORD", "correct horse")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    given = run.child_environment()
    assert given["CUDA_VISIBLE_DEVICES"] == "0" and given["PYTHONUTF8"] == "1"
    assert not {"correct horse", "hf_secret"} & {*given.values()}


def test_a_clock_that_was_set_does_not_make_a_living_run_look_dead(folder):
    """Its recorded start differs by an hour from what the system says now; the lock it holds does not."""
    running(folder)
    state = run.read_state(folder)
    state.created -= 3600
    run.write_state(folder, state)
    assert run.read_state(folder).status == "interrupted"
    with lock.hold(folder, "busy"):
        assert run.read_state(folder).status == "training"


def test_a_child_is_not_given_secrets(monkeypatch):
    monkeypatch.setenv("LORA_SD_PASSWORD", "hidden")
    assert "LORA_SD_PASSWORD" not in run.child_environment()


def test_a_resume_goes_on_from_the_newest_state(folder):
    assert run.saved_step(folder) is None
    for step in (8, 10, 100):
        (folder / "state" / f"{step:06d}.pt").touch()
    assert run.saved_step(folder) == 100
