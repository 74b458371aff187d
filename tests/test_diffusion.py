import diffusers
import pytest
import torch

from lora_sd.training import diffusion

SCHEDULE = diffusers.DDPMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
)
ALPHA_BAR = SCHEDULE.alphas_cumprod
T = torch.tensor([0, 100, 500, 999])
# t: SNR, min-SNR epsilon, min-SNR v at gamma 5; computed in float32 from the same betas
GOLDEN = torch.tensor(
    [
        [1175.4403, 0.004254, 0.004250],
        [8.453865, 0.591445, 0.528884],
        [0.381850, 1.0, 0.276332],
        [0.004682, 1.0, 0.004660],
    ]
)


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


def test_min_snr_is_finite_where_no_signal_is_left():
    assert diffusion.min_snr_weight(torch.zeros(1), 5.0, "epsilon").item() == 1.0
    assert diffusion.min_snr_weight(torch.zeros(1), 5.0, "v_prediction").item() == 0.0


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
