"""Base models on this computer: what a name means, what lies at a path, and which models are installed. No torch."""

import contextlib
import json
import os
import re
import string
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..files import write_text
from ..paths import is_text, shown, typed
from ..run import home
from .header import (
    INPAINTING,
    SUPPORTED,
    channels_of_folder,
    component_problem,
    family_of_folder,
    identify,
    prediction_of,
    read_json,
)
from .others import SUFFIXES
from .safetensors_file import open_header

STARTER = Path(__file__).parent.parent / "starter" / "model"
HUB_NAME = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}")  # owner/model; 96 letters are the most there


@dataclass(frozen=True)
class Found:
    source: str  # what `load` takes
    title: str
    family: str | None
    kind: Literal["checkpoint", "folder", "lora", "unknown"]
    prediction: Literal["epsilon", "v_prediction"] | None
    size: int  # bytes on disk
    where: str  # "starter", "Hugging Face cache", "ComfyUI" …
    path: Path
    zero_snr: bool = False  # a model that says its noise schedule ends in pure noise
    inpainting: bool = False  # whether it paints what a mask hides
    problem: str = ""  # why it can't be a base model: a sentence without its subject


def describe(source: str | Path) -> Found:
    """The base model `source`: 'starter', a file, a diffusers folder or a Hugging Face name that is on this computer.

    Raises ValueError with one sentence for whatever can't be taught.
    """
    found = look(locate(str(source)), source=str(source))
    if found.problem:
        raise ValueError(f"{found.title} {found.problem}.")
    return found


def locate(source: str) -> Path:
    """The file or folder that `source` names on this computer."""
    if source == "starter":
        return STARTER
    path = typed(source, "The base model")
    if os.path.exists(path):
        return path
    if HUB_NAME.fullmatch(source):
        ours = our_folder(source)
        if os.path.exists(ours / "model_index.json"):  # False, too, for a name that is too long
            return ours
        snapshot = hub_snapshot(source)
        if snapshot:
            return snapshot
        raise ValueError(
            f"There is no folder {source}, and no model of that name has been downloaded; "
            f"python -m lora_sd download {source} gets it from Hugging Face."
        )
    raise ValueError(
        f"There is no model at {shown(source)}; give a .safetensors file, a diffusers folder, "
        "a Hugging Face name like owner/model, or 'starter'."
    )


def our_folder(name: str) -> Path:
    """Where the Hugging Face model `name` is downloaded to."""
    return home() / "models" / name.replace("/", "--")


def look(path: Path, *, source: str = "", where: str = "") -> Found:
    """What lies at `path`, usable or not (then `problem` says why). ValueError where it can't be read at all."""
    if path.is_dir():
        return _look_at_folder(path, source or str(path), where or _whose(path))
    size = path.stat().st_size
    if not path.is_file():  # reading a pipe would wait without end
        known = {
            "problem": "is not a file that can be read; choose a .safetensors file or a diffusers folder"
        }
    elif path.suffix == ".safetensors":
        with open_header(path) as contents:
            known = identify(contents)
    elif path.suffix in (".ckpt", ".pt", ".pth"):
        known = {"kind": "checkpoint"}  # a pickle: told only by loading it
    else:
        kind = SUFFIXES.get(path.suffix.lower(), "not a model")
        known = {"problem": f"is {kind}; {SUPPORTED}, as a .safetensors file or a diffusers folder"}
    return Found(
        **{"family": None, "kind": "unknown", "prediction": None, **known},
        source=source or str(path),
        title=path.name,
        size=size,
        where=where or _whose(path),
        path=path,
    )


def _look_at_folder(path: Path, source: str, where: str) -> Found:
    if not (path / "model_index.json").is_file():
        what = component_problem(path) or "is not a diffusers model: it has no model_index.json"
        raise ValueError(f"{shown(path)} {what}; choose the folder with a model_index.json.")
    index = read_json(path / "model_index.json")
    family, problem = family_of_folder(path, index)
    scheduler = path / "scheduler" / "scheduler_config.json"
    schedule = read_json(scheduler) if scheduler.is_file() else None
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return Found(
        source=source,
        title=_title_of_folder(path, source),
        family=family,
        kind="folder",
        prediction=None if schedule is None else prediction_of(schedule),
        size=size,
        where=where,
        path=path,
        zero_snr=bool((schedule or {}).get("rescale_betas_zero_snr")),
        inpainting=not problem and channels_of_folder(path) == INPAINTING,
        problem=problem,
    )


def _title_of_folder(path: Path, source: str) -> str:
    if path == STARTER:
        return "Starter model"
    return source if HUB_NAME.fullmatch(source) else path.name.replace("--", "/", 1)


# Where models lie

PROGRAMS = {  # program → folder of its checkpoints, below any of `_parents()`
    "A1111": ("stable-diffusion-webui/models/Stable-diffusion",),
    "Forge": (
        "stable-diffusion-webui-forge/models/Stable-diffusion",
        "webui_forge_cu121_torch231/webui/models/Stable-diffusion",
        "sd-webui-forge-neo/models/Stable-diffusion",
    ),
    "ComfyUI": (
        "ComfyUI/models/checkpoints",
        "ComfyUI_windows_portable/ComfyUI/models/checkpoints",
    ),
    "StabilityMatrix": (
        "StabilityMatrix/Data/Models/StableDiffusion",
        "StabilityMatrix/Models/StableDiffusion",
    ),
}
USUAL = (
    "",
    "Documents",
    "Desktop",
    "Downloads",
    "AI",
    "ai",
    "Apps",
    "apps",
    "Projects",
    "projects",
    "git",
    "src",
)


