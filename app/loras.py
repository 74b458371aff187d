"""LoRA files as the Try it page knows them: those of the runs, ones a person brought, and a copy without training details."""

import filecmp
import json
import shutil
import struct
from functools import lru_cache
from pathlib import Path

from lora_sd import best, run
from lora_sd.files import changed
from lora_sd.lora import beside
from lora_sd.lora.inspection import inspect, read_header
from lora_sd.lora.metadata import minimal
from lora_sd.paths import is_text, shown, typed

from . import places, reach, stars, story
from .words import say

MOST_RUNS = 40
STAR = "★ "


def folder() -> Path:
    """Where LoRAs lie that a person brought."""
    return run.home() / "models" / "loras"


def menu() -> list[tuple[str, str]]:
    """(label, id) of every LoRA of the newest runs, the last checkpoint of each first, then the ones brought."""
    entries = [
        (
            f"{star(found.folder, path)}{found.name} · {step(path)}{_suggested(found.folder, path)}",
            f"{found.folder.name}/{path.name}",
        )
        for found in story.runs()[:MOST_RUNS]
        for path in reversed(story.checkpoints(found.folder))
    ]
    return entries + [(f"{star(folder(), path)}{path.stem}", str(path)) for path in brought()]


def star(folder: Path, path: Path) -> str:
    """What a file with a star begins with in menus."""
    return STAR if path.name in stars.of(folder) else ""


def starred(lora: str) -> bool:
    """Whether a LoRA of the menu has a star."""
    place = _place(lora)
    return place is not None and file(lora).name in stars.of(place)


def give_star(lora: str) -> bool:
    """Give the star of a LoRA of the menu, or take it; whether it has one now."""
    place = _place(lora)
    if place is None:
        raise ValueError(
            say("Only LoRAs of the menu can have a star; open this one with “Open a .safetensors”.")
        )
    now = not starred(lora)
    stars.put(place, file(lora).name, now)
    return now


def _place(lora: str) -> Path | None:
    """The folder that holds the stars of a LoRA: its run's, or that of the ones brought."""
    if found := run_of(lora):
        return found
    return folder() if Path(lora) in brought() else None


def of_path(path: str) -> str:
    """The menu's id of a LoRA file."""
    found = Path(path)
    runs, checkpoints = run.home() / "runs", found.parent
    ours = checkpoints.name == "checkpoints" and checkpoints.parent.parent == runs
    return f"{checkpoints.parent.name}/{found.name}" if ours else path


def word_of(lora: Path) -> str | None:
    """The trigger word that a LoRA brings vectors for."""
    known = inspect(lora)
    return known.word.text if known.word else None


def _suggested(folder: Path, path: Path) -> str:
    return f" · {say('suggested')}" if best.suggested(folder) == path.name else ""


def brought() -> list[Path]:
    """The LoRAs that a person brought."""
    return sorted(path for path in folder().glob("*.safetensors") if is_text(path))


def step(path: Path) -> str:
    """`"mycat-000050.safetensors" -> "step 50"`; the file without a number is the final one, or the best."""
    if run.is_best(path):
        return "best" + _step_in(path, changed(path))
    number = run.step_of(path)
    return "final" if number is None else f"step {number:,}"


@lru_cache(maxsize=256)
def _step_in(path: Path, changed: int) -> str:
    """`" (step 50)"` by the header of a file that was `changed` then; nothing where it does not tell."""
    try:
        return f" (step {int(read_header(path).metadata['ss_steps']):,})"
    except (KeyError, ValueError, OSError):
        return ""


def newest(run_id: str) -> str | None:
    """The id of a run's last checkpoint."""
    found = run.find(run_id)
    files = run.checkpoints(found) if found else []
    return f"{run_id}/{files[-1].name}" if files else None


def run_of(lora: str) -> Path | None:
    """The run that made it, where it is one of ours."""
    run_id, _, name = lora.partition("/")
    found = run.find(run_id)
    plain = Path(name).name == name  # no way out of the folder
    return found if found and plain and (found / "checkpoints" / name).is_file() else None


def file(lora: str) -> Path:
    """The file of a menu id or a path. Raises ValueError if there is none."""
    if found := run_of(lora):
        return found / "checkpoints" / lora.partition("/")[2]
    path = typed(lora.strip().strip("\"'"), "The LoRA")
    if path not in brought():
        reach.not_in_menu(lora, "The LoRA")
    if path.suffix.lower() != ".safetensors":
        raise ValueError(
            say(
                "{file} is not a .safetensors file, the only kind that is safe to open.",
                file=shown(path.name) or lora,
            )
        )
    if not path.is_file():
        raise ValueError(
            say("There is no LoRA at {place}; choose one from the list, or upload it.", place=shown(lora))
        )
    return path


def embedding(lora: Path) -> Path | None:
    """The file of the trigger word's vectors, where the LoRA goes with one and has it beside it."""
    return beside.of(lora)


def bring(upload: Path) -> Path:
    """Keep an uploaded LoRA or textual-inversion file under a safe name, beside others of that name. ValueError if it is none."""
    inspect(upload)
    wanted = folder() / f"{run.safe_name(upload.stem)}.safetensors"
    wanted.parent.mkdir(parents=True, exist_ok=True)
    target, number = wanted, 1
    while target.exists() and not filecmp.cmp(target, upload, shallow=False):
        number += 1
        target = wanted.with_stem(f"{wanted.stem}-{number}")
    shutil.copyfile(upload, target)
    return target


def offered(path: Path) -> Path:
    """A copy that the page may hand out: nothing of a run's folder is served itself."""
    target = _shelf("as-is") / path.name
    shutil.copyfile(path, target)
    return target


def without_details(path: Path, name: str = "") -> Path:
    """A copy to hand out whose header tells nothing of captions, folders and settings; the weights are the same bytes."""
    read_header(path)
    target = _shelf("plain") / (f"{run.safe_name(name)}.safetensors" if name else path.name)
    with open(path, "rb") as source, open(target, "wb") as copy:
        (length,) = struct.unpack("<Q", source.read(8))
        header = json.loads(source.read(length))
        header["__metadata__"] = minimal(header.get("__metadata__", {}))
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
        copy.write(struct.pack("<Q", len(text)) + text)
        shutil.copyfileobj(source, copy)
    return target


def _shelf(name: str) -> Path:
    shelf = places.uploads() / name
    shelf.mkdir(parents=True, exist_ok=True)
    return shelf
