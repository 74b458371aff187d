import copy

import pytest
import torch
from torch import nn

from lora_sd.lora.pairs import LowRank, Pair
from lora_sd.training import optim
from lora_sd.training.update import LossScale, Update
from lora_sd.training.vector import Vector


def adamw(parameters, **options):
    return optim.make("AdamW", [parameters], **options)


def updater(seed=0, scaled=False, max_grad_norm=1.0, optimizer=adamw):
    rng = torch.Generator().manual_seed(seed)
    pairs = [Pair(torch.randn(2, 5, generator=rng), torch.randn(3, 2, generator=rng), 2.0) for _ in range(3)]
    vector = Vector([LowRank("lora", pair) for pair in pairs], torch.float32)
    optimizer = optimizer([vector.values], learning_rate=0.1, weight_decay=0.01)
    scale = LossScale(scaled, torch.device("cpu"))
    return Update(vector, optimizer, max_grad_norm=max_grad_norm, scale=scale)


def gradients(update, factor=1.0, seed=5):
    """Put a gradient into the vector; gives its matrices."""
    rng = torch.Generator().manual_seed(seed)
    matrices = [torch.randn(shape, generator=rng) * factor for shape in update.vector.shapes]
    update.vector.gradient.copy_(update.vector.join(matrices))
    return matrices


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0, 1e6])
def test_it_is_torchs_clipping_and_adamw_matrix_by_matrix(max_grad_norm):
    update = updater(max_grad_norm=max_grad_norm)
    theirs = [nn.Parameter(view.clone()) for view in update.vector.split(update.vector.values.data)]
    adamw = torch.optim.AdamW(theirs, lr=0.03, weight_decay=0.01)
    for seed in range(4):
        for parameter, gradient in zip(theirs, gradients(update, seed=seed), strict=True):
            parameter.grad = gradient.clone()
        if max_grad_norm:
            nn.utils.clip_grad_norm_(theirs, max_grad_norm)
        adamw.step()
        update(0.03)
    for ours, parameter in zip(update.vector.split(update.vector.values.data), theirs, strict=True):
        torch.testing.assert_close(ours, parameter.data, rtol=1e-5, atol=1e-6)
    assert not update.vector.sums.any()


def plain_sgd(parameters, *, learning_rate, weight_decay):
    """An optimizer that does not look at `found_inf` itself."""
    return torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9)


@pytest.mark.parametrize("optimizer", [adamw, plain_sgd])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(optimizer, where):
    update = updater(optimizer=optimizer)
    gradients(update)
    update(0.1)
    before = update.vector.values.clone()
    memory = {k: v.clone() for k, v in update.optimizer.state[update.vector.values].items()}
    gradients(update)
    (update.vector.loss if where == "loss" else update.vector.gradient[3:4]).fill_(float("nan"))
    _, left_out, _ = update(0.1).tolist()
    assert left_out == 1 and torch.equal(update.vector.values, before) and not update.vector.sums.any()
    assert all(torch.equal(memory[k], v) for k, v in update.optimizer.state[update.vector.values].items())
    gradients(update)
    assert update(0.1).tolist()[1] == 0 and not torch.equal(update.vector.values, before)


def test_the_loss_and_the_norm_before_clipping_come_back_with_the_step():
    update = updater()
    norm = torch.cat([matrix.flatten() for matrix in gradients(update)]).norm()
    update.vector.loss.fill_(0.25)
    assert update(0.1).tolist() == pytest.approx([0.25, 0.0, norm.item()])


def test_arguments_are_those_that_it_was_made_with_and_what_it_remembers_is_taken_over():
    def of(decay):
        def make(parameters, *, learning_rate, weight_decay):
            return optim.make(
                "Prodigy",
                [parameters],
                learning_rate=1.0,
                weight_decay=decay,
                arguments={"d_coef": 1 + decay, "betas": [0.9, 0.99 + decay / 10]},
            )

        return updater(optimizer=make)

    one, other = of(0.01), of(0.05)
    for seed in range(3):
        gradients(one, seed=seed)
        one(1.0)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    [before], [group] = one.optimizer.param_groups, other.optimizer.param_groups
    assert (group["weight_decay"], group["d_coef"], group["betas"]) == (0.05, 1.05, (0.9, 0.995))
    assert group["k"] == before["k"] == 3 and group["d"] == before["d"]


def test_a_scaled_loss_trains_like_an_unscaled_one():
    plain, scaled = updater(), updater(scaled=True)
    for step in range(3):
        gradients(plain, seed=step)
        gradients(scaled, scaled.scale.factor.item(), seed=step)
        plain(0.1), scaled(0.1)
    torch.testing.assert_close(plain.vector.values, scaled.vector.values)


def test_the_scale_moves_as_torchs_grad_scaler_moves():
    ours, theirs = LossScale(True, torch.device("cpu")), torch.amp.GradScaler("cpu", growth_interval=4)
    ours.PATIENCE = 4
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    for overflow in [False] * 3 + [True] * 2 + [False] * 9 + [True] + [False] * 4:
        parameter.grad = torch.full((1,), float("inf") if overflow else 1.0)
        theirs.scale(torch.ones(1))
        theirs.step(optimizer)
        theirs.update()
        ours.follow(torch.tensor(overflow))
        assert ours.factor.item() == theirs.get_scale()


def test_an_overflow_in_fp16_is_left_out_and_not_called_bad():
    update = updater(scaled=True)
    before = update.vector.values.clone()
    gradients(update)
    update.vector.gradient[0] = float("inf")
    assert update(0.1).tolist()[1] == 0 and torch.equal(update.vector.values, before)
    assert update.scale.factor.item() == LossScale.START / 2


def test_the_state_goes_on_where_it_was():
    one, other = updater(scaled=True), updater(scaled=True)
    gradients(one, 100.0)
    one(0.1)
    with torch.no_grad():
        other.vector.values.copy_(one.vector.values)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for update in (one, other):
        gradients(update, 3.0, seed=8)
        update(0.1)
    assert torch.equal(one.vector.values, other.vector.values)
