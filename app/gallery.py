"""Every picture made on Try it, kept on disk with how it was made: pictures/TIME-KEY.png and gallery/TIME-KEY.json.

The name's key is that of the drawing job, so that a picture that is known shows at once. Stars are a list in stars.json.
"""

import hashlib
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from lora_sd import infotext, run
from lora_sd.files import changed, write_text

from . import loras, places, stars
from .uploads import thumbnail

Job = dict[str, Any]  # as lora_sd.worker takes it
ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{20}")
THUMB = 256  # pixels


class Kept(NamedTuple):
    """A picture, and the job that made it."""

    id: str
    path: Path
    job: Job
    starred: bool

    @property
    def text(self) -> str:
        """How it was made, as its file says it."""
        return infotext.of_picture(self.path) or ""


def folder() -> Path:
    """Where the jobs lie."""
    return run.home() / "gallery"


def key(job: Job) -> str:
    """The same for what gives the same picture: the job, and the files of its LoRAs as they are now."""
    files = [Path(path) for path, _ in job["loras"]]
    stamps = [(changed(path), str(loras.embedding(path))) for path in files]
    return hashlib.sha1(json.dumps([job, stamps]).encode()).hexdigest()[:20]


def known(job: Job) -> Path | None:
    """The picture of a job that was made before."""
    return next(places.pictures().glob(f"*-{key(job)}.png"), None)


def keep(job: Job, drawn: Path) -> Path:
    """Take a picture in that was just made; where it is from now on."""
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{key(job)}"
    folder().mkdir(parents=True, exist_ok=True)
    write_text(folder() / f"{name}.json", json.dumps(job))
    return drawn.replace(places.pictures() / f"{name}.png")


def ids(*, starred: bool = False) -> list[str]:
    """All that there are, newest first; or those with a star."""
    names = {path.stem for path in places.pictures().glob("*.png")} & {
        p.stem for p in folder().glob("*.json")
    }
    chosen = names & stars.of(folder()) if starred else names
    return sorted((name for name in chosen if ID.fullmatch(name)), reverse=True)


def get(name: str) -> Kept | None:
    """One picture; None for a name that is none."""
    path = places.pictures() / f"{name}.png"
    if not ID.fullmatch(name) or not path.is_file():
        return None
    try:
        job = json.loads((folder() / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Kept(name, path, job, name in stars.of(folder()))


def of_path(path: Path) -> Kept | None:
    return get(path.stem)


def small(name: str) -> Path:
    """Its thumbnail."""
    return thumbnail(places.pictures() / f"{name}.png", places.thumbs() / "gallery", THUMB)


def size() -> int:
    """Bytes of all pictures."""
    return sum(path.stat().st_size for path in places.pictures().glob("*.png"))


def star(name: str, starred: bool) -> None:
    stars.put(folder(), name, starred)


def delete(name: str) -> None:
    """Take a picture away for good."""
    if get(name):
        stars.put(folder(), name, False)
        (places.pictures() / f"{name}.png").unlink(missing_ok=True)
        (folder() / f"{name}.json").unlink(missing_ok=True)
