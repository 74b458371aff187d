import pathlib

import lion_pytorch
import prodigyopt
import pytest
import schedulefree
import torch
from torch import nn
from transformers.optimization import Adafactor

from lora_sd.lora.layers import LowRank, Pair
from lora_sd.training import optim
from lora_sd.training.update import LossScale, Update
from lora_sd.training.vector import Vector

OTHER = "torch.optim.RAdam"  # by package.Class
NAMES = [*(name for name in optim.KINDS if name != "AdamW8bit"), OTHER]
RATE, DECAY = 0.03, 0.01
# each as its authors, and the trainers in wide use, call it
THEIRS = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=RATE, weight_decay=DECAY),
    "Lion": lambda p: lion_pytorch.Lion(p, lr=RATE, weight_decay=DECAY),
    "Adafactor": lambda p: Adafactor(
        p, lr=RATE, weight_decay=DECAY, scale_parameter=False, relative_step=False, warmup_init=False
    ),
    "Prodigy": lambda p: prodigyopt.Prodigy(
        p, lr=RATE, weight_decay=DECAY, use_bias_correction=True, safeguard_warmup=True
    ),
    "AdamWScheduleFree": lambda p: schedulefree.AdamWScheduleFree(p, lr=RATE, weight_decay=DECAY),
    OTHER: lambda p: torch.optim.RAdam(p, lr=RATE, weight_decay=DECAY),
}


def learner(name, groups=(range(6),), factors=(1.0,), **arguments):
    """An update of three adapters: six matrices."""
    rng = torch.Generator().manual_seed(0)
    pairs = [Pair(torch.randn(2, 5, generator=rng), torch.randn(3, 2, generator=rng), 2.0) for _ in range(3)]
    vector = Vector([LowRank("lora", pair) for pair in pairs], torch.float32)
    apart = optim.kind_of(name).apart
    optimizer = optim.make(
        name,
        [vector.parameters(matrices, apart=apart) for matrices in groups],
        learning_rate=RATE,
        weight_decay=DECAY,
        arguments=arguments,
    )
    scale = LossScale(False, torch.device("cpu"))
    return Update(vector, optimizer, max_grad_norm=1.0, scale=scale, factors=factors)


def matrices(update):
    return update.vector.split(update.vector.values.data)


def step(update, seed, rate=RATE):
    """One step with a gradient of random numbers; gives the gradient as matrices."""
    rng = torch.Generator().manual_seed(seed)
    gradients = [torch.randn(shape, generator=rng) for shape in update.vector.shapes]
    update.vector.gradient.copy_(update.vector.join(gradients))
    update(rate)
    return gradients


