"""What our folder holds besides runs and results and can be made again: how much it is, and taking it away."""

import shutil
from pathlib import Path
from typing import NamedTuple

from lora_sd import run

from . import places, story
from .words import say


class Rubbish(NamedTuple):
    files: list[Path]
    size: int  # bytes


def temporary() -> Rubbish:
    """Encoded pictures and captions, thumbnails, copies that were handed out, halves of files; models, runs and pictures are none."""
    kept = places.uploads()
    files = [
        path
        for folder in (run.home() / "cache", places.thumbs())
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and not path.is_relative_to(kept)
    ]
    files += [path for path in (run.home() / "models").rglob(".*.tmp") if path.is_file()]
    return Rubbish(files, sum(path.stat().st_size for path in files))


def remove() -> int:
    """Take all of it away; gives the bytes. ValueError while something needs it."""
    if busy := story.active():
        raise ValueError(
            say("{name} is training and reads these files; wait until it is done.", name=busy.name)
        )
    rubbish = temporary()
    for path in rubbish.files:
        path.unlink(missing_ok=True)
    return rubbish.size


def free() -> int:
    """Bytes free where our folder is."""
    nearest = next(path for path in (run.home(), *run.home().absolute().parents) if path.exists())
    return shutil.disk_usage(nearest).free
