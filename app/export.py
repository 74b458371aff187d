"""A LoRA into the folders of other programs on this computer, under a free name, whole or not at all."""

import filecmp
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from lora_sd.files import written
from lora_sd.models import find
from lora_sd.paths import shown, typed
from lora_sd.run import safe_name

from . import loras, reach
from .words import say

# program → its folders of LoRAs and of embeddings, seen from that of its checkpoints; the first that is there counts
SEEN = {
    "ComfyUI": (("../loras",), ("../embeddings",)),
    "A1111": (("../Lora",), ("../../embeddings",)),
    "Forge": (("../Lora",), ("../../embeddings",)),
    "StabilityMatrix": (("../Lora",), ("../Embeddings", "../TextualInversion")),
}


class Program(NamedTuple):
    """A program on this computer, and where it looks for what."""

    name: str
    loras: Path
    embeddings: Path | None


class Copied(NamedTuple):
    lora: Path
    word: Path | None  # the trigger word's vectors
    note: str  # what could not be done, or had been done before


def programs() -> list[Program]:
    """Those found on this computer, each folder once."""
    found: dict[Path, Program] = {}
    for name, checkpoints in find.model_folders():
        if name in SEEN:
            own, words = (_first(checkpoints, seen) for seen in SEEN[name])
            if own:
                found.setdefault(own, Program(name, own, words))
    return list(found.values())


def _first(checkpoints: Path, seen: tuple[str, ...]) -> Path | None:
    places = (Path(os.path.normpath(checkpoints / path)) for path in seen)
    return next((place for place in places if place.is_dir()), None)


def into_program(lora: str, folder: str, name: str, *, plain: bool) -> Copied:
    """Copy a LoRA of the menu into the program whose folder of LoRAs that is."""
    _here()
    chosen = next((program for program in programs() if str(program.loras) == folder), None)
    if chosen is None:
        raise ValueError(say("That program's folder is not there any more; open this page anew."))
    return _copy(lora, chosen.loras, chosen.embeddings, name, plain)


def into_folder(lora: str, text: str, name: str, *, plain: bool) -> Copied:
    """Copy it into a folder that was typed; the word's vectors go into `embeddings` there, where it is looked for."""
    _here()
    if not text.strip():
        raise ValueError(say("Type the folder that the copy should go into."))
    folder = typed(text.strip().strip("\"'"), "The folder").resolve()
    if not folder.is_dir():
        raise ValueError(say("There is no folder at {path}; check the spelling.", path=shown(text.strip())))
    return _copy(lora, folder, folder / "embeddings", name, plain)


def _here() -> None:
    if reach.confined:
        raise ValueError(
            say(
                "Files are copied only at the computer itself, started without --listen and --share; download it instead."
            )
        )


def _copy(lora: str, folder: Path, embeddings: Path | None, name: str, plain: bool) -> Copied:
    source = loras.file(lora)
    word = loras.embedding(source)
    content = loras.without_details(source) if plain else source
    target, before = _place(content, folder, safe_name(name) if name.strip() else source.stem)
    notes = [say("It was there already.")] if before else []
    if word is None:
        return Copied(target, None, " ".join(notes))
    if embeddings is None:
        notes.append(say("This program has no folder of embeddings, so its word was left here."))
        return Copied(target, None, " ".join(notes))
    embeddings.mkdir(exist_ok=True)
    called = loras.word_of(source) or word.stem
    there = embeddings / f"{safe_name(called)}.safetensors"
    vectors = loras.without_details(word, called)
    if there.exists() and not filecmp.cmp(vectors, there, shallow=False):
        notes.append(
            say(
                "{file} is another word's file, and was left as it is; the LoRA's word needs this name.",
                file=str(there),
            )
        )
        return Copied(target, None, " ".join(notes))
    placed, _ = _place(vectors, embeddings, there.stem)
    return Copied(target, placed, " ".join(notes))


def _place(source: Path, folder: Path, stem: str) -> tuple[Path, bool]:
    """Put a copy there as STEM, STEM-2 …, the first that is free or holds the same; whether it had been there."""
    number = 1
    while True:
        target = folder / f"{stem}{'' if number == 1 else f'-{number}'}.safetensors"
        try:
            target.touch(exist_ok=False)  # the name is ours from now on
            break
        except FileExistsError:
            if filecmp.cmp(source, target, shallow=False):
                return target, True
            number += 1
    try:
        with open(source, "rb") as original, written(target) as copy:
            shutil.copyfileobj(original, copy, 1 << 20)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target, False
