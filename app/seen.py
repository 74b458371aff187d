"""What looking at a project's pictures told of each: problem, size, fingerprint, sharpness; remembered in the project's seen.json."""

from pathlib import Path
from typing import Any, NamedTuple

from lora_sd.data import health, images
from lora_sd.remembered import Remembered

from . import uploads
from .project import Project

THUMBNAIL = 320  # pixels, the longer side: a card of the grid


class Seen(NamedTuple):
    problem: str  # why it can't be used, or nothing
    fingerprint: int
    sharpness: float


def memory(project: Project) -> Remembered[list[Any]]:
    def look(path: Path) -> list[Any]:
        """A `Seen` as JSON keeps it; its thumbnail is made on the way."""
        try:
            picture = images.small(path, health.SIDE)
        except (ValueError, OSError) as error:
            return [str(error), 0, 0.0]
        seen = ["", health.fingerprint(picture), round(health.sharpness(picture), 1)]
        uploads.thumbnail(path, project.thumbs, THUMBNAIL, picture)
        return seen

    return Remembered(project.folder / "seen.json", look)


def thumbnail(path: Path, project: Project) -> Path | None:
    """The picture of a card; None of a file that can't be read."""
    try:
        return uploads.thumbnail(path, project.thumbs, THUMBNAIL)
    except (ValueError, OSError):
        return None


def there(path: Path, project: Project) -> Path | None:
    """Its thumbnail, if that was made."""
    thumbnail = uploads.thumbnail_path(path, project.thumbs, THUMBNAIL)
    return thumbnail if thumbnail.exists() else None
