"""Models that write captions, as they lie on this computer: BLIP as transformers keeps it, WD taggers as ONNX. No torch.

Only weights that can run no code are taken: .safetensors and .onnx.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..paths import shown, typed
from ..run import home
from .find import HUB_NAME, hub_cache, hub_snapshot, our_folder
from .header import read_json

Kind = Literal["blip", "tagger"]

OFFERS = {  # names on Hugging Face
    "Salesforce/blip-image-captioning-base": "blip",
    "SmilingWolf/wd-vit-tagger-v3": "tagger",
    "SmilingWolf/wd-swinv2-tagger-v3": "tagger",
}
ONNX, TAGS = "model.onnx", "selected_tags.csv"  # of a tagger
CONFIG = "config.json"
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
PICKLE = "pytorch_model.bin"
PARTS = {  # of BLIP, and what may stand for it
    "tokenizer.json": ("vocab.txt",),
    "preprocessor_config.json": ("processor_config.json",),
}
SMALL = (".json", ".txt")  # vocabulary and settings


class Captioner(NamedTuple):
    source: str  # as it was named: a folder or a Hugging Face name
    kind: Kind
    path: Path


def describe(source: str) -> Captioner:
    """The model `source` that writes captions: a folder, or a Hugging Face name that is on this computer.

    Raises ValueError with one sentence for whatever is none.
    """
    path = locate(source.strip())
    kind = kind_of(path)
    if problem := _problem(path, kind):
        raise ValueError(f"{shown(source)} {problem}.")
    assert kind
    return Captioner(source.strip(), kind, path)


def locate(source: str) -> Path:
    """The folder that `source` names on this computer."""
    if not source:
        raise ValueError(f"No model was given that writes captions; give a folder or a name like {_first()}.")
    path = typed(source, "The model")
    if path.is_dir():
        return path
    if path.is_file():
        return path.parent if path.name in (ONNX, TAGS, CONFIG) or WEIGHTS.fullmatch(path.name) else path
    if HUB_NAME.fullmatch(source):
        for folder in (our_folder(source), hub_snapshot(source)):
            if folder and kind_of(folder) and not _problem(folder, kind_of(folder)):
                return folder
        if snapshot := hub_snapshot(source):  # its problem is told
            return snapshot
        raise ValueError(
            f"There is no folder {source}, and no model of that name has been downloaded; "
            f"python -m lora_sd download {source} gets it from Hugging Face."
        )
    raise ValueError(
        f"There is no model at {shown(source)}; give the folder of a BLIP model or a WD tagger, "
        f"or a Hugging Face name like {_first()}."
    )


def _first() -> str:
    return next(iter(OFFERS))


def kind_of(folder: Path) -> Kind | None:
    """What the files of a folder say it is, complete or not."""
    if (folder / ONNX).is_file() or (folder / TAGS).is_file():
        return "tagger"
    if (folder / CONFIG).is_file():
        config = read_json(folder / CONFIG)
        return "blip" if _is_blip(config) else None
    return None


def _is_blip(config: dict[str, Any]) -> bool:
    """BLIP has other heads, too, for questions and for search."""
    heads = config.get("architectures") or ["BlipForConditionalGeneration"]
    return config.get("model_type") == "blip" and heads == ["BlipForConditionalGeneration"]


def _problem(folder: Path, kind: Kind | None) -> str:
    """Why it can't write captions: a sentence without its subject and its end."""
    if kind is None:
        return (
            "is no model that writes captions: choose the folder of a WD tagger, with model.onnx and "
            "selected_tags.csv, or of a BLIP model for captions, with its config.json and .safetensors"
        )
    there = {path.name for path in folder.iterdir()}
    if kind == "tagger":
        missing = [name for name in (ONNX, TAGS) if name not in there]
        return f"has no {missing[0]}; get that file from where the others came from" if missing else ""
    weights = any(WEIGHTS.fullmatch(name) for name in there)
    if not weights and PICKLE in there:
        return f"has its weights as {PICKLE} only, which can run programs; get its model.safetensors"
    found = {"model.safetensors": weights} | {
        name: bool(there & {name, *more}) for name, more in PARTS.items()
    }
    missing = [name for name, here in found.items() if not here]
    return f"has no {missing[0]}; get that file from where the others came from" if missing else ""


def needed(name: str, files: Collection[str], config: dict[str, Any]) -> list[str]:
    """Of the files that a hub's model has, those that writing captions needs, the weights last; none where it does not.

    `config` is its config.json.
    """
    if ONNX in files and TAGS in files:
        return [TAGS, ONNX]
    if not _is_blip(config):
        return []
    weights = sorted(file for file in files if WEIGHTS.fullmatch(file))
    if not weights:
        raise ValueError(
            f"{name} has no weights as .safetensors, and others are not opened; choose another model, like {_first()}."
        )
    return [*sorted(file for file in files if "/" not in file and file.endswith(SMALL)), *weights]


def installed() -> list[Captioner]:
    """Those on this computer: ours, and Hugging Face's."""
    ours = [
        (folder.name.replace("--", "/", 1), folder) for folder in sorted((home() / "models").glob("*--*"))
    ]
    names = sorted(path.name for path in hub_cache().glob("models--*--*"))
    theirs = [(name.removeprefix("models--").replace("--", "/", 1)) for name in names]
    folders = [*ours, *((name, path) for name in theirs if (path := hub_snapshot(name)))]
    found: dict[str, Captioner] = {}
    for name, folder in folders:
        if os.path.isdir(folder) and (kind := _sound_kind(folder)):
            found.setdefault(name, Captioner(name, kind, folder))
    return list(found.values())


def _sound_kind(folder: Path) -> Kind | None:
    try:
        kind = kind_of(folder)
        return kind if kind and not _problem(folder, kind) else None
    except (OSError, ValueError):  # one bad folder must not hide the others
        return None
