import functools

import pytest
from small_runs import body, config_for, stop_at, told

from lora_sd import events, run
from lora_sd.training.cadence import Act, due, steps_of
from lora_sd.training.train import train


@pytest.mark.parametrize(
    ("every", "steps"),
    [
        (50, 50),
        ("50", 50),
        ("10%", 100),
        ("0.01%", 1),
        ("2 epochs", 50),
        ("1 epoch", 25),
        ("0.5epochs", 12),
        (0, 0),
        ("off", 0),
    ],
)
def test_every_unit_becomes_steps(every, steps):
    assert steps_of(every, total=1000, per_epoch=25) == steps


def test_the_last_step_is_always_due():
    assert [step for step in range(26) if due(step, 10, 25)] == [10, 20, 25]


def test_never_is_never():
    assert not any(due(step, 0, 10) for step in range(11))


class Clock:
    seconds = 0.0

    def __call__(self):
        return self.seconds


def act(every, clock, total=100):
    return Act(
        every, steps_of=functools.partial(steps_of, total=total, per_epoch=8), total=total, clock=clock
    )


def test_by_the_clock_an_act_comes_once_for_every_so_many_minutes_of_training():
    clock = Clock()
    by_clock, came = act("1.5 min", clock), []
    for step in range(1, 101):
        clock.seconds += 7.0
        if by_clock.due(step):
            came.append(step)
            by_clock.done()
    assert came == [13, 26, 39, 52, 65, 78, 90, 100]  # 91 s, 182 s, …: after every multiple of 90 s


def test_a_resumed_run_does_not_do_again_what_was_done_and_does_what_was_not_when_it_is_time():
    clock = Clock()
    clock.seconds = 610.0  # stopped after the act of 600 s
    resumed = act("10 minutes", clock)
    assert not resumed.due(5)
    clock.seconds = 1201.0
    assert resumed.due(6)


def test_only_steps_end_a_bunch_for_they_are_the_same_everywhere():
    clock = Clock()
    by_clock, by_steps = act("1 minute", clock), act(5, clock)
    clock.seconds = 61.0
    assert by_clock.due(5) and not by_clock.ends_bunch(5) and by_steps.ends_bunch(5)


@pytest.mark.parametrize("every", [0, "off", "0 minutes"])
def test_an_act_that_is_off_never_comes(every):
    off = act(every, Clock())
    assert not off.ever and not off.due(100) and off.times == 0


def test_how_often_an_act_comes():
    assert [act(every, Clock()).times for every in (30, "25%", "1 epoch", "5 minutes")] == [4, 4, 13, 1]


MINUTES = {
    name: "0.0001 minutes" for name in ("save.every", "preview.every", "validate.every", "save.state_every")
}


def test_what_comes_by_the_clock_changes_no_bit_and_comes(tiny_folder, pictures):
    config = {"validate.split": 0.3, "preview.steps": 1, "preview.prompts": ["a cat"]}
    quiet = train(config_for(tiny_folder("sd15"), pictures, **config, **{"validate.every": 0}))
    busy = train(config_for(tiny_folder("sd15"), pictures, **config, **MINUTES), stop_at(3))
    folder = run.list_runs()[0].folder
    busy = train(config_for(tiny_folder("sd15"), pictures, **config, **MINUTES), folder=folder)
    assert body(busy) == body(quiet)
    saved = [event.step for event in told() if isinstance(event, events.Saved)]
    shown = [event.step for event in told() if isinstance(event, events.Preview)]
    measured = [event.step for event in told() if isinstance(event, events.Step) and event.held_out]
    assert saved == [1, 2, 3, 4] and shown == measured == [0, 1, 2, 3, 4]