def installed(extra: list[Path] | tuple[Path, ...] = ()) -> list[Found]:
    """Base models on this computer that can be taught: the starter, ours, Hugging Face's, other programs', and `extra`."""
    index = _Index()
    found = [describe("starter")]
    for where, folder in [*model_folders(), *((str(path), path) for path in extra)]:
        found += [index.look(path, str(path), where) for path in sorted(_models_in(folder))]
    found += [index.look(path, name, "Hugging Face cache") for name, path in sorted(_hub_models())]
    index.save()
    unique = {model.path.resolve(): model for model in reversed(found) if model.family and not model.problem}
    return list(reversed(unique.values()))


def model_folders() -> list[tuple[str, Path]]:
    """(whose, folder) of every folder of models there is, ours first."""
    named = [("LORA_SD_MODELS", Path(part)) for part in _paths_in("LORA_SD_MODELS")]
    comfy = [("ComfyUI", Path(part) / "models" / "checkpoints") for part in _paths_in("COMFYUI_PATH")]
    usual = [
        (program, parent / folder)
        for program, folders in PROGRAMS.items()
        for parent in _parents()
        for folder in folders
    ]
    return [
        (whose, path)
        for whose, path in [("Our models", home() / "models"), *named, *comfy, *usual]
        if path.is_dir()
    ]


def _paths_in(variable: str) -> list[str]:
    return [part for part in os.environ.get(variable, "").split(os.pathsep) if part]


def _parents() -> list[Path]:
    """Folders that people put such programs in."""
    places = [Path.home() / name for name in USUAL]
    if sys.platform == "win32":
        drives = [Path(f"{letter}:/") for letter in string.ascii_uppercase if os.path.exists(f"{letter}:/")]
        places += [drive / name for drive in drives for name in ("", "AI")]
        places += [Path(os.environ["APPDATA"])] if "APPDATA" in os.environ else []
    else:
        places += [Path("/opt"), Path("/workspace"), Path.home() / ".local" / "share"]
    return places


def _models_in(folder: Path) -> Iterator[Path]:
    """Checkpoint files and diffusers folders at or below `folder`, each folder once; not the parts of those folders."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link that leads back up
            folders.clear()
        elif "model_index.json" in files:
            folders.clear()
            yield Path(parent)
        else:
            models = (Path(parent, name) for name in files if name.endswith(".safetensors"))
            yield from (path for path in models if is_text(path))  # a menu is written in UTF-8
        seen.add(real)


def hub_cache() -> Path:
    """Hugging Face's cache of downloads, as its own library places it."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return Path(
        os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or base) / "hub"
    ).expanduser()


def hub_snapshot(name: str) -> Path | None:
    """The folder of a downloaded Hugging Face model, its main version; None if it is not there."""
    folder = hub_cache() / f"models--{name.replace('/', '--')}"
    with contextlib.suppress(OSError, ValueError):
        snapshot = folder / "snapshots" / (folder / "refs" / "main").read_text().strip()
        return snapshot if snapshot.is_dir() else None
    return None


def _hub_models() -> Iterator[tuple[str, Path]]:
    for folder in hub_cache().glob("models--*--*"):
        name = folder.name.removeprefix("models--").replace("--", "/", 1)
        snapshot = hub_snapshot(name)
        if snapshot and (snapshot / "model_index.json").exists():
            yield name, snapshot
        elif snapshot:
            yield from ((str(file), file) for file in snapshot.glob("*.safetensors"))


def _whose(path: Path) -> str:
    """The program or folder that `path` belongs to."""
    if path == STARTER:
        return "starter"
    whole = path.resolve()
    places = [("Hugging Face cache", hub_cache()), *model_folders()]
    return next(
        (whose for whose, place in places if whole.is_relative_to(place.resolve())), str(whole.parent)
    )


KNOWS = 2  # raise it when `look` tells more of the same file, or something else


class _Index:
    """What `look` said of each path, remembered on disk by size and time of change: a menu must open at once."""

    def __init__(self) -> None:
        self.file = home() / "cache" / "models.json"
        self.old: dict[str, Any] = {}
        self.new: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError, RecursionError):
            self.old = json.loads(self.file.read_text(encoding="utf-8"))

    def look(self, path: Path, source: str, where: str) -> Found:
        stamp = _stamp(path)
        try:
            remembered = self.old[str(path)]
            known = remembered["found"] if remembered["stamp"] == stamp else None
            found = known and Found(**{**known, "path": path, "source": source, "where": where})
        except (KeyError, TypeError, IndexError):  # new, or the memory is damaged
            found = None
        found = found or _look_or_say(path, source, where)
        self.new[str(path)] = {"stamp": stamp, "found": {**asdict(found), "path": str(path)}}
        return found

    def save(self) -> None:
        if self.new != self.old:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.file, json.dumps(self.new))


def _look_or_say(path: Path, source: str, where: str) -> Found:
    """As `look`, but an unreadable one is a Found with its problem: one bad file must not hide the others."""
    try:
        return look(path, source=source, where=where)
    except (OSError, ValueError) as error:
        return Found(source, path.name, None, "unknown", None, 0, where, path, problem=str(error))


def _stamp(path: Path) -> list[list[int]]:
    """Size and time of change of a file, or of all files of a folder; and what was known when it was looked at."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [file.stat() for file in files if file.is_file()]
    return [[KNOWS], *([stat.st_size, stat.st_mtime_ns] for stat in stats)]
