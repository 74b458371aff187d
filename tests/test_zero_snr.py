"""SDXL with v-prediction and zero terminal SNR, as NoobAI's single files are: told, trained and drawn from pure noise."""

import diffusers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, safe_open
from small_runs import config_for, told
from test_hidden import close

from lora_sd import events, sample
from lora_sd.models import text
from lora_sd.models.load import load
from lora_sd.training import loss
from lora_sd.training.train import train

MARKS = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}


@pytest.fixture
def noob(tiny_checkpoint):
    return tiny_checkpoint("sdxl", extra=MARKS)


def test_such_a_file_trains_and_its_lora_says_so(noob, pictures):
    changes = {"optim.steps": 2, "preview.every": 2, "preview.steps": 1, "preview.prompts": ["a cat"]}
    path = train(config_for(noob, pictures, **changes, **{"preview.rescale": 0.7}))
    with safe_open(path, "pt") as file:
        header = file.metadata()
    assert (header["modelspec.prediction_type"], header["ss_zero_terminal_snr"]) == ("v", "True")
    steps = [event for event in told() if isinstance(event, events.Step) and event.step]
    assert len(steps) == 2 and not any(step.left_out for step in steps)
    weights = load_file(path)
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert any(tensor.any() for name, tensor in weights.items() if "lora_up" in name)
    assert [event for event in told() if isinstance(event, events.Preview)]


def test_of_pure_noise_the_model_is_asked_for_the_picture(noob):
    """At ᾱ = 0 v is −x₀, and the U-Net sees noise alone."""
    models, t = load(str(noob)), torch.tensor([999])
    latents, noise = torch.randn(1, 4, 16, 16), torch.randn(1, 4, 16, 16)
    conditioning, sizes = text.encode(models, ["a cat"]), torch.full((1, 6), 128.0)
    inputs = loss.Inputs(latents, conditioning, sizes)
    with torch.no_grad():
        answer = models.predict(noise, t, conditioning, sizes)
        found = loss.denoising_loss(models, inputs, t, noise)
        weighed = loss.denoising_loss(models, inputs, t, noise, loss.Loss(min_snr=5.0))
    torch.testing.assert_close(found, F.mse_loss(answer, -latents)[None])
    assert weighed == 0  # min(SNR, γ) / (SNR + 1)


def test_drawing_begins_at_pure_noise_and_stays_finite_with_every_sampler(noob, monkeypatch):
    models = load(str(noob))
    real, seen, latents = models.unet.forward, [], []

    def forward(x, t, *rest, **options):
        seen.append((x, t))
        return real(x, t, *rest, **options)

    monkeypatch.setattr(models.unet, "forward", forward)
    decode = sample.decode
    monkeypatch.setattr(sample, "decode", lambda models, x: latents.append(x) or decode(models, x))
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(7)).expand(2, -1, -1, -1)
    for sampler in sample.SAMPLERS:
        seen.clear()
        sample.generate(models, "a cat", seeds=[7], steps=4, sampler=sampler, guidance=3.0)
        first, t = seen[0]
        assert t.tolist() == [999, 999], sampler
        torch.testing.assert_close(first, noise, rtol=1e-3, atol=1e-3)
    assert all(x.isfinite().all() and x.std() < 10 for x in latents)


def test_pictures_equal_those_that_diffusers_draws(noob, tiny_folder):
    models = load(str(noob))
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(tiny_folder("sdxl"))
    pipeline.set_progress_bar_config(disable=True)
    config = pipeline.scheduler.config
    for sampler, rescale in (("euler", 0.0), ("ddim", 0.7), ("dpmpp_2m_karras", 0.7)):
        pipeline.scheduler = sample.SAMPLERS[sampler][0].from_config(
            config,
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
        )
        theirs = pipeline(
            "a cat",
            negative_prompt="",
            num_inference_steps=3,
            guidance_scale=5.0,
            guidance_rescale=rescale,
            generator=torch.Generator().manual_seed(7),
            height=128,
            width=128,
        ).images[0]
        [ours] = sample.generate(models, "a cat", seeds=[7], steps=3, sampler=sampler, rescale=rescale)
        assert close(ours, theirs), sampler


def test_a_model_that_predicts_noise_does_not_begin_where_nothing_can_be_told(tiny_models):
    models = tiny_models("sd15", zero_snr=True)
    for sampler in sample.SAMPLERS:
        [picture] = sample.generate(models, "a cat", steps=3, sampler=sampler)
        assert min(np.asarray(picture).std((0, 1))) > 1, sampler


def test_models_of_the_usual_schedule_are_drawn_as_ever(tiny_models):
    scheduler = sample.scheduler_for(tiny_models("sdxl"), "dpmpp_2m_karras")
    assert scheduler.config.use_karras_sigmas and scheduler.config.timestep_spacing == "leading"
