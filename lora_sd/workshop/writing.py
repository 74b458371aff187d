"""What the workshop makes, written as a LoRA file: in half precision as it is made, whole or not at all, read back and compared."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..files import written
from ..lora import container
from ..lora.formats import TooLarge
from ..lora.metadata import MINIMAL, network_of
from ..lora.names import Layout, written_keys
from ..lora.pairs import Pair
from ..lora.peft_config import KEY as PEFT_CONFIG
from ..models.family import Family
from ..paths import shown, typed
from .lora_file import LoraFile
from .spectra import largest

OUTDATED = (
    "sshs_model_hash",
    "sshs_legacy_hash",
    PEFT_CONFIG,
    "lora_sd.alpha",
)  # they tell of the source file


def output(path: str | Path, sources: Iterable[Path]) -> Path:
    """The file to write. ValueError if it is one of those it is made from, which are still being read."""
    path = typed(str(path), "The new file")
    if path.suffix != ".safetensors":
        raise ValueError(f"The new file is {shown(path.name)}; its name must end in .safetensors.")
    if any(path.resolve() == source.resolve() for source in sources):
        raise ValueError(
            f"The new file {shown(path.name)} would replace what it is made from; give it another name."
        )
    return path


def stored(name: str, pair: Pair, alpha: float, dtype: torch.dtype) -> Pair:
    """The pair as a file will hold it, with this alpha: the ratio goes into `up`. TooLarge for what fp16 can't hold."""
    up = pair.up * (pair.alpha / alpha)
    held = Pair(pair.down.to(dtype).contiguous(), up.to(dtype).contiguous(), alpha)
    if not (math.isfinite(largest(held.down)) and math.isfinite(largest(held.up))):
        raise TooLarge(f"The numbers of {name} are too large for fp16; choose bf16 or fp32.")
    return held


def most_usual(alphas: Iterable[float]) -> float:
    """One alpha for a whole file: where layers differ, diffusers 0.42 applies the most usual one to all of them."""
    return Counter(alphas).most_common(1)[0][0]


class Saved(NamedTuple):
    path: Path
    size: int  # bytes
    layers: int


def save(
    path: Path,
    pairs: Mapping[str, Pair],
    family: Family,
    *,
    metadata: Mapping[str, str],
    layout: Layout = "kohya",
) -> Saved:
    """Write pairs that are `stored`: in PEFT's layout their alpha is their rank, as readers take it there."""
    tensors: dict[str, Tensor] = {}
    for name, pair in pairs.items():
        keys = written_keys(name, family, layout)
        tensors |= {keys.down: pair.down, keys.up: pair.up}
        if layout == "peft":
            assert pair.alpha == pair.rank, name
        else:
            tensors[keys.alpha] = torch.tensor(pair.alpha, dtype=torch.float32)
    size = place(path, container.pieces(tensors, metadata))
    return Saved(path, size, len(pairs))


def place(path: Path, pieces: Iterable[container.Bytes]) -> int:
    """Put a file of these bytes there in one move, once it lies on the disk and reads back the same; gives its size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hashed, size = sha256(), 0
    with written(path) as file:
        for piece in pieces:
            hashed.update(piece)
            size += file.write(piece)
        file.flush()
        with open(file.name, "rb") as again:
            read = sha256()
            while piece := again.read(1 << 24):
                read.update(piece)
        if read.digest() != hashed.digest():
            raise OSError(
                f"{path} was not saved: what was read back is not what was written; choose another disk."
            )
    return size


def header(source: LoraFile, pairs: Mapping[str, Pair]) -> dict[str, str]:
    """The source's metadata, with the new ranks and alpha."""
    kept = _kept(source)
    return {**of_family(source.family), **kept, **network(pairs, kept)}


def joint_header(sources: list[LoraFile], pairs: Mapping[str, Pair], name: str) -> dict[str, str]:
    """Of a LoRA made from several: nothing of how each was trained, but their base, names and trigger words."""
    kept = {key: value for key, value in _kept(sources[0]).items() if key.startswith(MINIMAL)}
    triggers = dict.fromkeys(s.metadata.get("modelspec.trigger_phrase", "") for s in sources)
    spec = {
        "ss_output_name": name,
        "modelspec.title": name,
        "modelspec.merged_from": ", ".join(shown(source.path.stem) for source in sources),
        "modelspec.trigger_phrase": ", ".join(word for word in triggers if word),
    }
    kept |= {key: value for key, value in spec.items() if value}
    return {**of_family(sources[0].family), **kept, **network(pairs, kept)}


def _kept(source: LoraFile) -> dict[str, str]:
    """What is still true of a file made from this one."""
    outdated = (
        (*OUTDATED, "ss_network_args") if source.products else OUTDATED
    )  # of a network that it is no more
    return {key: value for key, value in source.metadata.items() if key not in outdated}


def of_family(family: Family) -> dict[str, str]:
    """What other programs find the base model by."""
    is_v2 = family.base_version.startswith("sd_v2")
    return {
        "lora_sd.family": family.name,
        "ss_base_model_version": family.base_version,
        "ss_v2": str(is_v2),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": family.architecture,
        "modelspec.implementation": family.implementation,
    }


def network(pairs: Mapping[str, Pair], metadata: Mapping[str, str]) -> dict[str, str]:
    """The most usual rank and alpha in kohya's keys, those of 3 × 3 convolutions in its network arguments."""
    told = network_of(pairs, _table(metadata.get("ss_network_args", "{}")))
    return {key: str(value) for key, value in told.items()}


def _table(text: str) -> dict[str, Any]:
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}
