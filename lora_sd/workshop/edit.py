"""What a LoRA file tells people: title, author, trigger words, licence, tags, thumbnail. Only the header is written anew.

The keys are modelspec's (https://github.com/Stability-AI/ModelSpec), which every program shows; the tensors keep their bytes.
"""

import base64
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image

from ..data import images
from ..lora import container
from ..lora.inspection import inspect
from ..lora.metadata import TEXTS
from ..lora.stored import StoredTensors
from ..paths import is_text, shown, typed
from . import writing

FIELDS = {**TEXTS, "thumbnail": "modelspec.thumbnail"}
LONGEST = 20_000  # letters of one text
SIDE = 256  # pixels of a thumbnail, at most
SPEC = {"modelspec.sai_model_spec": "1.0.1"}  # a header that has no modelspec yet begins it with this


def edit(path: str | Path, changes: Mapping[str, str], out: str | Path | None = None) -> writing.Saved:
    """Set fields of `FIELDS` in the header of a LoRA file of any kind, in place or as `out`; an empty text takes one away.

    A thumbnail is given as the path of a picture.
    """
    path = typed(str(path), "The LoRA")
    inspected = inspect(path)
    target = typed(str(out), "The new file") if out else path
    if out:
        writing.output(target, [])
    values = {FIELDS[_known(field)]: _value(field, text) for field, text in changes.items()}
    if not values:
        raise ValueError(f"Nothing would change; give one of {', '.join(FIELDS)}.")
    kept = {key: value for key, value in inspected.metadata.items() if key not in values}
    metadata = {**SPEC, **kept, **{key: value for key, value in values.items() if value}}
    size = writing.place(target, _pieces(path, metadata))
    return writing.Saved(target, size, sum(inspected.modules.values()))


def _pieces(path: Path, metadata: Mapping[str, str]) -> Iterator[container.Bytes]:
    # closed before the new file takes its name, which Windows would not allow else
    with StoredTensors(path) as stored:
        entries = stored.described()
        yield container.hashed_head(entries, metadata, _body(stored))
        yield from _body(stored)


def _body(stored: StoredTensors) -> Iterator[bytes]:
    for key in stored.entries:
        yield from stored.pieces(key)


def _known(field: str) -> str:
    if field not in FIELDS:
        raise ValueError(f"There is no field {shown(field)!r}; there are {', '.join(FIELDS)}.")
    return field


def _value(field: str, text: str) -> str:
    if field == "thumbnail" and text:
        return thumbnail(typed(text, "The thumbnail"))
    if not is_text(text) or "\0" in text:
        raise ValueError(f"The {field} has letters that can't be written in a file; type it again.")
    if len(text) > LONGEST:
        raise ValueError(f"The {field} has {len(text):,} letters; it may have {LONGEST:,}.")
    return text


def thumbnail(path: Path) -> str:
    """A picture as a data URL: JPEG, at most 256 pixels a side."""
    picture = images.rgb(path)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
