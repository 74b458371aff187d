"""Pictures a person hands over (files, a zip, a folder) become safe copies in a project; what can't be read is named."""

import errno
import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from PIL.Image import Image

from lora_sd import run
from lora_sd.data import captions
from lora_sd.data.folder import SUFFIXES as PICTURES
from lora_sd.data.folder import natural
from lora_sd.data.images import check, small
from lora_sd.files import written
from lora_sd.paths import shown, typed

from .words import say

CAPTIONS = {".txt", ".caption", ".json", ".jsonl"}
MOST_FILES = 5000  # in a zip
MOST_BYTES = 4 * 2**30  # unpacked
MOST_EXPANSION = 100  # unpacked : packed
BROKEN = "is damaged or no zip, and can't be opened; make it again or drop the pictures themselves."
CHECKED_AT_ONCE = min(4, os.cpu_count() or 1)  # pictures, each of which may be large when decoded
THUMBNAIL = 192  # pixels, the longer side


class Skipped(NamedTuple):
    name: str
    reason: str


class Added(NamedTuple):
    pictures: int
    captions: int
    skipped: list[Skipped]


class Item(NamedTuple):
    """A file on its way in: where it lies now, and its path below the folder of pictures."""

    source: Path
    relative: PurePosixPath


def add(paths: Iterable[Path], images: Path) -> Added:
    """Copy pictures and captions from files, zips and folders into `images`; a damaged one is skipped with its reason."""
    with tempfile.TemporaryDirectory() as scratch:
        items, skipped = [], []
        for number, path in enumerate(paths):
            try:
                items += _open(path, Path(scratch) / str(number))
            except ValueError as error:
                skipped.append(Skipped(shown(path.name), str(error)))
        return _copy(items, images, skipped)


def _open(path: Path, scratch: Path) -> list[Item]:
    if path.is_dir():
        return _below(path)
    if path.suffix.lower() == ".zip":
        return unzip(path, scratch)
    return [Item(path, PurePosixPath(path.name))]


def _below(folder: Path) -> list[Item]:
    """The pictures and captions in a folder in natural order; hidden files and links are not followed."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    items = [Item(path, PurePosixPath(path.relative_to(folder).as_posix())) for path in files]
    kept = [item for item in items if _wanted(item.relative)]
    if not kept:
        raise ValueError(
            say(
                "{folder} has no pictures in it; choose the folder that your pictures are in.",
                folder=shown(folder.name),
            )
        )
    return sorted(kept, key=lambda item: natural(str(item.relative)))


def _wanted(relative: PurePosixPath) -> bool:
    return not _clutter(relative) and relative.suffix.lower() in PICTURES | CAPTIONS


def _clutter(relative: PurePosixPath) -> bool:
    hidden = (part.startswith(".") and part != ".." for part in relative.parts)
    return any(hidden) or "__MACOSX" in relative.parts


def _copy(items: list[Item], images: Path, skipped: list[Skipped]) -> Added:
    with ThreadPoolExecutor(CHECKED_AT_ONCE) as pool:  # Pillow decodes without the interpreter's lock
        reasons = dict(zip(items, pool.map(problem, items), strict=True))
    skipped += [Skipped(shown(item.relative.name), reason) for item, reason in reasons.items() if reason]
    sound = [item for item in items if not reasons[item]]
    pictures = [item for item in sound if item.source.suffix.lower() in PICTURES]
    texts = [item for item in sound if item.source.suffix.lower() in CAPTIONS]
    placed: dict[PurePosixPath, Path] = {}  # path without suffix as it was given -> where its picture is now
    for item in pictures:
        placed[item.relative.with_suffix("")] = _place(item, images)
    for item in texts:
        picture = placed.get(item.relative.with_suffix(""))
        target = picture.with_suffix(item.source.suffix.lower()) if picture else images / _safe(item.relative)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(item.source, target)
    return Added(len(placed), len(texts), skipped)


def _place(item: Item, images: Path) -> Path:
    """Copy under a safe name; another picture of that name stays, and this one gets -2."""
    wanted = images / _safe(item.relative)
    wanted.parent.mkdir(parents=True, exist_ok=True)
    target, number = wanted, 1
    while target.exists() and not _same(target, item.source):
        number += 1
        target = wanted.with_stem(f"{wanted.stem}-{number}")
    if not target.exists():
        shutil.copyfile(item.source, target)
    return target


def _safe(relative: PurePosixPath) -> Path:
    *folders, name = relative.parts
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix.lower()
    plain = (
        run.safe_name(folder).replace(".", "_") for folder in folders
    )  # no file is named like one of these
    return Path(*plain, run.safe_name(stem) + suffix)


def _same(a: Path, b: Path) -> bool:
    return a.stat().st_size == b.stat().st_size and _digest(a) == _digest(b)


def _digest(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").digest()


def problem(item: Item) -> str | None:
    """Why a picture or caption can't be used, or None."""
    source, name = item.source, shown(item.relative.name)
    try:
        match source.suffix.lower():
            case suffix if suffix in PICTURES:
                check(source)
            case ".jsonl":
                captions.read_metadata(source)
            case suffix if suffix in CAPTIONS:
                captions.read(source)
            case _:
                return say("{name} is not a picture, a caption or a zip; leave it out.", name=name)
    except ValueError as error:  # unpacked from a zip it has a number for a name
        return str(error).replace(shown(source.name), name, 1)
    return None


