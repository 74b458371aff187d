"""The line of waiting runs: its order on disk, who starts the next one, and what becomes of a run whose starter is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lora_sd import config as cfg
from lora_sd import queue, run

START_NEXT = """
from lora_sd import queue
print(queue.start_next() or "")
"""
NAMES = ("cat", "dog", "cow")


def create(name: str = "cat", status: str = "queued", **settings) -> Path:
    """A run whose pictures don't exist: its trainer ends at once."""
    changes = {"output.name": name, "data.images": "/nowhere/at-all", "optim.steps": 10, **settings}
    return run.create(cfg.changed(cfg.TrainConfig(), changes), status=status)


@pytest.fixture
def started(monkeypatch) -> list[tuple[Path, tuple[str, ...]]]:
    """What would have been started; each counts as training from then on, in this process."""
    starts = []

    def start(folder, *options):
        starts.append((folder, options))
        me = psutil.Process()
        run.write_state(folder, run.State(status="training", pid=me.pid, created=me.create_time()))

    monkeypatch.setattr(run, "start", start)
    return starts


@pytest.fixture
def three() -> list[Path]:
    folders = [create(name) for name in NAMES]
    assert [queue.add(folder) for folder in folders] == [1, 2, 3]
    return folders


@pytest.fixture
def alone() -> Path:
    """The only run in line."""
    folder = create()
    queue.add(folder)
    return folder


def assert_trained_once(folder: Path) -> None:
    wait_until(lambda: run.read_state(folder).status == "failed")
    assert queue.start_next() is None and queue.waiting() == []
    log = folder / "log.txt"
    wait_until(lambda: "There is no folder at" in log.read_text())  # it says why after its status is known
    assert log.read_text().count("There is no folder at") == 1


def end(folder: Path, status: str = "finished") -> None:
    run.write_state(folder, run.State(status=status, step=10, total=10))


def wait_until(true, seconds: float = 60) -> None:
    until = time.time() + seconds
    while not true():
        assert time.time() < until
        time.sleep(0.1)


def in_another_process(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)


# -- the order -------------------------------------------------------------------------------------------------------


def test_nobody_waits_in_a_new_home(home):
    assert queue.waiting() == [] and queue.start_next() is None
    assert not (home / "queue" / "queue.json").exists()


def test_runs_wait_in_the_order_they_came(three):
    assert queue.waiting() == three
    assert [run.read_state(folder).status for folder in three] == ["queued"] * 3


def test_a_run_moves_to_another_place(three):
    cat, dog, cow = three
    queue.move(cow, 1)
    assert queue.waiting() == [cow, cat, dog]
    queue.move(cow, 2)
    assert queue.waiting() == [cat, cow, dog]


@pytest.mark.parametrize("number", [0, 4])
def test_there_is_no_place_beyond_the_line(three, number):
    with pytest.raises(ValueError, match=f"no place {number} in line; it goes from 1 to 3"):
        queue.move(three[0], number)
    assert queue.waiting() == three


def test_a_run_taken_out_keeps_its_folder_and_can_wait_again(three):
    cat, dog, cow = three
    queue.remove(dog)
    assert queue.waiting() == [cat, cow] and run.read_state(dog).status == "stopped"
    assert queue.add(dog) == 3 and queue.waiting() == [cat, cow, dog]


def test_a_finished_run_waits_to_be_trained_longer_and_is_finished_again_when_taken_out(started):
    folder = create()
    end(folder)
    queue.add(folder, "--extend", "500")
    state = run.read_state(folder)
    assert (state.status, state.step) == ("queued", 10)
    queue.remove(folder)
    assert run.read_state(folder).status == "finished"
    queue.add(folder, "--extend", "500")
    queue.start_next()
    assert started == [(folder, ("--extend", "500"))]


def test_a_finished_run_needs_steps_and_a_training_one_does_not_wait(started):
    folder = create()
    end(folder)
    with pytest.raises(ValueError, match="--extend 500"):
        queue.add(folder)
    run.start(folder)
    with pytest.raises(ValueError, match="is training already"):
        queue.add(folder, "--extend", "500")


def test_a_run_stands_in_line_once_with_the_options_given_last(three, started):
    assert queue.add(three[0], "--accept-changes") == 1
    assert queue.waiting() == three
    queue.start_next()
    assert started == [(three[0], ("--accept-changes",))]


def test_a_run_is_found_by_its_place_its_id_or_its_folder(three):
    for wanted in ("2", three[1].name, str(three[1]), os.path.relpath(three[1])):
        assert queue.find(wanted) == three[1]
    with pytest.raises(ValueError, match="No run '4' waits in line"):
        queue.find("4")


def test_a_run_outside_the_home_waits_like_the_others(tmp_path, started):
    elsewhere = create("far", **{"output.dir": str(tmp_path)})
    near = create("near")
    queue.add(elsewhere)
    queue.add(near)
    assert queue.start_next() == elsewhere
    assert queue.start_next() is None and queue.active() == elsewhere, "it trains, though in another folder"
    end(elsewhere)
    assert queue.start_next() == near


