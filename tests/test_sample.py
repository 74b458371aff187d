import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from lora_sd import sample
from lora_sd.lora import formats, layers, targets

PIPELINES = {
    "sd15": diffusers.StableDiffusionPipeline,
    "sd2-v": diffusers.StableDiffusionPipeline,
    "sdxl": diffusers.StableDiffusionXLPipeline,
}


def by_diffusers(folder, sampler, prompt, seed, steps, guidance):
    pipeline = PIPELINES[folder.name].from_pretrained(folder)
    kind, options = sample.SAMPLERS[sampler]
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt,
        negative_prompt="",
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed),
        height=128,
        width=128,
    ).images[0]


def close(ours, theirs):
    difference = np.abs(np.asarray(ours, dtype=int) - np.asarray(theirs, dtype=int))
    return difference.max() <= 1  # one level of 255 is rounding


@pytest.mark.parametrize("sampler", sample.SAMPLERS)
@pytest.mark.parametrize("name", PIPELINES)
def test_a_picture_equals_the_one_diffusers_draws(tiny_folder, tiny_models, name, sampler):
    [ours] = sample.generate(tiny_models(name), "a cat", seeds=[7], steps=3, guidance=5.0, sampler=sampler)
    assert close(ours, by_diffusers(tiny_folder(name), sampler, "a cat", 7, 3, 5.0))


def test_without_guidance_only_the_prompt_is_looked_at(tiny_folder, tiny_models):
    [ours] = sample.generate(tiny_models("sd15"), "a cat", seeds=[7], steps=2, guidance=1.0, sampler="ddim")
    assert close(ours, by_diffusers(tiny_folder("sd15"), "ddim", "a cat", 7, 2, 1.0))


def test_a_picture_does_not_depend_on_its_neighbours(tiny_models):
    models = tiny_models("sd15")
    both = sample.generate(models, ["a cat", "a very different dog"], seeds=[1, 2], steps=2)
    alone = sample.generate(models, "a very different dog", seeds=[2], steps=2)
    assert both[1].tobytes() == alone[0].tobytes()


def random_lora(models, path):
    parts = models.parts()
    layers.inject(parts, targets.resolve(parts, "attention", rank=4), 1.0)
    with torch.no_grad():
        for pair in layers.adapters(parts).values():
            pair.up.normal_(0, 0.3)
    formats.save(path, layers.adapters(parts), models.family, metadata={}, dtype=torch.float32)
    layers.detach(parts, "lora")
    return path


def test_loras_are_on_for_one_call_and_strength_0_is_the_base(tiny_models, tmp_path):
    models = tiny_models("sd15")
    base = sample.generate(models, "a cat", steps=2)[0].tobytes()
    path = random_lora(models, tmp_path / "a.safetensors")
    assert sample.generate(models, "a cat", steps=2, loras={path: 1.0})[0].tobytes() != base
    assert sample.generate(models, "a cat", steps=2, loras={path: 0.0})[0].tobytes() == base
    assert sample.generate(models, "a cat", steps=2)[0].tobytes() == base


def test_two_loras_add_up(tiny_models, tmp_path):
    """A LoRA at 0.25 and the same file under another name at 0.75 are the LoRA at 1."""
    models = tiny_models("sd15")
    path = random_lora(models, tmp_path / "a.safetensors")
    copy = tmp_path / "b.safetensors"
    copy.write_bytes(path.read_bytes())
    [once] = sample.generate(models, "a cat", steps=2, loras={path: 1.0})
    [twice] = sample.generate(models, "a cat", steps=2, loras={path: 0.25, copy: 0.75})
    assert close(once, twice)


def test_progress_counts_every_step_and_can_cancel(tiny_models):
    seen = []
    sample.generate(
        tiny_models("sd15"), ["a", "b"], steps=2, on_step=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample.generate(tiny_models("sd15"), "a", steps=2, on_step=cancel)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sampler": "magic"}, "no sampler 'magic'"),
        ({"size": (100, 128)}, "multiples of 8"),
        ({"size": (0, 128)}, "at least"),
        ({"seeds": [1, 2]}, "1 prompts and 2 seeds"),
    ],
)
def test_settings_that_cannot_work_get_a_sentence(tiny_models, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        sample.generate(tiny_models("sd15"), "a cat", **{"steps": 1, **options})


def test_the_starter_draws_what_it_is_asked_for(starter):
    """A red apple on white is mostly white with a red middle: no black picture, no noise."""
    [apple] = sample.generate(starter, "red apple, twemoji style", seeds=[0], steps=12, guidance=4.0)
    pixels = np.asarray(apple.convert("RGB").resize((16, 16), Image.Resampling.BOX), dtype=float)
    r, g, b = pixels[6:11, 6:11].reshape(-1, 3).mean(0)
    assert r > 150 and r - g > 60 and r - b > 60
    assert pixels[0].mean() > 200
