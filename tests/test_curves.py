"""The charts of a run: few enough points, the right numbers, and the same in words."""

import pytest

from app import curves, story
from lora_sd import config, events, run
from lora_sd.recorder import Recorder


def told(steps: int, loss=lambda step: 0.1, **more) -> story.Story:
    recorder = Recorder(run.create(config.TrainConfig()), steps)
    recorder.flush = lambda: None  # one write for all
    for step in range(steps + 1):
        held_out = 0.1 - 0.00001 * step if step % 2 == 0 else None
        value = loss(step) if step else None
        recorder(events.Step(step=step, total=steps, loss=value, held_out=held_out, **more))
    del recorder.flush
    recorder.close()
    return story.read(recorder.folder)


MEASURED = {"learning_rate": 1e-4, "seconds": 0.5, "memory": 3 * 2**30}


@pytest.mark.parametrize("shown", [name for _, name in curves.CHOICES])
def test_a_chart_has_at_most_500_points_and_both_ends(shown):
    frame = curves.chart(told(3000, **MEASURED), shown)["value"]
    assert 100 < len(frame) <= 500
    assert frame["step"].min() <= 1 and frame["step"].max() == 3000
    assert set(frame.columns) == {"step", "value", "line"}


def test_each_chart_shows_its_own_numbers():
    run_told = told(10, **MEASURED)
    values = {name: curves.chart(run_told, name) for _, name in curves.CHOICES}
    assert {name: chart["value"]["value"].iloc[0] for name, chart in values.items()} == pytest.approx(
        {"loss": 0.1, "rate": 1e-4, "speed": 0.5, "memory": 3.0}
    )
    assert values["speed"]["y_title"] == "seconds per step"
    assert set(values["loss"]["color_map"]) == {"each step", "smoothed", "held-out"}


def test_a_chart_nobody_offers_is_that_of_the_loss():
    assert curves.chart(told(3), "other")["value"]["line"].iloc[0] == "each step"


def test_the_words_tell_the_numbers():
    said = " ".join(curves.words(told(100, lambda step: 0.2 - 0.001 * step, **MEASURED)))
    assert "falling" in said and "Held-out loss 0.0990, 1% lower" in said
    assert "Learning rate 0.0001." in said and "0.5 s per step, 3.0 GB of memory." in said
    assert "rising" in " ".join(curves.words(told(100, lambda step: 0.1 + 0.001 * step)))


def test_a_run_without_steps_has_nothing_to_show():
    empty = told(0)
    assert curves.words(empty) == [] and len(curves.chart(empty, "speed")["value"]) == 0
