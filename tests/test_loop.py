import math
from types import SimpleNamespace

import pytest
import torch

from lora_sd.training import loop
from lora_sd.training.world import World


class Update:
    """Takes no time and says that every loss is the number of the step, and the fourth is none."""

    def __init__(self, kind):
        values = SimpleNamespace(device=SimpleNamespace(type=kind))
        self.vector = SimpleNamespace(values=values, sums=torch.zeros(1))
        self.number = 0

    def __call__(self, rate):
        self.number += 1
        return torch.tensor([self.number, float(self.number == 4), math.inf if self.number == 5 else 0.5])


def bunches(kind="cuda", last=30, run_pass=lambda feed: None, ends=()):
    return loop.steps(
        run_pass,
        Update(kind),
        lambda parts, step: [step],
        iter(range(10_000)),
        first=1,
        last=last,
        accumulation=2,
        learning_rate=lambda done: 0.1 / (done + 1),
        seed=1,
        ends_bunch=lambda step: step in ends,
        world=World(),
    )


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_every_step_is_told_once_in_order(kind):
    steps = [step for bunch in bunches(kind) for step in bunch]
    assert [step.step for step in steps] == list(range(1, 31))
    assert [step.loss for step in steps] == [None if n == 4 else float(n) for n in range(1, 31)]
    assert [step.step for step in steps if step.left_out] == [4]
    assert [step.gradient_norm for step in steps] == [None if n == 5 else 0.5 for n in range(1, 31)]
    assert steps[9].learning_rate == pytest.approx(0.01) and all(step.seconds > 0 for step in steps)


def test_on_the_processor_a_bunch_is_a_step():
    assert {len(bunch) for bunch in bunches("cpu")} == {1}


def test_on_a_card_a_bunch_ends_where_someone_looks_at_the_weights():
    ends = [bunch[-1].step for bunch in bunches("cuda", ends=(5, 17))]
    assert {5, 17, 30} <= {*ends} and len(ends) < 10


def test_a_bunch_is_never_long(monkeypatch):
    monkeypatch.setattr(loop, "LONGEST_BUNCH", 7)
    assert max(len(bunch) for bunch in bunches("cuda")) == 7


def test_where_memory_ends_the_steps_done_come_first():
    def run_pass(step):
        if step == 9:
            raise torch.OutOfMemoryError("CUDA out of memory")

    told = []
    with pytest.raises(torch.OutOfMemoryError):
        for bunch in bunches("cuda", run_pass=run_pass):
            told += bunch
    assert [step.step for step in told] == list(range(1, 9))
