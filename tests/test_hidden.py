"""What an inpainting model is to paint: on the grid of latents, cached exactly, drawn by picture and showing."""

import random
from collections import Counter
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, safe_open
from small_runs import body, config_for, stop_at, told

from lora_sd import events, run, sample
from lora_sd.data import hidden, images
from lora_sd.data.folder import find_examples
from lora_sd.lora import inspection
from lora_sd.training import diffusion, feed, loss, prepare
from lora_sd.training.train import train

PIPELINES = {
    "sd15-inpainting": diffusers.StableDiffusionInpaintPipeline,
    "sdxl-inpainting": diffusers.StableDiffusionXLInpaintPipeline,
}


@pytest.fixture
def dataset(tiny_models, pictures, tmp_path):
    models = tiny_models("sd15-inpainting")
    examples = find_examples(pictures).examples
    return models, prepare.prepare(examples, models, 128, tmp_path / "cache", seed=3)


def test_boxes_lie_on_the_grid_and_the_first_hides_everything():
    for seed in range(50):
        first, *others = hidden.boxes((128, 64), 8, random.Random(seed))
        assert first == (0, 0, 128, 64)
        for left, top, right, bottom in others:
            assert 0 <= left < right <= 128 and 0 <= top < bottom <= 64
            assert right - left >= 32 and bottom - top >= 16
            assert not any(side % 8 for side in (left, top, right, bottom))


def test_what_is_seen_beside_is_what_diffusers_would_make_of_the_same_mask(dataset):
    models, data = dataset
    pipeline = diffusers.StableDiffusionInpaintPipeline(
        models.vae,
        None,
        None,
        models.unet,
        diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        None,
        None,
        requires_safety_checker=False,
    )
    for index, (example, fit) in enumerate(zip(data.examples, data.fits, strict=True)):
        w, h = fit.bucket
        for shown in range(12):
            left, top, right, bottom = data.hides(index, shown)
            mask = torch.zeros(1, 1, h, w)
            mask[:, :, top:bottom, left:right] = 1
            pixels = images.load(example.path, fit)[None] * (mask < 0.5)
            cells, _ = pipeline.prepare_mask_latents(mask, pixels, 1, h, w, torch.float32, "cpu", None, False)
            with torch.no_grad():
                latents = models.vae.encode(pixels).latent_dist.mode() * models.vae.config.scaling_factor
            beside = data.batch([index], [shown]).beside
            assert torch.equal(beside[:, :1], cells)
            torch.testing.assert_close(beside[:, 1:], latents)


def test_a_picture_hides_any_of_its_parts_as_often_and_held_out_hides_all(dataset):
    _, data = dataset
    counts = Counter(data.hides(0, shown) for shown in range(400))
    assert set(counts) == set(data.boxes(0)) and min(counts.values()) > 60
    assert data.hides(0, None) == (0, 0, 128, 128)
    assert data.batch([0]).beside[:, 0].min() == 1


def test_every_part_is_encoded_before_training_and_grey_once_for_each_bucket(dataset, monkeypatch):
    _, data = dataset
    files = list(data.latents.folder.rglob("*.bin"))
    assert len(files) == 3 + 3 * hidden.RECTANGLES + 2 == len(data.to_encode())
    monkeypatch.setattr(data.latents, "_encode", lambda *_: pytest.fail("something was not encoded before"))
    for index in range(3):
        for shown in range(30):
            data.batch([index], [shown])


def test_held_out_pictures_are_hidden_whole_and_nothing_else_is_encoded(tiny_models, pictures, tmp_path):
    models, examples = tiny_models("sd15-inpainting"), find_examples(pictures).examples
    data = prepare.prepare(examples, models, 128, tmp_path / "cache", rectangles=0)
    assert len(data.to_encode()) == 3 + 2 and data.boxes(0) == [(0, 0, 128, 128)]
    text = prepare.learning_text(models)
    [(_, inputs)] = prepare.held_out_inputs(data, models, text, [0])
    assert inputs.beside[:, 0].min() == 1
    [found] = loss.held_out_losses(models, [(0, inputs)], seed=3)
    assert found > 0


def test_what_is_left_of_a_mirrored_picture_is_mirrored(tiny_models, pictures, tmp_path):
    models = tiny_models("sd15-inpainting")
    [example, *_] = find_examples(pictures).examples
    data = prepare.prepare([replace(example, flip=True)], models, 128, tmp_path / "cache")
    assert len(data.to_encode()) == 2 + 2 * hidden.RECTANGLES + 1
    box = data.boxes(0)[1]
    fit = data.fits[0]
    mirrored = replace(hidden.hide(example, box), flipped=True)
    with torch.no_grad():
        pixels = hidden.grey(images.load(example.path, fit).flip(-1), box)
        wanted = models.vae.encode(pixels[None]).latent_dist.mode()[0] * models.vae.config.scaling_factor
    torch.testing.assert_close(data.latents.load(mirrored, fit)[0], wanted)


@pytest.mark.parametrize("keep_base", [0.0, 0.5])
def test_the_loss_is_that_of_the_u_net_on_all_nine_channels(dataset, keep_base):
    """By hand: ‖ε − U([x_t, mask, masked latents])‖² over the whole picture, hidden or not."""
    models, data = dataset
    text = prepare.learning_text(models)
    [fed] = feed.feeds([data.part([0, 2], [1, 5])], text, seed=3, step=1, num_timesteps=1000)
    inputs = loss.Inputs(
        fed.latents, text.conditioning(fed.text), fed.sizes, beside=fed.beside, masks=fed.masks
    )
    found = loss.denoising_loss(models, inputs, fed.t, fed.noise, loss.Loss(keep_base=keep_base))
    noisy = diffusion.add_noise(fed.latents, fed.noise, models.alpha_bar[fed.t])
    nine = torch.cat([noisy, fed.beside], dim=1)
    with torch.no_grad():
        answer = models.unet(nine, fed.t, text.conditioning(fed.text).tokens).sample
    torch.testing.assert_close(found, F.mse_loss(answer, fed.noise, reduction="none").mean((1, 2, 3)))


