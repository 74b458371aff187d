"""Captions for a folder of pictures: which pictures, the model over them batch by batch, and the .txt beside each.

Pictures are only read. What is written is one .txt beside each, whole or not at all, and read before any other caption.
"""

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

from PIL import Image

from ..data import folder as pictures_in
from ..data import images
from ..files import write_text
from ..models import captioners
from ..models.captioners import Captioner
from ..paths import shown, typed
from .wording import EXISTING, Existing, combined

MOST_TOKENS = 200
Write = Callable[[dict[Path, str]], None]  # takes captions by picture


class Writer(Protocol):
    """A loaded model."""

    at_once: int  # pictures in a batch

    def __call__(self, pictures: list[Image.Image]) -> list[str]: ...


class Made(NamedTuple):
    """What came of one batch of `total` pictures."""

    captions: dict[Path, str]  # as the model wrote them
    skipped: dict[Path, str]  # pictures that can't be read, each with a sentence
    done: int
    total: int


def caption(
    folder: str | Path,
    model: str | Path,
    *,
    existing: Existing = "skip",
    trigger: str = "",
    threshold: float = 0.35,
    character_threshold: float = 0.85,
    without: Collection[str] = (),
    max_tokens: int = 40,
    device: str = "auto",
    on_made: Callable[[Made], None] = lambda made: None,
    should_stop: Callable[[], bool] = lambda: False,
    write: Write | None = None,
) -> dict[Path, str]:
    """Write captions for the pictures of `folder` with `model`, a folder or Hugging Face name that is on this computer.

    `existing`: what becomes of pictures that have a caption: "skip", "replace" or "append". Of a tagger the thresholds are
    probabilities, `without` are tags never to write; `max_tokens` is the length of a sentence of BLIP's. Every batch is
    written as soon as it is made; the captions that were written come back, by picture.
    """
    root = own_folder(folder)
    todo = to_do(root, existing)
    if not todo:
        return {}
    if write is None:
        _refuse_twins(todo)
        write = write_files
    loaded = load(
        captioners.describe(str(model)),
        threshold=threshold,
        character_threshold=character_threshold,
        without=without,
        max_tokens=max_tokens,
        device=device,
    )
    written: dict[Path, str] = {}
    for made in over(todo, loaded):
        changes = changed(root, made.captions, existing=existing, trigger=trigger)
        write(changes)
        written |= changes
        on_made(made)
        if should_stop():
            break
    return written


def own_folder(folder: str | Path) -> Path:
    """A folder that may be written in. ValueError for one of ours, and for what is none."""
    if str(folder).startswith("starter:"):
        raise ValueError(
            f"{shown(folder)} comes with the program and has its captions; copy the pictures to a folder of yours first."
        )
    return typed(str(folder), "The folder of pictures")


def to_do(folder: Path, existing: Existing) -> list[Path]:
    """The pictures that get a caption."""
    if existing not in EXISTING:
        raise ValueError(f"existing is {existing!r}; it must be one of {', '.join(EXISTING)}.")
    pictures, texts = pictures_in.captioned(folder)
    return [path for path in pictures if existing != "skip" or path not in texts]


def _refuse_twins(pictures: list[Path]) -> None:
    """ValueError where two pictures would have one .txt."""
    by_file: dict[Path, Path] = {}
    for path in pictures:
        other = by_file.setdefault(path.with_suffix(".txt"), path)
        if other != path:
            raise ValueError(
                f"{shown(other.name)} and {shown(path.name)} would share the caption {shown(path.stem)}.txt; "
                "rename one of them."
            )


def load(
    model: Captioner,
    *,
    threshold: float = 0.35,
    character_threshold: float = 0.85,
    without: Collection[str] = (),
    max_tokens: int = 40,
    device: str = "auto",
) -> Writer:
    """The model, loaded on `device`."""
    for name, value in (("threshold", threshold), ("character threshold", character_threshold)):
        if not 0 < value < 1:
            raise ValueError(f"The {name} is {value}; it is a probability, more than 0 and less than 1.")
    if not 1 <= max_tokens <= MOST_TOKENS:
        raise ValueError(f"The most tokens are {max_tokens}; choose 1 to {MOST_TOKENS}.")
    if model.kind == "tagger":
        from .tagger import Tagger

        return Tagger(
            model.path,
            "cpu" if device == "mps" else device,
            threshold=threshold,
            character_threshold=character_threshold,
            without=without,
        )
    from ..hardware import choose
    from .blip import Blip

    return Blip(model.path, *choose(device), max_tokens=max_tokens)


def over(pictures: list[Path], model: Writer) -> Iterator[Made]:
    """What the model says of the pictures, batch by batch; the next batch is read meanwhile."""
    batches = [pictures[i : i + model.at_once] for i in range(0, len(pictures), model.at_once)]
    with ThreadPoolExecutor(2) as pool:
        coming = [pool.submit(_read, batch) for batch in batches[:1]]
        for number, batch in enumerate(batches):
            read, skipped = coming.pop().result()
            coming += [pool.submit(_read, following) for following in batches[number + 1 : number + 2]]
            texts = model(list(read.values())) if read else []
            done = number * model.at_once + len(batch)
            yield Made(dict(zip(read, texts, strict=True)), skipped, done, len(pictures))


def _read(paths: list[Path]) -> tuple[dict[Path, Image.Image], dict[Path, str]]:
    read, skipped = {}, {}
    for path in paths:
        try:
            read[path] = images.rgb(path)
        except ValueError as error:
            skipped[path] = str(error)
    return read, skipped


def changed(folder: Path, new: dict[Path, str], *, existing: Existing, trigger: str = "") -> dict[Path, str]:
    """The captions to write, of pictures whose caption becomes another one; as they are beside the pictures now."""
    old = pictures_in.captions_of(folder, list(new))
    wanted = {
        path: combined(text, old.get(path, ""), existing=existing, trigger=trigger)
        for path, text in new.items()
    }
    return {path: text for path, text in wanted.items() if text and text != old.get(path)}


def write_files(captions: dict[Path, str]) -> None:
    """Each caption as the .txt beside its picture."""
    for picture, text in captions.items():
        write_text(picture.with_suffix(".txt"), text + "\n")
