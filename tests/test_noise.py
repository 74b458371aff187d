import pytest
import torch
from small_runs import body, config_for, stop_at

from lora_sd import config as cfg
from lora_sd import run
from lora_sd.lora.inspection import read_header
from lora_sd.training import noise
from lora_sd.training.diffusion import generator
from lora_sd.training.noise import PLAIN, Noise
from lora_sd.training.train import train

KEYS = [(1, step, 0) for step in range(300)]


def plain_noise(count=300, side=8):
    return torch.randn(count, 4, side, side, generator=torch.Generator().manual_seed(0))


def offsets(how, latents=None):
    """What `shaped` adds to each channel, (B, C); the same at all its pixels."""
    plain = plain_noise()
    added = noise.shaped(plain, torch.zeros_like(plain) if latents is None else latents, KEYS, how) - plain
    torch.testing.assert_close(added, added[..., :1, :1].expand_as(added), atol=1e-5, rtol=0)
    return added[..., 0, 0]


def test_plain_noise_is_left_alone():
    plain = plain_noise()
    assert noise.shaped(plain, plain, KEYS, PLAIN) is plain
    assert noise.perturbation((4, 8, 8), KEYS, PLAIN) is None


def test_the_settings_are_the_ones_of_the_noise_and_off_by_default():
    assert Noise(**dict(cfg.TrainConfig().noise)) == PLAIN


def test_an_offset_is_normal_with_its_strength():
    assert offsets(Noise(offset=0.1)).std().item() == pytest.approx(0.1, rel=0.05)


def test_a_random_offset_is_uniform_times_normal():
    """Its variance is o² · ∫u² du = o² / 3, and all channels of an example share one strength."""
    found = offsets(Noise(offset=0.3, offset_random=True))
    assert found.std().item() == pytest.approx(0.3 / 3**0.5, rel=0.08)
    share = torch.stack([torch.rand((), generator=generator(*key, noise.OFFSET)) for key in KEYS])
    assert (found / share[:, None]).std().item() == pytest.approx(0.3, rel=0.05)


def test_an_adaptive_offset_follows_the_mean_of_each_channel():
    means = torch.tensor([0.0, 1.0, -2.0, 0.5])
    latents = means[:, None, None] + plain_noise() - plain_noise().mean((2, 3), keepdim=True)
    found = offsets(Noise(offset=0.1, offset_adaptive=0.2), latents)
    torch.testing.assert_close(found.std(0), 0.1 + 0.2 * means.abs(), rtol=0.15, atol=0)
    torch.testing.assert_close(
        found / (0.1 + 0.2 * means.abs()), offsets(Noise(offset=1.0)), rtol=1e-4, atol=1e-4
    )
    assert not offsets(Noise(offset=0.1, offset_adaptive=-1.0), latents)[:, 1].any()  # 0.1 − 1 is no strength


def test_one_level_of_the_pyramid_is_noise_as_fine_as_it_was():
    plain = plain_noise(1)
    rng = generator(*KEYS[0], noise.PYRAMID)
    torch.rand((), generator=rng)
    both = plain[0] + torch.randn(1, 4, 8, 8, generator=rng)[0]
    found = noise.shaped(plain, plain, KEYS[:1], Noise(pyramid=1))
    torch.testing.assert_close(found[0], both / both.std())


def test_a_pyramid_adds_what_numerics_say(monkeypatch):
    """With all coarse noise 1, enlarging changes nothing: the sum is noise + Σ dⁱ over the levels until a side is 1."""
    monkeypatch.setattr(noise.torch, "randn", lambda *shape, generator: torch.ones(shape))
    monkeypatch.setattr(noise.torch, "rand", lambda *shape, generator: torch.tensor(0.5))  # r = 3
    plain = plain_noise(1, side=16)[0]
    for levels, weights in {1: 1, 2: 1.5, 3: 1.75, 9: 1.75}.items():  # sides 16, 5, 1
        unscaled = plain + weights
        torch.testing.assert_close(noise.pyramid(plain, None, levels, 0.5), unscaled / unscaled.std())


def test_pyramid_noise_is_coarser_and_as_strong_as_before():
    plain = plain_noise(side=16)
    found = noise.shaped(plain, plain, KEYS, Noise(pyramid=6, pyramid_discount=0.8))
    torch.testing.assert_close(found.std((1, 2, 3)), torch.ones(len(found)), rtol=1e-4, atol=0)
    coarse, white = (torch.nn.functional.avg_pool2d(x, 4).var().item() for x in (found, plain))
    assert white == pytest.approx(1 / 16, rel=0.1) and coarse > 3 * white


