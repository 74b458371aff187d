import pytest
import torch
import torch.nn.functional as F
from test_diffusion import ALPHA_BAR, ZERO_SNR, T

from lora_sd.training import criteria

D = torch.arange(-300, 301).double().div(100).view(1, 1, 1, -1)


def error(kind, c=0.1):
    return criteria.error(D, kind, torch.tensor([c]))


def threshold(schedule, alpha_bar=ALPHA_BAR[T], t=T, scale=1.0):
    return criteria.threshold(alpha_bar, t / 1000, schedule=schedule, c=0.1, scale=scale)


def test_l2_and_l1_are_those_of_pytorch():
    zero = torch.zeros_like(D)
    assert torch.equal(error("l2"), F.mse_loss(D, zero, reduction="none"))
    assert torch.equal(error("l1"), F.l1_loss(D, zero, reduction="none"))


@pytest.mark.parametrize("c", [0.1, 1.0])
def test_huber_and_smooth_l1_have_the_slope_of_a_square_below_the_threshold_and_are_straight_above(c):
    """d/dd of 2c·(√(d² + c²) − c) is 2c·d / √(d² + c²): 2d for small d, and never more than 2c."""
    difference = D.clone().requires_grad_()
    [slope] = torch.autograd.grad(criteria.error(difference, "huber", torch.tensor([c])).sum(), difference)
    torch.testing.assert_close(slope, 2 * c * D / torch.hypot(D, torch.tensor(c).double()))
    [slope] = torch.autograd.grad(
        criteria.error(difference, "smooth_l1", torch.tensor([c])).sum(), difference
    )
    torch.testing.assert_close(slope, 2 * D / torch.hypot(D, torch.tensor(c).double()))
    for kind in ("huber", "smooth_l1"):
        assert error(kind, c)[D == 0].item() == pytest.approx(0, abs=1e-12)


def test_a_very_high_threshold_makes_huber_the_square_and_a_very_low_one_smooth_l1_twice_the_size():
    torch.testing.assert_close(error("huber", 1e4), D.square(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(error("smooth_l1", 1e-6), 2 * D.abs(), rtol=0, atol=1e-5)


def test_every_example_has_its_own_threshold():
    c = torch.tensor([0.1, 0.5])
    both = criteria.error(D.expand(2, -1, -1, -1), "huber", c)
    for row, one in zip(both, c.tolist(), strict=True):
        torch.testing.assert_close(row, error("huber", one)[0])


def test_thresholds_by_snr_have_their_golden_values():
    golden = torch.tensor([0.949709, 0.598297, 0.231284, 0.103691])
    torch.testing.assert_close(threshold("snr"), golden, rtol=1e-4, atol=0)


def test_exponential_thresholds_fall_from_1_to_c_over_the_schedule():
    golden = torch.exp(torch.tensor(0.1).log() / 1000 * T)
    torch.testing.assert_close(threshold("exponential"), golden)
    assert threshold("exponential")[0] == 1 and threshold("exponential")[-1].item() == pytest.approx(
        0.1, rel=0.01
    )


def test_constant_thresholds_are_c():
    assert threshold("constant").tolist() == pytest.approx([0.1] * 4)


@pytest.mark.parametrize("schedule", ["snr", "exponential", "constant"])
def test_a_scale_multiplies_every_schedule(schedule):
    torch.testing.assert_close(threshold(schedule, scale=3.0), 3 * threshold(schedule))


def test_the_threshold_is_c_where_no_signal_is_left():
    assert threshold("snr", ZERO_SNR[-1:], torch.tensor([999])).tolist() == pytest.approx([0.1])
