import pytest
import torch
from diffusers.training_utils import EMAModel
from small_runs import at_calls, body, config_for, notes, stop_at, told

from lora_sd import config as cfg
from lora_sd import events, run
from lora_sd.training import state
from lora_sd.training.average import Average
from lora_sd.training.train import resume, train

GOOD, BAD = torch.tensor(False), torch.tensor(True)


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_it_is_the_average_of_diffusers(decay):
    rng = torch.Generator().manual_seed(1)
    weights = torch.nn.Parameter(torch.randn(50, generator=rng))
    ours, theirs = Average(weights, decay), EMAModel([weights], decay=decay)
    for _ in range(30):
        weights.data += torch.randn(50, generator=rng)
        ours.follow(weights, GOOD)
        theirs.step([weights])
        torch.testing.assert_close(ours.values, theirs.shadow_params[0], rtol=1e-5, atol=1e-6)


def test_a_step_that_changed_nothing_is_not_counted():
    one, other = (Average(torch.zeros(4), 0.9) for _ in range(2))
    for number in range(1, 6):
        one.follow(torch.full((4,), float(number)), GOOD)
        other.follow(torch.full((4,), float(number)), GOOD)
        other.follow(torch.full((4,), float(number)), BAD)
    assert torch.equal(one.values, other.values) and torch.equal(one.steps, other.steps)


def averaged(tiny_folder, pictures, **changes):
    return config_for(tiny_folder("sd15"), pictures, **{"optim.ema": 0.9, "optim.steps": 4, **changes})


def test_4_steps_are_2_and_2_bit_for_bit_with_the_average(tiny_folder, pictures):
    """Looked at on the way, which puts the average in place and the weights back, and their copies in half precision."""
    config = averaged(tiny_folder, pictures, **{"machine.precision": "bf16"})
    whole = train(config)
    busy = cfg.changed(config, {"save.every": 1, "preview.every": 3, "preview.steps": 1})
    train(busy, stop_at(2))
    folder = run.list_runs()[0].folder
    assert body(train(busy, folder=folder)) == body(whole)


def test_the_file_has_the_average_and_the_run_learns_as_without_it(tiny_folder, pictures):
    changes = {"optim.steps": 3, "save.every": 1}
    plain = train(averaged(tiny_folder, pictures, **changes, **{"optim.ema": 0.0}))
    without = run.list_runs()[0].folder
    steady = train(averaged(tiny_folder, pictures, **changes))
    there = run.list_runs()[0].folder
    first, second, third = (
        torch.frombuffer(bytearray(body(p)), dtype=torch.float32) for p in run.checkpoints(without)
    )
    found = torch.frombuffer(bytearray(body(steady)), dtype=torch.float32)
    second = first + (1 - 2 / 11) * (second - first)  # the first step is taken as it is
    expected = second + (1 - 3 / 12) * (third - second)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    assert body(steady) != body(plain)
    mine, theirs = (state.read(folder / "state") for folder in (there, without))
    for name, pair in theirs["adapters"].items():
        assert all(map(torch.equal, mine["adapters"][name], pair))
    losses = [[e.loss for e in told(folder) if isinstance(e, events.Step)] for folder in (there, without)]
    assert losses[0] == losses[1]


def test_going_back_to_a_good_state_takes_back_the_average(tiny_folder, pictures, monkeypatch):
    """Three bad steps from 2 on: the run goes on from the state of 1, and its average is of that and what follows."""
    config = averaged(tiny_folder, pictures, **{"save.state_every": 1})
    at_calls(monkeypatch, range(2, 5), lambda losses: losses * float("nan"))
    train(config)
    assert any("Going back to step 1" in note for note in notes())
    assert state.read(run.list_runs()[0].folder / "state")["update"]["average"]["steps"] == 4


def test_an_average_that_is_turned_on_later_begins_with_the_weights_as_they_are(tiny_folder, pictures):
    train(averaged(tiny_folder, pictures, **{"optim.ema": 0.0}), stop_at(2))
    folder = run.list_runs()[0].folder
    with pytest.raises(ValueError, match=r"optim\.ema was 0\.0 and is 0\.9"):
        resume(folder, changes={"optim.ema": 0.9})
    resume(folder, changes={"optim.ema": 0.9}, accept_changes=True)
    assert state.read(folder / "state")["update"]["average"]["steps"] == 2


def test_an_optimizer_that_averages_itself_needs_no_other(tiny_folder, pictures):
    with pytest.raises(ValueError, match=r"keeps averages of its own; leave .*optim\.ema out"):
        train(averaged(tiny_folder, pictures, **{"optim.optimizer": "AdamWScheduleFree"}))
