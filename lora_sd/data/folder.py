"""A folder of pictures → examples: flat, nested, or with subfolders named `5_cat`, whose pictures count five times.

Single pictures count otherwise by their path below the folder, or a pattern of it: `{"blurry.png": 0, "face*": 3}`.

Nothing in the folder is ever written. `starter:streamline` and `starter:fluent`, each with `/heldout`, are the sets that are shipped.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, NamedTuple

from ..paths import is_text, shown, typed
from ..remembered import Remembered
from . import captions as cap
from . import images
from .buckets import Size, listed
from .variants import AS_IT_IS, Wording

STARTER_SETS = Path(__file__).parents[1] / "starter" / "sets"
IGNORED = ("__macosx", "@eadir", "thumbs.db", "desktop.ini")
SUFFIXES = frozenset(
    ".png .jpg .jpeg .jpe .jfif .webp .bmp .gif .tif .tiff .avif .heic .heif .jxl .psd".split()
)
SIGNATURE = re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|II\*\0|MM\0\*|....ftypavif", re.DOTALL)
NONE: Mapping[str, int] = {}
REPEATS = re.compile(r"(\d{1,3})_.")  # 2024_holiday is a year


@dataclass(frozen=True)
class Example:
    """One picture with its caption."""

    path: Path
    caption: str  # several of them on lines of their own
    size: Size  # (w, h) of the upright picture
    repeats: int = 1  # how often it counts in an epoch
    weight: float = 1.0  # factor of its loss
    mask: Path | None = None
    flip: bool = False  # whether it may be shown mirrored
    flipped: bool = False  # whether it is
    wording: Wording = AS_IT_IS
    prior: bool = False  # whether it shows what the base model draws already, and is not to be forgotten
    root: Path | None = None  # the folder that was named
    hidden: tuple[int, int, int, int] | None = None  # what is grey in it: data/hidden.py


class Found(NamedTuple):
    examples: list[Example]  # in natural order of their paths
    skipped: list[tuple[Path, str]]  # damaged ones, each with a sentence
    notes: list[str]


def find_examples(
    folder: str | Path,
    *,
    trigger: str = "",
    trigger_setting: str = "data.trigger",
    captions: Literal["files", "filename"] = "files",
    lines: bool = False,
    on_bad_image: Literal["stop", "skip"] = "stop",
    own_repeats: Mapping[str, int] = NONE,
    memory: Path | None = None,
) -> Found:
    """Every picture of the folder, checked, with its caption; ValueError says what is wrong and what to do.

    With `lines` each line of a caption file is a caption of its own. In the file `memory` it is remembered which pictures are good, so that none is decoded for that twice.
    """
    root = _resolved(folder)
    files = sorted(_files(root), key=lambda path: natural(path.relative_to(root).as_posix()))
    pictures = [path for path in files if _is_picture(path)]
    repeats, notes = _repeats(root, pictures)
    own, said = _own_repeats(root, pictures, own_repeats)
    repeats, notes = {path: times * own[path] for path, times in repeats.items()}, notes + said
    counting = [path for path in pictures if repeats[path]]
    if not counting:
        raise ValueError(_nothing(root, files, left_out=bool(pictures)))

    sizes, skipped = _checked(counting, memory)
    if (skipped and on_bad_image == "stop") or not sizes:
        raise ValueError(_damaged(skipped, len(counting), on_bad_image))

    texts, said = (
        ({p: cap.from_name(p) for p in sizes}, [])
        if captions == "filename"
        else _captions(files, sizes, lines)
    )
    notes += said + _completeness(root, list(sizes), texts, trigger, trigger_setting)
    examples = [
        Example(path, cap.with_trigger_in_each(texts.get(path, ""), trigger), size, repeats[path])
        for path, size in sizes.items()
    ]
    return Found(examples, skipped, notes)


def pictures_of(folder: str | Path) -> dict[Path, int]:
    """Every picture of the folder, by its name, and how often it counts; none is opened. ValueError where there is no folder."""
    root = _resolved(folder)
    return repeats_of(root, [path for path in _files(root) if _is_picture(path)])


def repeats_of(root: Path, pictures: list[Path], own: Mapping[str, int] = NONE) -> dict[Path, int]:
    """How often each of the pictures below `root` counts: as the nearest folder named N_ says, times its own repeats."""
    times = _own_repeats(root, pictures, own)[0]
    return {path: count * times[path] for path, count in _repeats(root, pictures)[0].items()}


def captions_of(root: Path, pictures: list[Path]) -> dict[Path, str]:
    """The caption of each picture below `root` that has one, as training finds it; several are on lines of their own."""
    return _captions(list(_files(root)), pictures, lines=True)[0]


def captioned(folder: str | Path) -> tuple[list[Path], dict[Path, str]]:
    """The pictures that count, in natural order, and the captions of those that have one; no picture is opened."""
    root = _resolved(folder)
    files = sorted(_files(root), key=lambda path: natural(path.relative_to(root).as_posix()))
    counts, _ = _repeats(root, [path for path in files if _is_picture(path)])
    pictures = [path for path, times in counts.items() if times]
    if not pictures:
        raise ValueError(_nothing(root, files))
    return pictures, {path: text for path, text in captions_of(root, pictures).items() if text}


def names(examples: Sequence[Example]) -> list[str]:
    """Each picture's path below the folder that all of its root have in common; of other roots with their number before."""
    roots = list(dict.fromkeys(example.root for example in examples))
    parents = {
        root: os.path.commonpath([example.path.parent for example in examples if example.root == root])
        for root in roots
    }
    return [
        (f"{number}/" if (number := roots.index(example.root)) else "")
        + example.path.relative_to(parents[example.root]).as_posix()
        for example in examples
    ]


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts 2.png before 10.png, and names of any case together.

    >>> sorted(["b10", "B2", "a"], key=natural)
    ['a', 'B2', 'b10']
    """
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


def _resolved(folder: str | Path) -> Path:
    if str(folder).startswith("starter:"):
        return _starter_set(str(folder).removeprefix("starter:"))
    if not str(folder).strip():
        raise ValueError("No folder of pictures was given; set data.images to one.")
    root = typed(str(folder), "The folder of pictures")
    if not is_text(root):
        raise ValueError(f"The name of the folder {shown(root)} is not UTF-8; rename it.")
    if root.is_file():
        raise ValueError(
            f"{root} is a file; give the folder that your pictures are in (unpack a .zip first)."
        )
    if not root.is_dir():
        raise ValueError(f"There is no folder at {shown(root)}; check its spelling.")
    return root


def _starter_set(name: str) -> Path:
    sets = {path.name: path for path in STARTER_SETS.iterdir() if path.is_dir()}
    chosen, _, part = name.partition("/")
    parts = {path.name: path for path in sets[chosen].iterdir() if path.is_dir()} if chosen in sets else {}
    if (part or "train") not in parts:
        known = sorted(f"starter:{path}" for path in sets)
        raise ValueError(
            f"There is no set of pictures named starter:{shown(name)}; there is {listed(known)}."
        )
    return parts[part or "train"]


def _files(root: Path) -> Iterator[Path]:
    """Files under `root` that are not hidden; folders behind links are visited, each folder once."""
    seen = set()
    for where, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(where)
        folders[:] = [] if real in seen else sorted(name for name in folders if _visible(name))
        if real not in seen:
            yield from (Path(where, name) for name in names if _visible(name))
        seen.add(real)


def _visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in IGNORED


def _is_picture(path: Path) -> bool:
    """Whether it is named as a picture or begins like one; what is named so and is none is found by the check."""
    if path.suffix.lower() in SUFFIXES:
        return True
    if path.suffix.lower() in cap.SUFFIXES:  # as many as pictures: not opened to find out
        return False
    try:
        if not path.is_file():  # a pipe would be waited for without end
            return False
        with open(path, "rb") as file:
            return SIGNATURE.match(file.read(12)) is not None
    except OSError:
        return False


def _repeats(root: Path, pictures: list[Path]) -> tuple[dict[Path, int], list[str]]:
    """How often each picture counts: as the nearest folder above it that is named N_ says."""
    found: dict[Path, int] = {}
    numbered: dict[str, list[int]] = {}
    for path in pictures:
        found[path] = 1
        for part in path.relative_to(root).parts[:-1]:
            if match := REPEATS.match(part):
                found[path] = int(match[1])
                name = part
        if found[path] != 1:
            numbered.setdefault(name, []).append(found[path])
    notes = [
        f"Pictures in {shown(name)} ({len(times)}) count {times[0]} times each."
        if times[0]
        else f"Pictures in {shown(name)} ({len(times)}) are left out, as its name says."
        for name, times in numbered.items()
    ]
    return found, notes


def _own_repeats(
    root: Path, pictures: list[Path], own: Mapping[str, int]
) -> tuple[dict[Path, int], list[str]]:
    """How often each picture counts by its name: as the last name or pattern says that fits; 1 where none does."""
    found, fitting = dict.fromkeys(pictures, 1), dict.fromkeys(own, 0)
    names = {path: cap.name_of(path.relative_to(root)) for path in pictures} if own else {}
    for path, name in names.items():
        for pattern, times in own.items():
            if name == pattern or fnmatchcase(name, pattern):  # a name may hold what is a pattern's sign
                found[path] = times
                fitting[pattern] += 1
    notes = [
        f"{counted} {'picture is' if counted == 1 else 'pictures are'} left out, as data.repeats says."
        for counted in [list(found.values()).count(0)]
        if counted
    ]
    if missing := [shown(pattern) for pattern, count in fitting.items() if not count]:
        notes.append(f"No picture is called {listed(missing)}, which data.repeats names; check the spelling.")
    return found, notes


def _nothing(root: Path, files: list[Path], left_out: bool) -> str:
    if left_out:
        return f"Every picture of {root} is left out, by data.repeats or a folder named 0_; let some count."
    if not files:
        return f"The folder {root} is empty; put your pictures in it."
    return f"The folder {root} has no pictures, only {listed([shown(path.name) for path in files])}; PNG, JPEG and WebP are read."


def _checked(pictures: list[Path], memory: Path | None) -> tuple[dict[Path, Size], list[tuple[Path, str]]]:
    """Sizes of the good pictures, and the bad ones with a sentence each."""
    sizes, skipped = {}, []
    known = Remembered(memory, images.check) if memory else None

    def check(path: Path) -> Size | str:
        if not is_text(path):  # what is written of it, in events and in the header of a LoRA, is UTF-8
            return f"The name of {shown(path.name)} is not UTF-8; rename it."
        try:
            w, h = known[path] if known else images.check(path)
            return w, h
        except OSError as error:
            return images.problem(path, error)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(
        min(8, os.cpu_count() or 1)
    ) as pool:  # Pillow decodes without the interpreter's lock
        for path, result in zip(pictures, pool.map(check, pictures), strict=True):
            if isinstance(result, str):
                skipped.append((path, result))
            else:
                sizes[path] = result
    if known:
        known.save()
    return sizes, skipped


def _damaged(skipped: list[tuple[Path, str]], num_pictures: int, on_bad_image: str) -> str:
    told = " ".join(sentence for _, sentence in skipped[:3])
    more = f" {len(skipped) - 3} more can't be read either." if len(skipped) > 3 else ""
    if len(skipped) == num_pictures:
        return f"None of the pictures can be read. {told}{more}"
    remedy = ' Or set data.on_bad_image = "skip" to train without.' if on_bad_image == "stop" else ""
    return f"{told}{more}{remedy}"


def _captions(files: list[Path], pictures: Iterable[Path], lines: bool) -> tuple[dict[Path, str], list[str]]:
    """Captions from files beside the pictures, else from a metadata.jsonl; and notes on encodings that were guessed."""
    listing: dict[Path, list[Path]] = {}
    for path in files:
        listing.setdefault(path.parent, []).append(path)
    by_folder = {folder: cap.by_name(paths) for folder, paths in listing.items()}
    read = {path: cap.read_metadata(path) for path in files if path.name.lower() == "metadata.jsonl"}
    metadata = {name: caption for captions, _ in read.values() for name, caption in captions.items()}

    texts: dict[Path, str | None] = {}
    guesses = {shown(path.name): guessed for path, (_, guessed) in read.items()}
    for path in pictures:
        if source := cap.beside(path, by_folder[path.parent]):
            texts[path], guesses[shown(source.name)] = cap.read(source, lines=lines)
        if texts.get(path) is None:
            texts[path] = metadata.get(cap.name_of(path))
    return {path: text for path, text in texts.items() if text is not None}, _encodings(guesses)


def _encodings(guesses: dict[str, str | None]) -> list[str]:
    notes = []
    for encoding in sorted({guessed for guessed in guesses.values() if guessed}):
        names = [name for name, guessed in guesses.items() if guessed == encoding]
        notes.append(f"Not UTF-8, so read as {encoding}: {listed(names)}. Check the accented letters.")
    return notes


def _completeness(
    root: Path, pictures: list[Path], texts: dict[Path, str], trigger: str, setting: str
) -> list[str]:
    """A note where captions are missing and the trigger word stands in; ValueError where there is none."""
    missing = [shown(path.relative_to(root).as_posix()) for path in pictures if path not in texts]
    if not missing:
        return []
    counted = f"{len(pictures) - len(missing)} of {len(pictures)} pictures have captions; missing: {listed(missing)}."
    if not trigger.strip():
        raise ValueError(
            f"{counted} Give a trigger word ({setting}), which then is their caption, "
            'or take captions from the file names (data.captions = "filename").'
        )
    return [counted] if texts else [f"No caption files: every picture is captioned {trigger.strip()!r}."]