def timesteps(how, count=3000):
    return noise.timesteps(None, [(1, 1, index) for index in range(count)], how)


def is_distributed(shares, cumulative):
    """Kolmogorov's distance from a distribution is that of 3,000 draws (1.63 / √n is passed once in a hundred)."""
    shares = shares.double().sort().values
    between = cumulative(shares) - (torch.arange(len(shares)) + 0.5) / len(shares)
    return between.abs().max().item() < 1.63 / len(shares) ** 0.5


def test_timesteps_of_the_whole_range_are_left_alone():
    t = torch.arange(300)
    assert noise.timesteps(t, KEYS, Noise(offset=0.1, logit_mean=1.0)) is t


def test_a_range_of_timesteps_is_uniform_and_ends_before_its_maximum():
    t = timesteps(Noise(min_timestep=100, max_timestep=110))
    assert t.min() == 100 and t.max() == 109 and t.dtype == torch.int64
    assert t.sub(100).bincount(minlength=10).min() > 240  # 300 of each, ± 16
    assert {*timesteps(Noise(min_timestep=7, max_timestep=8)).tolist()} == {7}


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.0, 0.5), (-2.0, 2.0)])
def test_the_logit_of_a_logit_normal_timestep_is_normal(mean, std):
    t = timesteps(Noise(density="logit_normal", logit_mean=mean, logit_std=std))
    shares = (t + 0.5) / 1000
    assert is_distributed(shares, lambda x: torch.special.ndtr((x.logit() - mean) / std))
    assert not is_distributed(shares, lambda x: x)


@pytest.mark.parametrize("shift", [0.5, 3.0])
def test_a_shift_multiplies_the_odds_of_noise(shift):
    """s·u / (1 + (s − 1)·u) has the odds s · u / (1 − u), so u is the share whose odds are divided by s."""
    shares = (timesteps(Noise(shift=shift)) + 0.5) / 1000
    assert is_distributed(shares, lambda x: torch.sigmoid(x.logit() - torch.tensor(shift).log()))
    logits = ((timesteps(Noise(shift=shift, density="logit_normal")) + 0.5) / 1000).logit()
    assert logits.mean().item() == pytest.approx(torch.tensor(shift).log().item(), abs=0.06)


def test_a_very_wide_density_stays_in_its_range():
    t = timesteps(Noise(density="logit_normal", logit_mean=5.0, logit_std=5.0, shift=20.0))
    assert t.max() == 999 and t.min() >= 0


def test_a_perturbation_is_normal_with_its_strength():
    found = noise.perturbation((4, 8, 8), KEYS, Noise(perturbation=0.1))
    assert found.std().item() == pytest.approx(0.1, rel=0.02)
    drawn = noise.perturbation((4, 8, 8), KEYS, Noise(perturbation=0.1, perturbation_random=True))
    share = drawn.std((1, 2, 3)) / 0.1  # uniform in 0 … 1
    assert share.mean().item() == pytest.approx(0.5, abs=0.05) and share.max() < 1.15
    assert share.std().item() == pytest.approx(12**-0.5, rel=0.1)


def test_noises_do_not_change_each_other_and_depend_on_their_key_only():
    alone = noise.perturbation((4, 8, 8), KEYS, Noise(perturbation=0.1))
    beside = noise.perturbation((4, 8, 8), KEYS, Noise(perturbation=0.1, offset=1.0, pyramid=3))
    assert torch.equal(alone, beside)
    plain, how = plain_noise(), Noise(offset=0.1, pyramid=3)
    whole = noise.shaped(plain, plain, KEYS, how)
    assert torch.equal(noise.shaped(plain[7:9], plain[7:9], KEYS[7:9], how), whole[7:9])


def test_a_run_with_all_noises_resumes_bit_for_bit_and_tells_of_them(tiny_folder, pictures):
    noises = {
        "noise.density": "logit_normal",
        "noise.max_timestep": 900,
        "noise.offset": 0.05,
        "noise.offset_adaptive": 0.01,
        "noise.pyramid": 4,
        "noise.perturbation": 0.1,
    }
    config = config_for(tiny_folder("sd15"), pictures, **noises)
    whole = train(config)
    train(config, stop_at(2))
    assert body(train(config, folder=run.list_runs()[0].folder)) == body(whole)
    told = read_header(whole).metadata
    assert told["modelspec.timestep_range"] == "0,900"
    assert told["ss_noise_offset"] == "0.05" and told["ss_multires_noise_iterations"] == "4"
    assert body(train(config_for(tiny_folder("sd15"), pictures))) != body(whole)
