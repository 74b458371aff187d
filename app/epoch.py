"""What an epoch of the Make page's pictures comes to, as training will count it, from the files' names and headers alone."""

import contextlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from lora_sd import length
from lora_sd.config import TrainConfig
from lora_sd.data import buckets, folder, images
from lora_sd.data.buckets import Rules, Size
from lora_sd.files import changed
from lora_sd.length import Epoch
from lora_sd.settings import DataSettings


class Length(NamedTuple):
    """How long a run will be."""

    steps: int
    sentence: str  # how that comes about


def length_of(
    config: TrainConfig, pictures: list[Path], root: Path, *, side: int, bucket_step: int
) -> Length | None:
    """The length of a run on the `pictures` below `root` and those of data.folders; None where there are none.

    `side` is the resolution in pixels. Which pictures are held out, and which serve for regularisation, training draws;
    their shapes are taken to be like those of the others.
    """
    counts = folder.repeats_of(root, pictures, config.data.repeats)
    for more in config.data.folders:
        with contextlib.suppress(ValueError):  # it is told when training starts
            counts |= {path: n * more.repeats for path, n in folder.pictures_of(more.path).items()}
    sizes = {path: size for path, n in counts.items() if n and (size := size_of(path, changed(path)))}
    if not sizes:
        return None
    share = 0.0 if config.validate.images else config.validate.split
    held_out = length.held_out(len(sizes), share)
    learnt = list(sizes)[: len(sizes) - held_out]
    data, optim = config.data, config.optim
    fits = buckets.fits([sizes[path] for path in learnt], side, bucket_step, rules_of(data))
    prior = bool(data.regularisation or data.regularisation_draw)
    times = [counts[path] * (1 + prior) for path in learnt]
    shown = sum(counts[path] for path in learnt)
    epoch = Epoch(
        pictures=len(learnt),
        shown=shown,
        prior=shown * prior,
        batches=buckets.batches_per_epoch([fit.bucket for fit in fits], times, optim.batch_size),
        batch_size=optim.batch_size,
        accumulation=optim.accumulation,
    )
    about = "about " if held_out or prior else ""
    return Length(length.total(optim, epoch), about + length.sentence(optim, epoch))


def rules_of(data: DataSettings) -> Rules:
    return Rules(
        data.bucket_step, data.bucket_min, data.bucket_max, shapes=data.buckets, enlarge=data.enlarge
    )


@lru_cache(maxsize=20_000)
def size_of(path: Path, changed: int) -> Size | None:
    """The size of a picture as it was when it was `changed`; None where it is none."""
    try:
        return images.size(path)
    except ValueError:
        return None
