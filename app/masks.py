"""Masks that a person paints over a project's pictures: what is white is learned, what is black is not.

projects/mycat/masks/a.png is that of images/a.jpg: 8-bit grey, of the picture's size. Training takes them by `data.masks`.
"""

import base64
import binascii
import hashlib
import io
import os
from pathlib import Path

from PIL import Image

from lora_sd.data import images
from lora_sd.data.buckets import Size
from lora_sd.data.images import rgb
from lora_sd.files import changed, written

from . import uploads
from .project import Project
from .words import say

LONGEST = 1024  # pixels, the longer side of the copy that is painted on
MOST = 8_000_000  # letters of what comes from the browser
PREFIX = "data:image/png;base64,"
FAINT = 8  # how opaque paint is at least, of 255, that counts


def file(project: Project, picture: Path) -> Path:
    """Where the mask of a picture is, or would be."""
    return project.masks / picture.relative_to(project.images).with_suffix(".png")


def picture_of(project: Project, name: str) -> Path:
    """The picture of that name, its path below the project's pictures. Raises ValueError if there is none."""
    known = {path.relative_to(project.images).as_posix(): path for path in project.pictures()}
    if name not in known:
        raise ValueError(say("That picture is not in the project any more; choose another."))
    return known[name]


def masked(project: Project, pictures: list[Path]) -> list[Path]:
    """Those of the project's pictures that have a mask."""
    return [picture for picture in pictures if file(project, picture).is_file()]


def setting(project: Project, pictures: list[Path]) -> str:
    """What data.masks is to be for a training on these pictures: the folder of masks, or nothing if none has one.

    Training looks for them by paths below the folder that all pictures have in common.
    """
    if not masked(project, pictures):
        return ""
    common = os.path.commonpath([picture.parent for picture in pictures])
    return str(project.masks / os.path.relpath(common, project.images))


def painting_size(picture: Path) -> Size:
    """(w, h) of the copy that is painted on: at most LONGEST, never larger than the picture."""
    w, h = images.size(picture)
    scale = min(1.0, LONGEST / max(w, h))
    return max(1, round(w * scale)), max(1, round(h * scale))


def save(project: Project, name: str, painted: str) -> None:
    """Keep what was painted, a PNG as a data URL whose paint is where it is opaque, as the mask of a picture."""
    picture = picture_of(project, name)
    paint = _opened(painted, painting_size(picture))
    if paint.getextrema()[1] < FAINT:
        raise ValueError(say("Nothing is painted; paint what is to be learned, or remove the mask."))
    mask = paint.resize(images.size(picture), Image.Resampling.BILINEAR)
    target = file(project, picture)
    target.parent.mkdir(parents=True, exist_ok=True)
    with written(target) as out:
        mask.save(out, "PNG")


def _opened(painted: str, size: Size) -> Image.Image:
    """The opacity of a PNG that came from a browser, and may be anything."""
    wrong = say("What was painted did not arrive whole; paint again.")
    if len(painted) > MOST or not painted.startswith(PREFIX):
        raise ValueError(wrong)
    try:
        data = base64.b64decode(painted[len(PREFIX) :], validate=True)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size != size or image.mode != "RGBA":
                raise ValueError(wrong)
            return image.getchannel("A")
    except (binascii.Error, OSError, SyntaxError, ValueError) as error:
        raise ValueError(wrong) from error


def remove(project: Project, name: str) -> None:
    """Learn all of a picture again."""
    file(project, picture_of(project, name)).unlink(missing_ok=True)


def copy_of_picture(project: Project, picture: Path) -> Path:
    """A re-encoded copy to paint on, in a folder that is served."""
    return uploads.thumbnail(picture, project.thumbs, LONGEST)


def copy_of_mask(project: Project, picture: Path) -> Path | None:
    """The mask in the size of that copy, in a folder that is served; None without one."""
    mask = file(project, picture)
    if not mask.is_file():
        return None
    key = hashlib.sha1(f"{mask}|{changed(mask)}|{changed(picture)}".encode()).hexdigest()[:20]
    target = project.thumbs / f"{key}.png"
    if not target.exists():
        project.thumbs.mkdir(parents=True, exist_ok=True)
        small = rgb(mask).convert("L").resize(painting_size(picture), Image.Resampling.BILINEAR)
        with written(target, durable=False) as out:
            small.save(out, "PNG")
    return target
