"""A LoRA cut to a rank, to be looked at: the file is kept, so that the same cut is made once."""

import hashlib
import shutil
from pathlib import Path

from ..files import changed
from ..lora import beside
from ..paths import shown
from .lora_file import open_lora
from .resize import check_cut, resize

MOST_KEPT = 30  # files


def cut(path: Path, rank: int, folder: Path) -> Path:
    """The file in `folder` of the LoRA at that rank; ValueError where no layer has as much."""
    check_cut(rank, None)
    word = beside.of(path)
    key = hashlib.sha256(f"{path.resolve()}|{changed(path)}|{word}|{rank}".encode()).hexdigest()[:16]
    target = folder / key / f"{path.stem}-rank{rank}.safetensors"
    if not target.exists():
        _check(path, rank)
        _make_room(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if word:
            shutil.copyfile(word, target.parent / word.name)
        resize(path, target, rank=rank)
    return target


def _check(path: Path, rank: int) -> None:
    file = open_lora(path)
    most = max(map(file.rank, file))
    if rank > most:
        raise ValueError(
            f"{shown(path.name)} has rank {most}, so it can't be cut to {rank}; choose {most} or less."
        )


def _make_room(folder: Path) -> None:
    """Take away the oldest files that were kept."""
    kept = sorted(folder.glob("*/"), key=changed) if folder.is_dir() else []
    for old in kept[: max(0, len(kept) + 1 - MOST_KEPT)]:
        shutil.rmtree(old, ignore_errors=True)
