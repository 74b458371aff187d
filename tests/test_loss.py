import json
import shutil

import diffusers
import pytest
import torch
import torch.nn.functional as F

from lora_sd.models.family import Conditioning
from lora_sd.models.load import load
from lora_sd.training import diffusion
from lora_sd.training.loss import HELD_OUT_T, PLAIN, Inputs, Loss, denoising_loss, held_out_losses

FAMILIES = ["sd15", "sd2-v", "sdxl"]


def inputs_for(models, count=2):
    rng = torch.Generator().manual_seed(1)
    width = models.unet.config.cross_attention_dim
    width_pooled = models.text_encoders[-1].config.projection_dim
    pooled = torch.randn(count, width_pooled, generator=rng) if models.family.size_conditioning else None
    return Inputs(
        latents=torch.randn(count, 4, 16, 16, generator=rng),
        conditioning=Conditioning(torch.randn(count, 77, width, generator=rng), pooled),
        sizes=torch.tensor([[128, 128, 0, 0, 128, 128]] * count),
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_the_loss_is_the_one_of_diffusers_training_scripts(tiny_models, name):
    models = tiny_models(name)
    inputs, t, noise = inputs_for(models), torch.tensor([100, 700]), torch.randn(2, 4, 16, 16)
    prediction, wanted = as_diffusers_has_it(models, inputs, t, noise, noise)
    theirs = F.mse_loss(prediction, wanted, reduction="none").mean((1, 2, 3))
    torch.testing.assert_close(denoising_loss(models, inputs, t, noise), theirs)


def as_diffusers_has_it(models, inputs, t, noise, noise_of_input):
    """(prediction, target) by the lines of their training step, written out with their scheduler and the bare U-Net."""
    scheduler = diffusers.DDPMScheduler.from_config(
        models.scheduler_config, prediction_type=models.prediction
    )
    added = {"text_embeds": inputs.conditioning.pooled, "time_ids": inputs.sizes.float()}
    prediction = models.unet(
        scheduler.add_noise(inputs.latents, noise_of_input, t),
        t,
        inputs.conditioning.tokens,
        added_cond_kwargs=added if models.family.size_conditioning else None,
    ).sample
    wanted = noise if models.prediction == "epsilon" else scheduler.get_velocity(inputs.latents, noise, t)
    return prediction, wanted


@pytest.mark.parametrize("name", FAMILIES)
def test_a_perturbation_is_in_the_input_and_not_in_the_target(tiny_models, name):
    models = tiny_models(name)
    inputs, t, noise = inputs_for(models), torch.tensor([100, 700]), torch.randn(2, 4, 16, 16)
    more = 0.1 * torch.randn(2, 4, 16, 16)
    prediction, wanted = as_diffusers_has_it(models, inputs, t, noise, noise + more)
    ours = denoising_loss(models, inputs._replace(perturbation=more), t, noise)
    torch.testing.assert_close(ours, (prediction - wanted).square().mean((1, 2, 3)))


WEIGHTS = {
    Loss(min_snr=5.0): lambda *args: diffusion.min_snr_weight(args[0], 5.0, args[1]),
    Loss("soft_min_snr", 5.0): lambda *args: diffusion.soft_min_snr_weight(args[0], 5.0, args[1]),
    Loss("soft_min_snr", 0.0): lambda *args: torch.ones(2),
    Loss("debiased", 5.0): diffusion.debiased_weight,
}


@pytest.mark.parametrize("name", ["sd15", "sd2-v"])
def test_a_weighting_scales_each_example_by_its_own_weight(tiny_models, name):
    models = tiny_models(name)
    inputs, t, noise = inputs_for(models), torch.tensor([0, 900]), torch.randn(2, 4, 16, 16)
    plain = denoising_loss(models, inputs, t, noise)
    for how, weight in WEIGHTS.items():
        weighed = denoising_loss(models, inputs, t, noise, how)
        torch.testing.assert_close(weighed / plain, weight(models.alpha_bar[t], models.prediction))


KINDS = {
    Loss(kind="l1"): lambda *args: F.l1_loss(*args, reduction="none"),
    Loss(kind="l2"): lambda *args: F.mse_loss(*args, reduction="none"),
    Loss(kind="huber", huber_schedule="constant"): lambda a, b: 0.2 * (((a - b) ** 2 + 0.01) ** 0.5 - 0.1),
    Loss(kind="smooth_l1", huber_schedule="constant"): lambda a, b: 2 * (((a - b) ** 2 + 0.01) ** 0.5 - 0.1),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_kind_of_loss_is_the_mean_of_what_its_errors_count(tiny_models, name):
    models = tiny_models(name)
    inputs, t, noise = inputs_for(models), torch.tensor([100, 700]), torch.randn(2, 4, 16, 16)
    both = as_diffusers_has_it(models, inputs, t, noise, noise)
    for how, counts in KINDS.items():
        ours = denoising_loss(models, inputs, t, noise, how)
        torch.testing.assert_close(ours, counts(*both).mean((1, 2, 3)))


def test_the_huber_threshold_is_that_of_each_examples_noise(tiny_models):
    models = tiny_models("sd15")
    inputs, t, noise = inputs_for(models), torch.tensor([100, 700]), torch.randn(2, 4, 16, 16)
    each = [
        denoising_loss(models, inputs, t, noise, Loss(kind="huber", huber_schedule="constant", huber_c=c))[i]
        for i, c in enumerate(0.1 ** (t / 1000))
    ]
    together = denoising_loss(models, inputs, t, noise, Loss(kind="huber", huber_schedule="exponential"))
    torch.testing.assert_close(together, torch.stack(each))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_weights_of_a_model_with_zero_terminal_snr_are_those_of_its_own_schedule(
    tiny_folder, tmp_path, prediction
):
    """Its last timestep is pure noise, which Min-SNR leaves whole for noise, and which says nothing for velocity."""
    shutil.copytree(tiny_folder("sd15"), tmp_path / "model")
    path = tmp_path / "model" / "scheduler" / "scheduler_config.json"
    changes = {"rescale_betas_zero_snr": True, "prediction_type": prediction}
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    models = load(str(tmp_path / "model"))
    inputs, t, noise = inputs_for(models), torch.tensor([100, 999]), torch.randn(2, 4, 16, 16)
    weighed, plain = (denoising_loss(models, inputs, t, noise, how) for how in (Loss(min_snr=5.0), PLAIN))
    ratio = 7.8309  # of t = 100 after the fix; 8.4539 before
    wanted = [5 / ratio, 1.0] if prediction == "epsilon" else [5 / (ratio + 1), 0.0]
    assert (weighed / plain).tolist() == pytest.approx(wanted, rel=1e-4)


EVERY_WAY = [
    Loss(min_snr=5.0, keep_base=1.0),
    Loss("soft_min_snr", 5.0),
    Loss("debiased"),
    Loss(kind="l1"),
    *(Loss(kind="huber", huber_schedule=schedule) for schedule in ("snr", "exponential", "constant")),
    Loss(kind="smooth_l1"),
]


@pytest.mark.parametrize("name", ["sd2-v", "sdxl"])
def test_no_loss_looks_at_a_number(tiny_models, name):
    """What a recording can't have raises on tensors without numbers, too."""
    models = tiny_models(name)
    models.unet.to("meta")
    models.alpha_bar = models.alpha_bar.to("meta")
    latents, (tokens, pooled), sizes, *_ = inputs_for(models)
    conditioning = Conditioning(tokens.to("meta"), pooled if pooled is None else pooled.to("meta"))
    inputs = Inputs(latents.to("meta"), conditioning, sizes.to("meta"), perturbation=latents.to("meta"))
    for how in EVERY_WAY:
        loss = denoising_loss(models, inputs, torch.tensor([100, 700]).to("meta"), inputs.latents, how)
        assert loss.is_meta and loss.shape == (2,)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_held_out_loss_is_the_mean_over_fixed_timesteps(tiny_models, name):
    models = tiny_models(name)
    one = inputs_for(models, count=1)
    noise = torch.randn(5, 4, 16, 16, generator=diffusion.generator(3, 0))
    each = [
        denoising_loss(models, one, torch.tensor([t]), noise[i : i + 1]).item()
        for i, t in enumerate(HELD_OUT_T)
    ]
    wanted = pytest.approx(sum(each) / 5, rel=1e-4)
    assert held_out_losses(models, [(0, one)], seed=3) == [wanted]
    assert held_out_losses(models, [(0, one)], seed=3, at_once=2) == [wanted]


def test_the_held_out_loss_is_the_same_twice(tiny_models):
    models = tiny_models("sd15")
    one = inputs_for(models, count=1)
    assert held_out_losses(models, [(0, one)], seed=3) == held_out_losses(models, [(0, one)], seed=3)