def unzip(path: Path, folder: Path) -> list[Item]:
    """The pictures and captions of a zip, unpacked in `folder` under numbers: no name in it reaches the disk.

    Raises ValueError for a zip that is unsafe or broken.
    """
    name = shown(path.name)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _entries(archive)
            _check(path, entries)
            folder.mkdir(parents=True)
            return [_unpack(archive, folder / str(n), *entry) for n, entry in enumerate(entries)]
    except Refused as error:
        raise ValueError(f"{name} was not opened: {error}.") from error
    except OSError as error:
        if error.errno not in (
            None,
            errno.EINVAL,
        ):  # of the disk that it is unpacked to, not of an offset in the zip
            raise
        raise ValueError(f"{name} {BROKEN}") from error
    except Exception as error:  # zipfile and zlib have a dozen kinds for what is wrong in it
        raise ValueError(f"{name} {BROKEN}") from error


class Refused(ValueError):
    """Why a zip is not unpacked, as a part of a sentence."""


def _entries(archive: zipfile.ZipFile) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    named = [(info, PurePosixPath(info.filename.replace("\\", "/"))) for info in archive.infolist()]
    return [(info, relative) for info, relative in named if not info.is_dir() and _wanted(relative)]


def _check(path: Path, entries: list[tuple[zipfile.ZipInfo, PurePosixPath]]) -> None:
    for info, relative in entries:
        entry = f"its entry '{shown(info.filename)}'"
        if relative.is_absolute() or ".." in relative.parts or ":" in relative.parts[0]:
            raise Refused(f"{entry} points outside the zip; drop the pictures themselves")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise Refused(f"{entry} is a link; drop the pictures themselves")
        if info.flag_bits & 1:
            raise Refused(f"{entry} is locked with a password; make the zip without one")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused(f"{entry} is packed in an unusual way; make the zip again with another program")
    size = sum(info.file_size for info, _ in entries)
    if not entries:
        raise Refused(
            "it holds no pictures, and a zip within it is not looked into; drop the pictures themselves"
        )
    if len(entries) > MOST_FILES:
        raise Refused(f"it holds {len(entries)} files; the limit is {MOST_FILES}")
    if size > MOST_BYTES:
        raise Refused(f"it unpacks to {size / 2**30:.1f} GB; the limit is {MOST_BYTES / 2**30:.0f} GB")
    if size > MOST_EXPANSION * max(path.stat().st_size, 2**20):
        raise Refused("it unpacks to more than a hundred times its size, which pictures never do")


def _unpack(archive: zipfile.ZipFile, stem: Path, info: zipfile.ZipInfo, relative: PurePosixPath) -> Item:
    target = stem.with_suffix(relative.suffix.lower())
    with archive.open(info) as source, open(target, "wb") as file:
        _pour(source, file, info.file_size)
    return Item(target, relative)


def _pour(source: IO[bytes], target: IO[bytes], size: int) -> None:
    """Copy at most the size that the zip promised: its header may lie."""
    left = size
    while chunk := source.read(min(2**20, left + 1)):
        left -= len(chunk)
        if left < 0:
            raise Refused("it unpacks to more than it says; it may be built to fill the disk")
        target.write(chunk)


def local_folder(text: str) -> Path:
    """The folder a person typed or pasted. Raises ValueError for one that is not there."""
    cleaned = text.strip().strip("\"'")
    if not cleaned:
        raise ValueError(say("Type the path of a folder on this computer."))
    folder = typed(cleaned, "The folder").resolve()
    if not folder.is_dir():
        raise ValueError(
            say(
                "There is no folder at {place}; check the spelling, or drop the pictures instead.",
                place=shown(cleaned),
            )
        )
    return folder


def thumbnail(
    path: Path, folder: Path, size: int = THUMBNAIL, reduced: Image | None = None, *, make: bool = True
) -> Path | None:
    """A small re-encoded copy in `folder`, made once for each version of the file; of `reduced`, where that is there already.

    None where it would have to be made now and `make` is off.
    """
    target = thumbnail_path(path, folder, size)
    if not target.exists():
        if not make:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        picture = reduced or small(path, size)
        picture.thumbnail((size, size))
        with written(target, durable=False) as file:
            picture.save(file, "WEBP", quality=85, method=0)  # half the time of the usual
    return target


def thumbnail_path(path: Path, folder: Path, size: int = THUMBNAIL) -> Path:
    facts = path.stat()
    key = hashlib.sha1(f"{path}|{facts.st_mtime_ns}|{facts.st_size}|{size}".encode()).hexdigest()[:20]
    return folder / f"{key}.webp"
