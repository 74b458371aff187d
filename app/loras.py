"""LoRA files as the Try it page knows them: those of the runs, ones a person brought, and a copy without training details."""

import filecmp
import json
import shutil
import struct
from functools import lru_cache
from pathlib import Path

from lora_sd import run
from lora_sd.files import changed
from lora_sd.lora import beside
from lora_sd.lora.inspection import inspect, read_header
from lora_sd.lora.metadata import minimal
from lora_sd.paths import is_text, shown, typed

from . import places, reach, story

MOST_RUNS = 40


def folder() -> Path:
    """Where LoRAs lie that a person brought."""
    return run.home() / "models" / "loras"


def menu() -> list[tuple[str, str]]:
    """(label, id) of every LoRA of the newest runs, the last checkpoint of each first, then the ones brought."""
    entries = [
        (f"{found.name} · {step(path)}", f"{found.folder.name}/{path.name}")
        for found in story.runs()[:MOST_RUNS]
        for path in reversed(story.checkpoints(found.folder))
    ]
    return entries + [(path.stem, str(path)) for path in brought()]


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
            f"{shown(path.name) or 'That'} is not a .safetensors file, the only kind that is safe to open."
        )
    if not path.is_file():
        raise ValueError(f"There is no LoRA at {shown(lora)}; choose one from the list, or upload it.")
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
