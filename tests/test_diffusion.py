import diffusers
import pytest
import torch

from lora_sd.training import diffusion

SCHEDULE = diffusers.DDPMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
)
ALPHA_BAR = SCHEDULE.alphas_cumprod
T = torch.tensor([0, 100, 500, 999])
# t: SNR, min-SNR epsilon, min-SNR v at gamma 5, debiased epsilon, debiased v; computed in float32 from the same betas
GOLDEN = torch.tensor(
    [
        [1175.4403, 0.004254, 0.004250, 0.031623, 0.000999],
        [8.453865, 0.591445, 0.528884, 0.343932, 0.105777],
        [0.381850, 1.0, 0.276332, 1.618280, 0.723668],
        [0.004682, 1.0, 0.004660, 14.614647, 0.995340],
    ]
)
ZERO_SNR = diffusers.DDPMScheduler.from_config(SCHEDULE.config, rescale_betas_zero_snr=True).alphas_cumprod


def latents_and_noise():
    rng = torch.Generator().manual_seed(0)
    return torch.randn(4, 4, 8, 8, generator=rng), torch.randn(4, 4, 8, 8, generator=rng)


def test_noise_is_added_as_diffusers_adds_it():
    latents, noise = latents_and_noise()
    torch.testing.assert_close(
        diffusion.add_noise(latents, noise, ALPHA_BAR[T]), SCHEDULE.add_noise(latents, noise, T)
    )


def test_velocity_is_diffusers_velocity():
    latents, noise = latents_and_noise()
    torch.testing.assert_close(
        diffusion.target(latents, noise, ALPHA_BAR[T], "v_prediction"),
        SCHEDULE.get_velocity(latents, noise, T),
    )


def test_the_target_of_epsilon_is_the_noise():
    latents, noise = latents_and_noise()
    assert diffusion.target(latents, noise, ALPHA_BAR[T], "epsilon") is noise


@pytest.mark.parametrize(("column", "prediction"), [(1, "epsilon"), (2, "v_prediction")])
def test_min_snr_weights_have_their_golden_values(column, prediction):
    weights = diffusion.min_snr_weight(ALPHA_BAR[T], 5.0, prediction)
    torch.testing.assert_close(weights, GOLDEN[:, column], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(diffusion.snr(ALPHA_BAR[T]), GOLDEN[:, 0], rtol=1e-4, atol=1e-6)


def test_both_min_snr_weights_are_one_weight_on_the_clean_picture():
    """‖x₀ error‖² is ‖ε error‖² / SNR and ‖v error‖² / (SNR + 1), so the weights on x₀ must agree."""
    a = ALPHA_BAR
    on_x0 = diffusion.min_snr_weight(a, 5.0, "epsilon") * diffusion.snr(a)
    torch.testing.assert_close(
        on_x0, diffusion.min_snr_weight(a, 5.0, "v_prediction") * (diffusion.snr(a) + 1)
    )


@pytest.mark.parametrize("weight", [diffusion.min_snr_weight, diffusion.soft_min_snr_weight])
def test_both_kinds_of_min_snr_are_finite_where_no_signal_is_left(weight):
    assert weight(torch.zeros(1), 5.0, "epsilon").item() == 1.0
    assert weight(torch.zeros(1), 5.0, "v_prediction").item() == 0.0


@pytest.mark.parametrize(("column", "prediction"), [(3, "epsilon"), (4, "v_prediction")])
def test_debiased_weights_have_their_golden_values(column, prediction):
    weights = diffusion.debiased_weight(ALPHA_BAR[T], prediction)
    torch.testing.assert_close(weights, GOLDEN[:, column], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_debiased_weights_are_finite_where_no_signal_is_left(prediction):
    assert diffusion.debiased_weight(ZERO_SNR, prediction).isfinite().all()


@pytest.mark.parametrize(("prediction", "more"), [("epsilon", 0), ("v_prediction", 1)])
def test_soft_min_snr_is_half_the_harmonic_mean_of_snr_and_gamma_on_the_clean_picture(prediction, more):
    """1 / (1/SNR + 1/γ): that of the smaller one where they are far apart, and half of it where they are equal."""
    ratio = diffusion.snr(ALPHA_BAR.double())
    on_x0 = diffusion.soft_min_snr_weight(ALPHA_BAR.double(), 5.0, prediction) * (ratio + more)
    torch.testing.assert_close(on_x0, 1 / (1 / ratio + 1 / 5.0))
    sharp = ratio.clamp(max=5.0)
    assert (on_x0 < sharp).all() and (on_x0 >= 0.4999 * sharp).all()


def test_snr_is_that_of_the_schedule_after_the_zero_terminal_fix():
    """Golden numbers of the fixed schedule (arXiv:2305.08891, algorithm 1): weights must not come from the one before."""
    t = torch.tensor([100, 500, 998, 999])
    golden = torch.tensor([7.8309, 0.317555, 1.96796e-7, 0.0])
    torch.testing.assert_close(diffusion.snr(ZERO_SNR[t]), golden, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(ZERO_SNR[t[:2]], torch.tensor([0.8867610, 0.24101864]), rtol=1e-5, atol=0)


def test_draws_depend_on_the_place_in_the_global_batch_only():
    whole = diffusion.draw(7, 3, range(4), (4, 8, 8), 1000)
    part = diffusion.draw(7, 3, [2, 3], (4, 8, 8), 1000)
    for all_of_it, tail in zip(whole, part, strict=True):
        assert torch.equal(all_of_it[2:], tail)


def test_other_steps_and_seeds_draw_other_numbers():
    here = diffusion.draw(7, 3, [0], (4, 8, 8), 1000).noise
    assert not torch.equal(here, diffusion.draw(7, 4, [0], (4, 8, 8), 1000).noise)
    assert not torch.equal(here, diffusion.draw(8, 3, [0], (4, 8, 8), 1000).noise)


def test_timesteps_are_uniform_over_the_whole_range():
    t = torch.cat([diffusion.draw(1, step, range(8), (1, 1, 1), 10).t for step in range(250)])
    assert t.bincount(minlength=10).min() > 140 and t.max() == 9
