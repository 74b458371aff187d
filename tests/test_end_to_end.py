"""The main job: a folder of pictures becomes a file that teaches, and that diffusers draws the same picture with."""

import json
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from lora_sd import config as cfg
from lora_sd import run, sample
from lora_sd.data.folder import find_examples
from lora_sd.lora import formats
from lora_sd.models.load import load
from lora_sd.training.train import train


def told(folder, kind):
    lines = map(json.loads, (folder / "events.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["kind"] == kind]


def same(ours, theirs):
    difference = np.abs(np.asarray(ours, dtype=int) - np.asarray(theirs, dtype=int))
    return difference.max() <= 2 and difference.mean() < 0.05  # of 255: only rounding


def by_diffusers(kind, model, lora, prompt, **options):
    """The picture of diffusers and peft, with every adapter of the file in place."""
    pipeline = kind.from_pretrained(model, dtype=torch.float32)
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.load_lora_weights(lora, adapter_name="ours")
    pipeline.set_progress_bar_config(disable=True)
    parts = [pipeline.unet, pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)]
    loaded = sum(
        name.endswith("lora_A.ours.weight") for part in parts if part for name, _ in part.named_parameters()
    )
    picture = pipeline(
        prompt, negative_prompt="", generator=torch.Generator().manual_seed(7), **options
    ).images[0]
    return picture, loaded


def test_the_starter_learns_the_example_set(tmp_path):
    """The preset, shorter: the loss on pictures it never trains on falls by a fifth, and diffusers draws what we draw."""
    preset = cfg.load(Path(__file__).parent.parent / "presets" / "starter_quick.toml")
    changes = {
        "optim.steps": 40,
        "preview.every": 40,
        "preview.steps": 8,
        "validate.every": 40,
        "output.dir": str(tmp_path),
    }
    path = train(cfg.changed(preset, changes))
    [found] = run.list_runs(tmp_path)
    held_out = {step["step"]: step["held_out"] for step in told(found.folder, "step") if "held_out" in step}
    assert held_out[40] < 0.8 * held_out[0]
    assert len(told(found.folder, "step")) == 41 and told(found.folder, "finished")
    previews = [found.folder / preview["path"] for preview in told(found.folder, "preview")]
    assert len(previews) == 6 and all(Image.open(preview).size == (128, 128) for preview in previews)

    models, prompt = load("starter"), "koala, streamline style"
    options = {"guidance": 4.0, "sampler": "ddim", "steps": 8, "seeds": [7]}
    [ours] = sample.generate(models, prompt, loras={path: 1.0}, **options)
    theirs, loaded = by_diffusers(
        diffusers.StableDiffusionPipeline,
        models.path,
        path,
        prompt,
        guidance_scale=4.0,
        num_inference_steps=8,
    )
    assert loaded == told(found.folder, "saved")[-1]["modules"]["unet"]
    assert same(ours, theirs)
    [without] = sample.generate(models, prompt, **options)
    assert not same(ours, without)


@pytest.mark.parametrize("layout", ["kohya", "peft"])
@pytest.mark.parametrize("name", ["sd15", "sd2", "sdxl"])
def test_a_file_of_every_family_draws_the_same_picture_in_diffusers(tiny_folder, tmp_path, name, layout):
    config = cfg.changed(
        cfg.TrainConfig(),
        {
            "model.base": str(tiny_folder(name)),
            "data.images": "starter:streamline",
            "lora.targets": "full",
            "lora.rank": 4,
            "lora.text_encoders": True,
            "optim.steps": 2,
            "optim.learning_rate": 3e-2,
            "preview.every": 0,
            "save.layout": layout,
            "save.dtype": "fp32",
            "output.dir": str(tmp_path),
        },
    )
    path = train(config)
    models = load(str(tiny_folder(name)))
    file = formats.load(path, models.parts(), models.family)
    assert file.unused == []
    options = {"guidance": 5.0, "sampler": "ddim", "steps": 3, "seeds": [7]}
    [ours] = sample.generate(models, "a cat", loras={path: 1.0}, **options)
    kind = diffusers.StableDiffusionXLPipeline if name == "sdxl" else diffusers.StableDiffusionPipeline
    size = {"height": 128, "width": 128}
    theirs, loaded = by_diffusers(
        kind, models.path, path, "a cat", guidance_scale=5.0, num_inference_steps=3, **size
    )
    assert loaded == len(file.pairs)
    assert same(ours, theirs)
    [without] = sample.generate(models, "a cat", **options)
    assert not same(ours, without)


LITTLE = {
    "one picture": (1, True, "There is one picture"),
    "a trigger word alone": (24, False, "Every picture has the same caption, 'linestyle'"),
}


@pytest.mark.parametrize("case", LITTLE)
def test_little_to_learn_from_is_learnt_and_said_to_be_little(case, tmp_path):
    """Measured on the one picture itself, or on pictures of the style that are never trained on, called by the word."""
    count, captions, words = LITTLE[case]
    source = find_examples("starter:streamline").examples[:count]
    held_out = source if count == 1 else find_examples("starter:streamline/heldout").examples
    for folder, examples in (("pictures", source), ("heldout", held_out)):
        (tmp_path / folder).mkdir()
        for example in examples:
            shutil.copy(example.path, tmp_path / folder)
            if captions:
                shutil.copy(example.path.with_suffix(".txt"), tmp_path / folder)
    changes = {
        "data.images": str(tmp_path / "pictures"),
        "data.trigger": "" if captions else "linestyle",
        "lora.alpha": 16,
        "optim.learning_rate": 2e-3,
        "optim.batch_size": 4 if count > 1 else 1,
        "optim.steps": 24,
        "validate.images": str(tmp_path / "heldout"),
        "validate.every": 24,
        "preview.every": 24,
        "preview.steps": 8,
        "save.every": 0,
        "output.dir": str(tmp_path / "runs"),
    }
    train(cfg.changed(cfg.TrainConfig(), changes))
    [found] = run.list_runs(tmp_path / "runs")
    steps = [step["held_out"] for step in told(found.folder, "step") if "held_out" in step]
    assert steps[-1] < 0.9 * steps[0]
    notes = [note["text"] for note in told(found.folder, "note")]
    assert any(words in note for note in notes) and not any("flat colour" in note for note in notes)