@pytest.mark.parametrize("name", NAMES)
def test_each_optimizer_steps_like_its_library_does_on_every_matrix(name):
    update = learner(name)
    theirs = [nn.Parameter(matrix.clone()) for matrix in matrices(update)]
    optimizer = THEIRS[name](theirs)
    if name == "AdamWScheduleFree":
        optimizer.train()
    for seed in range(5):
        for parameter, gradient in zip(theirs, step(update, seed), strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(theirs, 1.0)
        optimizer.step()
    for ours, parameter in zip(matrices(update), theirs, strict=True):
        torch.testing.assert_close(ours, parameter.data, rtol=1e-4, atol=1e-6)


def test_moments_in_8_bits_follow_those_in_32():
    """Each step goes the same way, to the few per cent that 8 bits leave."""
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    exact, small = (nn.Parameter(torch.zeros(8192)) for _ in range(2))
    options = {"learning_rate": 0.01, "weight_decay": 0.01}
    optimizers = optim.make("AdamW", [[exact]], **options), optim.make("AdamW8bit", [[small]], **options)
    for _ in range(20):
        exact.grad = torch.randn(8192)
        small.grad = exact.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert (exact - small).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_optimizer_goes_on_bit_for_bit(name, tmp_path):
    one, other = learner(name), learner(name)
    for seed in range(3):
        step(one, seed)
    torch.save(one.state_dict(), tmp_path / "state.pt")
    other.vector.values.data.copy_(one.vector.values.data)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for seed in range(3, 6):
        step(one, seed)
        step(other, seed)
    assert torch.equal(one.vector.values, other.vector.values)


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_step_changes_nothing_of_any_optimizer(name):
    disturbed, undisturbed = learner(name), learner(name)
    for update in (disturbed, undisturbed):
        step(update, 1)
    disturbed.vector.gradient.fill_(float("nan"))
    assert disturbed(RATE).tolist()[1] == 1
    for update in (disturbed, undisturbed):
        step(update, 2)
    assert torch.equal(disturbed.vector.values, undisturbed.vector.values)


@pytest.mark.parametrize("name", NAMES)
def test_what_an_optimizer_remembers_can_be_forgotten(name):
    used, new = learner(name), learner(name)
    step(used, 1)
    used.forget(done=0)
    used.vector.values.data.copy_(new.vector.values.data)
    for update in (used, new):
        step(update, 2)
    assert torch.equal(used.vector.values, new.vector.values)


@pytest.mark.parametrize("name", [name for name in NAMES if not optim.kind_of(name).one_rate])
def test_groups_learn_like_optimizers_of_their_own(name):
    """Two groups, the second at half the rate, against one optimizer for each: no group hears of another."""
    groups = [[0, 1, 4], [2, 3, 5]]
    both = learner(name, groups, factors=[1.0, 0.5])
    apart = [learner(name), learner(name)]
    for seed in range(4):
        step(both, seed)
        step(apart[0], seed, RATE)
        step(apart[1], seed, 0.5 * RATE)
    for place, matrix in enumerate(matrices(both)):
        wanted = matrices(apart[0 if place in groups[0] else 1])[place]
        torch.testing.assert_close(matrix, wanted, rtol=1e-6, atol=1e-7)


def test_schedule_free_shows_its_average_and_goes_on_untouched():
    looked_at, left_alone = learner("AdamWScheduleFree"), learner("AdamWScheduleFree")
    start = left_alone.vector.values.detach().clone()
    points = []  # z of arXiv:2405.15682
    for seed in range(4):
        for update in (looked_at, left_alone):
            step(update, seed)
        points.append(looked_at.optimizer.state[looked_at.vector.values]["z"].clone())
        with looked_at.averaged():
            # with a constant rate x is the plain mean of all z so far (equation 5, c = 1 / t)
            torch.testing.assert_close(looked_at.vector.values.data, torch.stack(points).mean(0))
    assert torch.equal(looked_at.vector.values, left_alone.vector.values)
    assert not torch.equal(start, left_alone.vector.values)


def test_the_rate_reaches_every_group():
    update = learner("AdamW", [[0, 1], [2, 3, 4, 5]], factors=[1.0, 0.1])
    step(update, 1, rate=0.25)
    assert [group["lr"] for group in update.optimizer.param_groups] == [0.25, 0.025]


def test_arguments_reach_the_optimizer():
    assert learner("AdamW", betas=[0.8, 0.9]).optimizer.param_groups[0]["betas"] == (0.8, 0.9)
    assert learner("Prodigy", d_coef=0.5).optimizer.param_groups[0]["d_coef"] == 0.5


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        (
            "AdamW",
            {"beta": 0.9},
            "optim.arguments has 'beta', which AdamW does not take; it takes betas, eps",
        ),
        ("AdamW", {"lr": 1.0}, "optim.arguments has 'lr'; set optim.learning_rate instead."),
        ("AdamW", {"betas": [2.0, 0.9]}, r"AdamW can't be used with optim.arguments .*Invalid beta"),
        ("Lion", {"betas": 0.9}, r"Lion can't be used with optim.arguments"),
        (
            "no_such_package.Adam",
            {},
            "needs the package no_such_package .*python -m pip install no_such_package",
        ),
        ("torch.optim.Adamm", {}, "is no optimizer of PyTorch's kind"),
        ("os.getcwd", {}, "is no optimizer of PyTorch's kind"),
        ("torch.nn.Linear", {}, "is no optimizer of PyTorch's kind"),
    ],
)
def test_what_can_not_be_is_one_sentence(name, arguments, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        learner(name, **arguments)
    assert "\n" not in str(caught.value)


def test_an_optimizer_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(optim.KINDS, "Prodigy", optim.Kind("not_there.Prodigy", "prodigyopt"))
    with pytest.raises(ValueError, match="install it with: python -m pip install prodigyopt"):
        learner("Prodigy")


class Rememberer(torch.optim.SGD):
    """Keeps an object in its state that can't be read back safely."""

    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["seen"] = pathlib.PurePosixPath("a path")


class Asker(torch.optim.SGD):
    """Needs a closure, as LBFGS does."""

    def step(self, closure):
        return closure()


OPTIONS = {"learning_rate": 0.1, "weight_decay": 0.0}


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Rememberer, "remembers more than numbers"), (Asker, "can't do a step as other optimizers do")],
)
def test_an_optimizer_that_no_run_could_go_on_with_is_refused(monkeypatch, kind, words):
    monkeypatch.setattr(torch.optim, kind.__name__, kind, raising=False)
    with pytest.raises(ValueError, match=words):
        optim.try_out(f"torch.optim.{kind.__name__}", torch.device("cpu"), **OPTIONS)


@pytest.mark.parametrize("name", ["RAdam", "SGD", "Adamax", "NAdam", "Adadelta", "RMSprop", "ASGD", "Rprop"])
def test_optimizers_of_pytorch_can_be_gone_on_with(name):
    optim.try_out(f"torch.optim.{name}", torch.device("cpu"), **OPTIONS)
