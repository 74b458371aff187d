"""Pictures a person hands over (files, a zip, a folder) become safe copies in a project; what can't be read is named."""

import hashlib
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from lora_sd import run
from lora_sd.data.folder import SUFFIXES as PICTURES
from lora_sd.data.folder import natural
from lora_sd.data.images import check, rgb

CAPTIONS = {".txt", ".caption", ".json", ".jsonl"}
MOST_FILES = 5000  # in a zip
MOST_BYTES = 4 * 2**30  # unpacked
MOST_EXPANSION = 100  # unpacked : packed
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
                skipped.append(Skipped(path.name, str(error)))
        return _copy(items, images, skipped)


def _open(path: Path, scratch: Path) -> list[Item]:
    if path.is_dir():
        return _below(path)
    if path.suffix.lower() == ".zip":
        unzip(path, scratch)
        return _below(scratch)
    return [Item(path, PurePosixPath(path.name))]


def _below(folder: Path) -> list[Item]:
    """The pictures and captions in a folder in natural order; hidden files and links are not followed."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    items = [Item(path, PurePosixPath(path.relative_to(folder).as_posix())) for path in files]
    kept = [
        item
        for item in items
        if not _clutter(item.relative) and item.source.suffix.lower() in PICTURES | CAPTIONS
    ]
    return sorted(kept, key=lambda item: natural(str(item.relative)))


def _clutter(relative: PurePosixPath) -> bool:
    hidden = (part.startswith(".") and part != ".." for part in relative.parts)
    return any(hidden) or "__MACOSX" in relative.parts


def _copy(items: list[Item], images: Path, skipped: list[Skipped]) -> Added:
    pictures = [item for item in items if item.source.suffix.lower() in PICTURES]
    captions = [item for item in items if item.source.suffix.lower() in CAPTIONS]
    others = [item for item in items if item.source.suffix.lower() not in PICTURES | CAPTIONS]
    skipped += [
        Skipped(item.relative.name, f"{item.relative.name} is not a picture, a caption or a zip.")
        for item in others
    ]
    placed: dict[PurePosixPath, Path] = {}  # path without suffix as it was given -> where its picture is now
    for item in pictures:
        if reason := problem(item.source):
            skipped.append(Skipped(item.relative.name, reason))
        else:
            placed[item.relative.with_suffix("")] = _place(item, images)
    for item in captions:
        picture = placed.get(item.relative.with_suffix(""))
        target = picture.with_suffix(item.source.suffix.lower()) if picture else images / _safe(item.relative)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(item.source, target)
    return Added(len(placed), len(captions), skipped)


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
    return Path(*map(run.safe_name, folders), run.safe_name(stem) + suffix)


def _same(a: Path, b: Path) -> bool:
    return a.stat().st_size == b.stat().st_size and _digest(a) == _digest(b)


def _digest(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").digest()


def problem(path: Path) -> str | None:
    """Why a picture can't be used, or None."""
    try:
        check(path)
    except ValueError as error:
        return str(error)
    return None


def unzip(path: Path, folder: Path) -> None:
    """Unpack pictures and captions of a zip below `folder`. Raises ValueError for a zip that is unsafe or broken."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = list(_entries(archive))
            _check(path, entries)
            for info, relative in entries:
                target = folder / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, open(target, "wb") as file:
                    _pour(source, file, info.file_size)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"this zip can't be opened ({error}); make it again or drop the pictures themselves"
        ) from error


def _entries(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, PurePosixPath]]:
    for info in archive.infolist():
        relative = PurePosixPath(info.filename.replace("\\", "/"))
        if not info.is_dir() and not _clutter(relative) and relative.suffix.lower() in PICTURES | CAPTIONS:
            yield info, relative


def _check(path: Path, entries: list[tuple[zipfile.ZipInfo, PurePosixPath]]) -> None:
    for info, relative in entries:
        outside = relative.is_absolute() or ".." in relative.parts or ":" in relative.parts[0]
        if outside:
            raise ValueError(
                f"its entry {info.filename!r} points outside the zip; drop the pictures themselves"
            )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ValueError(f"its entry {info.filename!r} is a link; drop the pictures themselves")
    size = sum(info.file_size for info, _ in entries)
    if len(entries) > MOST_FILES:
        raise ValueError(f"it holds {len(entries)} files; the limit is {MOST_FILES}")
    if size > MOST_BYTES:
        raise ValueError(f"it unpacks to {size / 2**30:.1f} GB; the limit is {MOST_BYTES / 2**30:.0f} GB")
    if size > MOST_EXPANSION * max(path.stat().st_size, 2**20):
        raise ValueError("it unpacks to more than a hundred times its size, which pictures never do")


def _pour(source: IO[bytes], target: IO[bytes], size: int) -> None:
    """Copy at most the size that the zip promised: its header may lie."""
    left = size
    while chunk := source.read(min(2**20, left + 1)):
        left -= len(chunk)
        if left < 0:
            raise ValueError("it unpacks to more than it says; it may be built to fill the disk")
        target.write(chunk)


def local_folder(text: str) -> Path:
    """The folder a person typed or pasted. Raises ValueError for one that is not there."""
    cleaned = text.strip().strip("\"'")
    if not cleaned:
        raise ValueError("Type the path of a folder on this computer.")
    folder = Path(cleaned).expanduser().resolve()
    if not folder.is_dir():
        raise ValueError(
            f"There is no folder at {cleaned}; check the spelling, or drop the pictures instead."
        )
    return folder


def thumbnail(path: Path, folder: Path, size: int = THUMBNAIL) -> Path:
    """A small re-encoded copy in `folder`, made once for each version of the file."""
    facts = path.stat()
    key = hashlib.sha1(f"{path}|{facts.st_mtime_ns}|{facts.st_size}|{size}".encode()).hexdigest()[:20]
    target = folder / f"{key}.webp"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        small = rgb(path)
        small.thumbnail((size, size))
        partial = target.with_suffix(".part")
        small.save(partial, "WEBP", quality=85)
        partial.replace(target)
    return target
