"""The embedding file that goes with a LoRA file: what the trigger word is in front of the text encoders.

The LoRA's header names it and has the hash of its numbers, by which it is found beside the LoRA or in a folder
`embeddings` there, also under another name.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..models.safetensors_file import open_header

KEY = "lora_sd.embedding"  # in the header of the LoRA
WORD = "lora_sd.word"  # in the header of the embedding
FOLDER = "embeddings"
MOST_BYTES = 4_000_000  # of an embedding; 75 vectors of both encoders of SDXL are 600,000


class Named(NamedTuple):
    """How the header of a LoRA names its embedding."""

    file: str
    word: str
    vectors: int
    hash: str

    def __str__(self) -> str:
        return json.dumps(self._asdict(), ensure_ascii=False)


def named(metadata: Mapping[str, str]) -> Named | None:
    """What the header says; None where it names no embedding, or not so that it can be read."""
    try:
        values = json.loads(metadata[KEY])
        found = Named(**{name: kind(values[name]) for name, kind in Named.__annotations__.items()})
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    return found if Path(found.file).name == found.file else None  # no way out of the folder


def find(lora: Path, told: Named) -> Path | None:
    """The embedding file of a LoRA file, by what its header told."""
    return next((path for path in _candidates(lora.parent, told.file) if body_hash(path) == told.hash), None)


def _candidates(folder: Path, name: str) -> Iterator[Path]:
    """First the files of that name, then whatever may be it."""
    folders = (folder, folder / FOLDER)
    files = [
        *(place / name for place in folders),
        *(p for f in folders for p in sorted(f.glob("*.safetensors"))),
    ]
    yield from (path for path in files if os.path.isfile(path) and os.path.getsize(path) <= MOST_BYTES)


def body_hash(path: Path) -> str | None:
    """The SHA-256 of a safetensors file's tensors; None for a file that is none."""
    with open(path, "rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > os.fstat(file.fileno()).st_size:
            return None
        file.seek(8 + length)
        return hashlib.sha256(file.read()).hexdigest()


def of(lora: Path) -> Path | None:
    """The embedding file of a LoRA file, where it needs one and has it."""
    with open_header(lora) as contents:
        told = named(contents.metadata)
    return find(lora, told) if told else None
