"""How long a run will take is what runs took here; where nothing is known, nothing is said."""

import pytest

from app import pace, plan, sheet
from app.pace import Kind, Pace
from app.project import Choices, open_project
from lora_sd import config as cfg
from lora_sd import events, run
from lora_sd.recorder import Recorder

CARD = Kind("RTX 4060", "sd15", 512, 1, "attention", "fast")
TWO_CORES = Kind("Two cores", "starter", 128, 4, "transformer", "fast")


def finished(seconds: float, *, others: float = 20.0, count: int = 8, status: str = "finished"):
    """The folder of a run of so many steps."""
    folder = run.create(cfg.changed(cfg.TrainConfig(), {"model.base": "starter"}))
    recorder, now = Recorder(folder, count), 1000.0
    recorder(events.Note(text="begun", t=now))
    now += others
    for step in range(1, count + 1):
        now += seconds
        recorder(events.Step(step=step, total=count, loss=0.1, seconds=seconds, t=now))
    if status == "finished":
        recorder(events.Finished(step=count, path="", t=now))
    recorder.close()
    return folder


def learned(kind: Kind) -> None:
    pace.learn(run.list_runs(), lambda folder: kind)


def test_nothing_is_said_of_a_card_that_no_run_was_made_on(home):
    assert pace.estimate(CARD, 1000, on_processor=False) is None
    assert pace.estimate(TWO_CORES._replace(device="RTX 4060"), 100, on_processor=False) is None


def test_the_starter_has_a_shipped_figure_on_a_processor(home):
    found = pace.estimate(TWO_CORES, 100, on_processor=True)
    assert found.known_from == "shipped" and 100 < found.total < 180
    assert pace.estimate(TWO_CORES._replace(batch=8), 100, on_processor=True) is None


def test_a_finished_run_tells_of_the_next_one_like_it(home):
    finished(0.5)
    learned(CARD)
    found = pace.estimate(CARD, 1000, on_processor=False)
    assert found.known_from == "same" and found.pace == pytest.approx(Pace(0.5, 20.0))
    assert found.total == pytest.approx(520)
    for other in ({"device": "RTX 3060"}, {"base": "sdxl"}, {"targets": "full"}, {"rung": "low"}):
        assert pace.estimate(CARD._replace(**other), 1000, on_processor=False) is None


def test_another_size_is_told_from_the_pixels_of_a_step(home):
    finished(0.5)
    learned(CARD)
    found = pace.estimate(CARD._replace(batch=4), 100, on_processor=False)
    assert found.known_from == "like" and found.pace.seconds == pytest.approx(2.0)


def test_runs_are_read_once_and_those_that_ended_early_not_at_all(home, monkeypatch):
    finished(0.5)
    finished(0.5, status="")
    finished(0.5, count=3)  # too few to tell
    learned(CARD)
    assert len(pace.known()) == 1
    monkeypatch.setattr(run, "read_events", None)
    learned(CARD)


def test_a_night_in_between_is_no_time_of_training():
    told = [events.Note(text="", t=0.0)]
    told += [events.Step(step=n, total=9, seconds=1.0, t=float(n) + 40_000 * (n > 4)) for n in range(1, 9)]
    assert pace.taken(told) == Pace(1.0, 0.0)


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"kind": {}, "seconds": 1, "others": 1}}'])
def test_a_damaged_table_is_learned_again(home, text):
    (home / "pace.json").write_text(text)
    assert pace.known() == []
    finished(0.5)
    learned(CARD)
    assert len(pace.known()) == 1


def test_the_plan_tells_it_with_its_source(home):
    finished(0.5)
    project = open_project("cats")
    choices = Choices(base="starter", trigger="x")
    kind = sheet.pace_of(
        sheet.fill(project, choices).base, sheet.machine(), sheet.fill(project, choices).settings
    )
    learned(kind)
    machine = plan.Machine("cpu", "Two cores", 16 * plan.GB)
    line = plan._time(machine, pace.estimate(kind, 100, on_processor=True))
    assert line.value == "about 70 s" and "0.5 s a step and 20 s for all else" in line.why
    assert plan._time(machine, None).value == "not known yet"
