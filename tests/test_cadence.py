import pytest

from lora_sd.training.cadence import due, steps_of


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