# -- one after the other ---------------------------------------------------------------------------------------------


def test_the_next_starts_when_none_is_training(three, started):
    assert queue.start_next() == three[0] and queue.start_next() is None
    end(three[0])
    assert queue.start_next() == three[1]
    assert queue.waiting() == three[2:] and [folder for folder, _ in started] == three[:2]


def test_a_run_that_is_gone_or_was_started_by_hand_is_passed_over(three, started):
    for path in sorted(three[0].rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    three[0].rmdir()
    end(three[1])
    assert queue.waiting() == [three[2]] and queue.start_next() == three[2]


def test_a_run_that_cannot_be_started_has_failed_and_the_next_starts(three, monkeypatch, started):
    start = run.start

    def refusing(folder, *options):
        if folder == three[0]:
            raise OSError(11, "Resource temporarily unavailable")
        start(folder, *options)

    monkeypatch.setattr(run, "start", refusing)
    assert queue.start_next() == three[1]
    assert run.read_state(three[0]).status == "failed"
    assert "could not be started" in run.read_state(three[0]).error


def test_settings_that_are_damaged_fail_that_run_alone(three, started):
    (three[0] / "config.toml").write_text("[lora]\nrank = -3\n")
    assert queue.start_next() == three[1]
    assert "lora.rank is -3" in run.read_state(three[0]).error


def test_one_that_fails_does_not_stop_the_next(three):
    """The real trainer, three times: no pictures, exit code 2, and each starts the next."""
    assert queue.start_next() == three[0]
    wait_until(lambda: [run.read_state(folder).status for folder in three] == ["failed"] * 3)
    assert queue.waiting() == [] and "/nowhere" in run.read_state(three[2]).error


def test_a_trainer_of_ours_starts_the_next_and_a_persons_own_does_not(three, started, monkeypatch):
    ended = create("before", status="finished")
    monkeypatch.delenv(run.CHILD, raising=False)
    queue.go_on(ended)
    assert not started
    monkeypatch.setenv(run.CHILD, "1")
    queue.go_on(ended)
    assert started == [(three[0], ())] and run.read_state(ended).status == "finished"


def test_a_trainer_that_ended_before_it_began_has_failed(three, started, monkeypatch):
    monkeypatch.setenv(run.CHILD, "1")
    ended = create("before", status="starting")
    queue.go_on(ended)
    assert run.read_state(ended).status == "failed" and started == [(three[0], ())]


def test_a_trainer_ends_well_though_the_line_is_in_trouble(three, monkeypatch, capsys):
    monkeypatch.setenv(run.CHILD, "1")
    monkeypatch.setattr(queue, "start_next", lambda: 1 / 0)
    queue.go_on(three[0])
    assert capsys.readouterr().err == "The next run in line could not be started: division by zero\n"


# -- many programs, and one that is killed ---------------------------------------------------------------------------


def test_eight_who_ask_at_once_start_one_run(alone):
    asking = [in_another_process(START_NEXT) for _ in range(8)]
    answers = [process.communicate(timeout=60)[0].strip() for process in asking]
    assert sorted(answers) == [""] * 7 + [str(alone)]
    assert_trained_once(alone)


def test_the_line_outlives_every_program():
    code = "import sys; from pathlib import Path; from lora_sd import queue; queue.add(Path(sys.argv[1]))"
    folders = [create(name) for name in NAMES]
    for folder in folders:
        in_another_process(code, str(folder)).wait()
    assert queue.waiting() == folders


KILLED_AT = {
    "before the trainer is called": "run.forget_commands = die",
    "when the trainer lives": "run.start = lambda *a, start=run.start: (start(*a), die())",
    "while the line is written": "os.replace = lambda a, b, old=os.replace: die() if 'queue.json' in str(b) else old(a, b)",
}


@pytest.mark.parametrize("moment", KILLED_AT)
def test_no_run_is_lost_or_trained_twice_when_its_starter_is_killed(alone, moment):
    code = f"""
import os, signal
from lora_sd import queue, run
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
{KILLED_AT[moment]}
queue.start_next()
"""
    assert in_another_process(code).wait() == -signal.SIGKILL
    assert queue.start_next() is None, "that trainer may be coming"
    if moment == "before the trainer is called":
        state = json.loads((alone / "state.json").read_text())
        (alone / "state.json").write_text(json.dumps({**state, "t": state["t"] - 61}))  # a minute later
        assert queue.start_next() == alone
    assert_trained_once(alone)


def test_queued_runs_in_no_line_are_put_at_its_end(three, monkeypatch):
    (run.home() / "queue" / "queue.json").write_text("{ half a")
    assert queue.waiting() == []
    queue.put_back(three)
    assert queue.waiting() == [], "their maker may be about to put them in"
    monkeypatch.setattr(queue, "SETTLED", 0)
    queue.put_back(sorted(three))
    assert queue.waiting() == sorted(three)
    queue.put_back(three)
    assert queue.waiting() == sorted(three)