def test_a_recorded_step_reads_the_hidden_parts_from_its_own_buffers(dataset):
    """A feed is all that a graph copies into its buffers: what lies beside is in it, and part of the shape it is known by."""
    models, data = dataset
    text = prepare.learning_text(models)
    feeds = [
        next(feed.feeds([data.part([0], [shown])], text, seed=3, step=1, num_timesteps=1000))
        for shown in (0, 3)
    ]
    first, later = feeds
    assert first.shapes == later.shapes != first._replace(beside=None).shapes
    assert not torch.equal(first.beside, later.beside)
    for there, here in zip(first.tensors(), later.tensors(), strict=True):  # as graph.Graphed does
        there.copy_(here)
    assert torch.equal(first.beside, later.beside)


def test_a_run_on_an_inpainting_model_goes_on_bit_for_bit_and_its_file_says_so(tiny_folder, pictures):
    changes = {
        "optim.steps": 2,
        "validate.images": str(pictures),
        "preview.every": 2,
        "preview.prompts": ["a cat"],
        "preview.steps": 1,
        "data.flip": True,
    }
    config = config_for(tiny_folder("sd15-inpainting"), pictures, **changes)
    whole = train(config)
    losses = [e.held_out for e in told() if isinstance(e, events.Step) and e.step == 0]
    assert losses[0] and [e for e in told() if isinstance(e, events.Preview)]
    train(config, stop_at(1))
    assert body(train(config, folder=run.list_runs()[0].folder)) == body(whole)
    with safe_open(whole, "pt") as file:
        header = file.metadata()
    assert header["modelspec.architecture"] == "stable-diffusion-v1-inpainting/lora"
    assert (header["ss_base_model_version"], header["lora_sd.inpainting"]) == ("sd_v1", "True")
    assert "Stable Diffusion 1.x inpainting" in str(inspection.inspect(whole))
    assert any(tensor.any() for name, tensor in load_file(whole).items() if "lora_up" in name)


def test_sdxl_inpainting_trains_with_its_text_encoders(tiny_folder, pictures):
    config = config_for(
        tiny_folder("sdxl-inpainting"), pictures, **{"lora.text_encoders": True, "optim.steps": 1}
    )
    with safe_open(train(config), "pt") as file:
        assert file.metadata()["modelspec.architecture"] == "stable-diffusion-xl-v1-base-inpainting/lora"


def pipeline_of(folder, sampler):
    pipeline = PIPELINES[folder.name].from_pretrained(folder)
    kind, options = sample.SAMPLERS[sampler]
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def by_diffusers(pipeline, picture, mask):
    return pipeline(
        "a cat",
        image=picture,
        mask_image=mask,
        negative_prompt="",
        num_inference_steps=2,
        guidance_scale=5.0,
        strength=1.0,
        generator=torch.Generator().manual_seed(7),
        height=128,
        width=128,
    ).images[0]


def close(ours, theirs):
    return np.abs(np.asarray(ours, dtype=int) - np.asarray(theirs, dtype=int)).max() <= 1


@pytest.mark.parametrize("name, sampler", [("sd15-inpainting", "euler_a"), ("sdxl-inpainting", "ddim")])
def test_painting_in_a_picture_and_all_of_it_equals_diffusers(
    tiny_folder, tiny_models, pictures, name, sampler
):
    models, pipeline = tiny_models(name), pipeline_of(tiny_folder(name), sampler)
    picture = images.rgb(pictures / "1.png")  # of another size
    part, whole = Image.new("L", picture.size, 0), Image.new("L", picture.size, 255)
    part.paste(255, (20, 33, 90, 128))
    for mask, inpaint in ((part, sample.Inpaint(picture, part)), (whole, None)):
        [ours] = sample.generate(
            models, "a cat", seeds=[7], steps=2, sampler=sampler, size=(128, 128), inpaint=inpaint
        )
        assert close(ours, by_diffusers(pipeline, picture, mask))


def test_the_size_is_the_pictures_shape_at_the_models_area(tiny_models):
    models = tiny_models("sd15-inpainting")
    inpaint = sample.Inpaint(Image.new("RGB", (1000, 500)), Image.new("L", (1000, 500), 255))
    [picture] = sample.generate(models, "a cat", steps=1, inpaint=inpaint)
    assert picture.size == (192, 64)


def test_a_mask_of_another_shape_is_refused(tiny_models):
    inpaint = sample.Inpaint(Image.new("RGB", (64, 64)), Image.new("L", (64, 96)))
    with pytest.raises(ValueError, match="The mask is 64×96 and its picture 64×64"):
        sample.generate(tiny_models("sd15-inpainting"), "a cat", steps=1, inpaint=inpaint)


def test_a_plain_model_can_not_paint_in_a_picture(tiny_models):
    inpaint = sample.Inpaint(Image.new("RGB", (64, 64)), Image.new("L", (64, 64)))
    with pytest.raises(ValueError, match="is not an inpainting model"):
        sample.generate(tiny_models("sd15"), "a cat", steps=1, inpaint=inpaint)
