"""Captions of a project's pictures: read as training reads them, written to one file each beside the picture."""

import hashlib
from pathlib import Path

from lora_sd.data import captions
from lora_sd.data import folder as folders
from lora_sd.files import write_text

from .project import Project
from .words import say

LONGEST = 20_000  # letters


def read(project: Project, pictures: list[Path]) -> dict[Path, str]:
    """The caption of each picture that has one; several of a picture are on lines of their own."""
    return folders.captions_of(project.images, pictures)


def mark(text: str) -> str:
    """Tells one caption from another: who saves says by it which one was changed."""
    return hashlib.sha1(text.encode()).hexdigest()[:12]


def cleaned(text: str) -> str:
    """A caption as it is kept. Raises ValueError for one that is too long."""
    if len(text) > LONGEST:
        raise ValueError(
            say(
                "The caption has {count} letters, and the limit is {most}; shorten it.",
                count=f"{len(text):,}",
                most=f"{LONGEST:,}",
            )
        )
    return captions.tidy(text)


def write(picture: Path, text: str) -> None:
    """Keep `text` as its caption. An empty one takes its file away, unless the caption of another file would show then."""
    file = _own_file(picture)
    if text:
        write_text(file, text + "\n")
        return
    file.unlink(missing_ok=True)
    if folders.captions_of(picture.parent, [picture]).get(picture):
        write_text(file, "")


def _own_file(picture: Path) -> Path:
    """cat.txt; cat.png.txt where a cat.jpg would share it, and then what they shared is copied to each."""
    twins = [path for path in picture.parent.glob(f"{picture.stem}.*") if _is_twin(path, picture)]
    if not twins:
        return picture.with_suffix(".txt")
    shared = [picture.with_suffix(suffix) for suffix in captions.SUFFIXES]
    found = folders.captions_of(picture.parent, [picture, *twins])
    if any(file.exists() for file in shared):
        for path, text in found.items():
            write_text(_by_whole_name(path), text + "\n")
        for file in shared:
            file.unlink(missing_ok=True)
    return _by_whole_name(picture)


def _is_twin(path: Path, picture: Path) -> bool:
    return path != picture and path.stem == picture.stem and path.suffix.lower() in folders.SUFFIXES


def _by_whole_name(picture: Path) -> Path:
    return picture.with_name(f"{picture.name}.txt")
