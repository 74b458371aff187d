import pytest
import torch
from diffusers.optimization import get_scheduler

from lora_sd.training import schedules

THEIRS = {"constant": "constant_with_warmup"}
CYCLES, POWER = 3, 2.0


def rates(name, warmup):
    schedule = schedules.named(name, cycles=CYCLES, power=POWER)
    return [schedules.rate(schedule, done, 40, warmup) for done in range(40)]


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize("name", [name for name in schedules.SCHEDULES if name != "rex"])
def test_rates_are_those_of_diffusers(name, warmup):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    options = {"num_warmup_steps": warmup, "num_training_steps": 40, "num_cycles": CYCLES, "power": POWER}
    theirs = get_scheduler(THEIRS.get(name, name), optimizer, **options)
    for ours in rates(name, warmup):
        # theirs falls to 1e-7 of the rate with a polynomial, ours to 0
        assert ours == pytest.approx(theirs.get_last_lr()[0], abs=1.1e-7)
        optimizer.step()
        theirs.step()


def test_rex_is_the_formula_of_its_paper():
    T = 33
    wanted = [(1 - t / T) / (1 / 2 + 1 / 2 * (1 - t / T)) for t in range(T)]
    assert rates("rex", 7)[7:] == pytest.approx(wanted)


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_every_schedule_begins_at_the_whole_rate_and_never_leaves_it_upwards(name):
    told = rates(name, 0)
    assert told[0] == 1.0 and all(0 <= rate <= 1 for rate in told)
