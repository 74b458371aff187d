"""Regularisation pictures that the base model draws itself, and that later runs of the same find drawn (arXiv:2208.12242, section 3.2)."""

import hashlib
import json
from pathlib import Path

import torch

from .. import files, run
from ..data import cache
from ..models.family import Models
from ..settings import DataSettings, PreviewSettings
from . import memory, previews
from .voice import Voice
from .world import World

WORDS = "Drawing regularisation picture"


def draw(
    models: Models,
    data: DataSettings,
    how: PreviewSettings,
    device: torch.device,
    *,
    resolution: int,
    world: World,
    voice: Voice,
) -> Path:
    """The folder with at least `data.regularisation_draw` pictures of `data.regularisation_caption`; picture n has seed n.

    The processes of a machine share them out. Raises ValueError where the card has no room, Stopped when the run shall end.
    """
    folder = run.home() / "cache" / "drawn" / _key(models, data, how, resolution)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{seed:05d}.png" for seed in range(data.regularisation_draw)]
    which, of = world.here
    mine = [(seed, path) for seed, path in enumerate(paths) if seed % of == which and not path.exists()]
    tell = voice.progress("caching", WORDS)
    with memory.on_device(models, device, *(["unet"] if mine else [])):
        for done, (seed, path) in enumerate(mine):
            tell(done, len(mine))
            one = how.model_copy(update={"seed": seed})
            _draw_one(models, data.regularisation_caption, one, device, resolution, path)
    world.wait()
    return folder


def _draw_one(
    models: Models, caption: str, how: PreviewSettings, device: torch.device, resolution: int, path: Path
) -> None:
    picture = previews.picture(models, caption, how, device, size=(resolution, resolution))
    if picture is None:
        raise ValueError(
            "The graphics card has no room to draw regularisation pictures (data.regularisation_draw); "
            "give a folder of some (data.regularisation) instead."
        )
    with files.written(path) as file:
        picture.save(file, format="PNG")


def _key(models: Models, data: DataSettings, how: PreviewSettings, resolution: int) -> str:
    """Of all that the pictures depend on."""
    drawing = how.model_dump(include={"negative", "steps", "guidance", "sampler", "rescale"})
    parts = [cache.identity(part) for part in (models.unet, models.vae, *models.text_encoders)]
    told = [parts, models.prediction, models.clip_skip, data.regularisation_caption, resolution, drawing]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
