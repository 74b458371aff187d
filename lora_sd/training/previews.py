"""Pictures on the way: drawn beside the training, as far as the card's memory allows."""

from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image, ImageStat

from .. import errors, infotext, sample
from ..events import Note, Preview
from ..models.family import Models
from ..settings import PreviewSettings
from . import memory

FLAT = 2.0  # of 255: standard deviation of each colour
DEFAULT_PROMPTS = 3  # how many of the captions become preview prompts where none are given


def prompts(settings: PreviewSettings, captions: list[str]) -> list[str]:
    """As set, else captions from over the whole set."""
    apart = max(1, len(captions) // DEFAULT_PROMPTS)
    return settings.prompts or captions[::apart][:DEFAULT_PROMPTS]


def draw(
    models: Models,
    folder: Path,
    step: int,
    prompts: list[str],
    settings: PreviewSettings,
    device: torch.device,
) -> Iterator[Preview | Note]:
    """A picture of each prompt into the run's `folder`; where the card has no room for that, a note instead."""
    for index, prompt in enumerate(prompts):
        drawn = picture(models, prompt, settings, device)
        if drawn is None:
            yield Note(
                f"The previews of step {step} do not fit into the card's memory beside the training; it goes on "
                'without them. Smaller pictures or machine.memory = "low" leave room.'
            )
            return
        path = folder / "previews" / f"{step:06d}-{index}.png"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            infotext.save(drawn, path)
        except OSError as error:
            yield Note(
                f"{errors.sentence(error)} The training goes on without the other previews of step {step}."
            )
            return
        if step and flat(drawn):
            yield Note(
                f"The preview {prompt!r} of step {step} is one flat colour. If the next ones are, too, the LoRA is burnt: "
                "use an earlier file, and train at a lower optim.learning_rate."
            )
        yield Preview(step=step, prompt=prompt, index=index, path=path.relative_to(folder).as_posix())


def flat(drawn: Image.Image) -> bool:
    """Whether a picture shows nothing: hardly any contrast, as in black or grey ones of broken weights."""
    return max(ImageStat.Stat(drawn).stddev) < FLAT


def picture(
    models: Models,
    prompt: str,
    settings: PreviewSettings,
    device: torch.device,
    *,
    size: tuple[int, int] | None = None,
) -> Image.Image | None:
    """With the VAE on the processor if the card has no room for it, or None if even then it has not enough."""
    encoders = [] if models.encoders_learn else ["text_encoders"]
    for on_card in (["vae", *encoders], encoders):
        try:
            with memory.on_device(models, device, *on_card):
                [drawn] = sample.generate(
                    models,
                    prompt,
                    negative=settings.negative,
                    seeds=[settings.seed],
                    steps=settings.steps,
                    guidance=settings.guidance,
                    sampler=settings.sampler,
                    size=size,
                    rescale=settings.rescale,
                )
            return drawn
        except RuntimeError as error:
            if not errors.out_of_memory(error):
                raise
    return None
