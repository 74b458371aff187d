"""A LoRA file in another layout: tensors get other names and keep their bytes; where alpha has no place, `up` takes it in.

Between kohya's, its other numbering and ComfyUI's names any kind of adapter is only renamed. PEFT and old diffusers have no
alpha: alpha / rank goes into `up`, which is exact for powers of two, and the header remembers alpha (`lora_sd.alpha`), so
that the way back gives the same numbers. Other kinds than plain LoRA have no such layouts here.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..lora import container, products
from ..lora.inspection import is_alpha, kinds_besides_lora, read_header
from ..lora.stored import StoredTensors
from ..models.family import FAMILIES, Family
from ..paths import shown, typed
from . import writing
from .layouts import LAYOUTS, Layout, split
from .lora_file import LoraFile, family_named, open_lora
from .table import spelled

FOLDED = "lora_sd.alpha"  # alpha of all layers, or by layer
LIKE_KOHYA = ("kohya", "comfyui")  # layouts, as reading names them, with kohya's endings
PROJECTIONS = ("proj_in.", "proj_out.")  # in keys of any layout


class Converted(NamedTuple):
    saved: writing.Saved
    unknown: list[str]  # tensors whose names no layer has, left out
    rounded: int  # layers whose numbers were rounded when alpha went into them

    def facts(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {
            "path": str(self.saved.path),
            "size": self.saved.size,
            "layers": self.saved.layers,
            "left_out": self.lines()[1:],
        }

    def lines(self) -> list[str]:
        lines = [f"{self.saved.path}: {self.saved.layers} layers, {self.saved.size / 1e6:.1f} MB."]
        if self.rounded:
            lines.append(f"{self.rounded} layers were rounded, as alpha / rank is no power of two there.")
        if self.unknown:
            names = ", ".join(map(shown, self.unknown[:3]))
            lines.append(
                f"{len(self.unknown)} tensors belong to no layer that is known and were left out: {names} …"
            )
        return lines


def convert(
    source: str | Path,
    out: str | Path,
    layout: str,
    *,
    projections: Literal["linear", "conv"] | None = None,
    family: str | None = None,
) -> Converted:
    """Write `source` in a layout of `LAYOUTS`, in its own number format.

    `projections`: proj_in and proj_out of an SD 2.x LoRA as matrices, as diffusers has them, or as 1 × 1 convolutions, as
    sd-scripts does for checkpoints of one file.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"The layout is {shown(layout)!r}; it must be one of {', '.join(LAYOUTS)}.")
    path = typed(str(source), "The LoRA")
    header = read_header(path)
    known = FAMILIES[family_named(path, header, family)]
    if projections and known.name != "sd2":
        raise ValueError(f"--projections is for Stable Diffusion 2.x; this LoRA is for {known.title}.")
    out = writing.output(out, [path])
    kinds = kinds_besides_lora(header)
    with StoredTensors(path) as stored:
        renamed = _renamed(stored, known, LAYOUTS[layout])
        metadata = {k: v for k, v in stored.metadata.items() if k not in writing.OUTDATED}
        if LAYOUTS[layout].has_alpha and (kinds or not renamed.others):
            tensors, layers, rounded = _tensors(stored, renamed, path), renamed.layers, 0
            unknown = renamed.unknown + renamed.others
        elif kinds:
            raise ValueError(
                f"{shown(path.name)} is {' and '.join(kinds)}, which {layout} has no names for; "
                f"choose kohya, kohya-diffusers or comfyui{_or_resize(kinds)}."
            )
        else:
            file = open_lora(path, family)
            remembered = _remembered(stored.metadata.get(FOLDED, ""))
            tensors, rounded = _folded(file, LAYOUTS[layout], remembered)
            layers, unknown = set(file), file.unused
            metadata |= {} if LAYOUTS[layout].has_alpha else _to_remember(file, remembered)
    if not layers:
        raise ValueError(
            f"{shown(path.name)} holds no layer of {known.title} that is known; nothing was written."
        )
    if projections:
        tensors = {key: _projected(key, t, projections) for key, t in tensors.items()}
    size = writing.place(out, container.pieces(tensors, metadata))
    return Converted(writing.Saved(out, size, len(layers)), unknown, rounded)


