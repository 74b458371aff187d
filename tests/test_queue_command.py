"""`lora_sd queue` as a person types it."""

import re

import psutil
import pytest

from lora_sd import __main__ as cli
from lora_sd import queue, queue_command, run

NEW = ["queue", "add", "--data.images", "starter:streamline", "--optim.steps", "20", "--output.name"]


@pytest.fixture
def three(capsys) -> list[str]:
    """The ids of three runs in line."""
    for name in ("cat", "dog", "cow"):
        assert cli.main([*NEW, name]) == cli.DONE
    capsys.readouterr()
    return [folder.name for folder in queue.waiting()]


@pytest.fixture
def trainer(monkeypatch) -> dict[str, str]:
    """How runs end, by name; each is training for one look."""
    ends: dict[str, str] = {}
    me = psutil.Process()
    alive = {"pid": me.pid, "created": me.create_time(), "total": 20}

    def start(folder, *options):
        run.write_state(folder, run.State(status="training", **alive))

    def wait(seconds):
        for found in run.list_runs():
            if found.state.active:
                run.write_state(
                    found.folder, run.State(status=ends.get(found.name, "finished"), step=20, total=20)
                )

    monkeypatch.setattr(run, "start", start)
    monkeypatch.setattr(queue_command.time, "sleep", wait)
    return ends


def names(listed: str) -> list[str]:
    return re.findall(r"\d+-\d+-(\w+)  step", listed)


def test_new_runs_wait_with_numbers_names_and_steps(three, capsys):
    assert cli.main(["queue"]) == cli.DONE
    told = capsys.readouterr().out
    assert names(told) == ["cat", "dog", "cow"] and "     2  " in told and "step 0 of 20" in told
    assert "queue run" in told


def test_where_a_new_run_waits_is_said(capsys):
    assert cli.main([*NEW, "cat"]) == cli.DONE
    assert "waits at place 1" in capsys.readouterr().out
    assert cli.main(["queue", "add", "--lora.rank", "0"]) == cli.BAD_INPUT
    assert "lora.rank is 0; it must be at least 1." in capsys.readouterr().err
    assert len(run.list_runs()) == 1, "nothing is left of what can't be"


def test_they_are_moved_and_taken_out_by_number_or_name(three, capsys):
    assert cli.main(["queue", "move", "3", "1"]) == cli.DONE
    assert names(capsys.readouterr().out) == ["cow", "cat", "dog"]
    assert cli.main(["queue", "remove", three[0]]) == cli.DONE
    assert "its folder stays" in capsys.readouterr().out
    assert [folder.name for folder in queue.waiting()] == [three[2], three[1]]


def test_a_run_that_ended_waits_to_go_on_or_to_be_trained_longer(three, trainer, capsys):
    cli.main(["queue", "run"])
    assert cli.main(["queue", "add", three[0]]) == cli.BAD_INPUT
    assert "--extend 500" in capsys.readouterr().err
    assert cli.main(["queue", "add", three[0], "--extend", "500"]) == cli.DONE
    assert queue.places()[0].options == ("--extend", "500")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["add"], "is not a way to use it"),
        (["add", "gone.toml"], "no settings file"),
        (["remove", "7"], "No run '7' waits in line (3 wait)"),
        (["remove", "--", "7"], "is not a way to use it"),
        (["move", "1", "4"], "There is no place 4 in line; it goes from 1 to 3."),
        (["move", "1", "first"], "is not a way to use it"),
        (["frob"], "is not a way to use it"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_2(three, words, sentence, capsys):
    assert cli.main(["queue", *words]) == cli.BAD_INPUT
    assert sentence in capsys.readouterr().err
    assert [folder.name for folder in queue.waiting()] == three


@pytest.mark.parametrize("option", [["--extend", "many"], ["--extend"], ["--lora.rnk", "8"]])
def test_options_are_checked_before_the_run_waits(three, option, capsys):
    assert cli.main(["queue", "add", three[0], *option]) == cli.BAD_INPUT


def test_run_works_through_the_line_and_tells_how_each_ended(three, trainer, capsys):
    trainer["dog"] = "failed"
    assert cli.main(["queue", "run"]) == cli.FAILED
    told = capsys.readouterr().out
    assert [line.rpartition("-")[2] for line in told.splitlines() if ": f" in line] == [
        "cat: finished at step 20.",
        "dog: failed at step 20.",
        "cow: finished at step 20.",
    ]
    assert cli.main(["queue", "run"]) == cli.DONE and queue.waiting() == []


def test_ctrl_c_leaves_run_and_line_as_they_are(three, trainer, monkeypatch, capsys):
    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(queue_command.time, "sleep", interrupted)
    assert cli.main(["queue", "run"]) == cli.FAILED
    assert "goes on, and the line after it" in capsys.readouterr().out
    assert [folder.name for folder in queue.waiting()] == three[1:]