def _or_resize(kinds: list[str]) -> str:
    """What more can be done where all is a product of matrices."""
    return ", or make a plain LoRA of it first, with resize" if set(kinds) <= set(products.KINDS) else ""


class _Renamed(NamedTuple):
    keys: dict[str, str]  # theirs → new
    layers: set[str]
    others: list[str]  # with endings of other layouts
    unknown: list[str]


def _renamed(stored: StoredTensors, family: Family, layout: Layout) -> _Renamed:
    layers = {
        keys.down.removesuffix(".lora_down.weight"): layer
        for layer, ways in spelled(family).items()
        for keys in ways
        if keys.layout in LIKE_KOHYA
    }
    elsewhere = {
        key
        for ways in spelled(family).values()
        for keys in ways
        if keys.layout not in LIKE_KOHYA
        for key in (keys.down, keys.up, keys.alpha, *keys.magnitudes)
    }
    found = _Renamed({}, set(), [], [])
    for key in stored.entries:
        stem, end = split(key) or ("", "")
        if stem in layers:
            found.keys[key] = f"{layout.stem(layers[stem], family)}.{end}"
            found.layers.add(layers[stem])
        else:
            (found.others if key in elsewhere else found.unknown).append(key)
    return found


def _tensors(stored: StoredTensors, renamed: _Renamed, path: Path) -> dict[str, Tensor]:
    if len(set(renamed.keys.values())) < len(renamed.keys):
        raise ValueError(
            f"{shown(path.name)} has a layer twice, under two names; programs would use one of them. Save it again "
            "with the program that made it."
        )
    return {new: stored.tensor(key) for key, new in renamed.keys.items()}


def _folded(file: LoraFile, layout: Layout, remembered: Mapping[str, float]) -> tuple[dict[str, Tensor], int]:
    """The file's tensors with alpha as the layout has it, and how many layers that has rounded."""
    tensors, rounded = {}, 0
    for layer, keys in file.keys_of.items():
        down, up = file.file.tensor(keys.down), file.file.tensor(keys.up)
        rank, alpha = file.rank(layer), file.alpha(layer)
        new_alpha = remembered.get(layer, remembered.get("", alpha)) if layout.has_alpha else float(rank)
        ratio = alpha / new_alpha
        new = up if ratio == 1 else (up.float() * ratio).to(up.dtype)
        rounded += ratio != 1 and not torch.equal((new.float() / ratio).to(up.dtype), up)
        stem, (down_end, up_end) = layout.stem(layer, file.family), layout.ends(layer)
        tensors |= {f"{stem}.{down_end}": down, f"{stem}.{up_end}": new}
        if layout.has_alpha:
            tensors[f"{stem}.alpha"] = torch.tensor(new_alpha, dtype=torch.float32)
    return tensors, rounded


def _to_remember(file: LoraFile, remembered: Mapping[str, float]) -> dict[str, str]:
    """Alphas that are not the rank, for the way back."""
    alphas = {n: remembered.get(n, remembered.get("", file.alpha(n))) for n in file}
    if all(alpha == file.rank(name) for name, alpha in alphas.items()):
        return {}
    one = len(set(alphas.values())) == 1
    return {FOLDED: json.dumps(next(iter(alphas.values())) if one else alphas)}


def _remembered(text: str) -> dict[str, float]:
    """Alpha by layer, that of all others by ""; none where the header says nothing that makes sense."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    table = value if isinstance(value, dict) else {"": value}
    return {name: float(alpha) for name, alpha in table.items() if is_alpha(alpha)}


def _projected(key: str, tensor: Tensor, projections: str) -> Tensor:
    """The tensor of a projection with two dimensions or four."""
    if not any(mark in key for mark in PROJECTIONS) or tensor.dim() not in (2, 4):
        return tensor
    if projections == "conv":
        return tensor if tensor.dim() == 4 else tensor[:, :, None, None]
    return tensor.flatten(1)
