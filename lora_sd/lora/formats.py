"""LoRA files: `{layer name: Pair}` to and from `.safetensors`, whole or not at all.

Reading asks for each layer of the model under every spelling there is (`names.py`) and lists the keys left over;
writing is atomic, and what was written is read back and compared before it takes the file's name.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from ..files import written
from ..models.family import Family, Models
from ..paths import shown
from . import container, expand, products
from .inspection import Header, foreign_kinds, read_header, text_width
from .layers import adapters, named_layers
from .metadata import Training, build, most_usual
from .names import Layout, spellings, stored_keys, written_keys
from .pairs import Pair
from .peft_config import PeftConfig

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}  # that we write
WEIGHTS = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.float8_e4m3fn, torch.float8_e5m2),
)  # number formats of a LoRA


class TooLarge(ValueError):
    """Weights are beyond what fp16 can hold."""


class LoraFile(NamedTuple):
    pairs: dict[str, Pair]  # fp32, on the CPU
    metadata: dict[str, str]
    layout: str  # kohya, peft or diffusers
    unused: list[str]  # keys of layers that this model does not have


def load(path: str | Path, parts: Mapping[str, nn.Module], family: Family) -> LoraFile:
    """The adapter of a file, shaped for this model: whole, or a ValueError that says why not."""
    path = Path(path)
    header = read_header(path)
    if kinds := foreign_kinds(header):
        raise ValueError(
            f"{shown(path.name)} has parts of {' and '.join(kinds)}, which is no LoRA; these can't be loaded."
        )
    layers = named_layers(parts)
    _check_base(path, header, layers, family)
    file = _read(path, header, layers, family)
    if not file.pairs:
        raise ValueError(
            f"{shown(path.name)} holds no LoRA for {family.title}: none of its {len(file.unused)} tensors has a place there."
        )
    pairs = {name: _fit(path, name, pair, layers[name].weight) for name, pair in file.pairs.items()}
    if name := _not_finite(pairs):
        raise ValueError(
            f"{shown(path.name)} is damaged: the weights of {name} are not finite numbers; use another copy or checkpoint."
        )
    return file._replace(pairs=pairs)


def _check_base(path: Path, header: Header, layers: Mapping[str, nn.Module], family: Family) -> None:
    width = text_width(header)
    widths = {layer.weight.shape[1] for name, layer in layers.items() if name.endswith(".attn2.to_k")}
    if width and width not in widths:
        raise ValueError(
            f"{shown(path.name)} was made for another base model: it takes text states of width {width}, "
            f"and this {family.title} model has {max(widths)}. Choose the base model it was trained on."
        )


def _read(path: Path, header: Header, names: Iterable[str], family: Family) -> LoraFile:
    tensors, config = safetensors.torch.load_file(path), PeftConfig(path, header.metadata)
    of_products = products.find_all(header.shapes)
    pairs: dict[str, Pair] = {}
    used: set[str] = set()
    layout = "unknown"
    for name in names:
        keys = stored_keys(spellings(name, family), tensors, of_products)
        if keys is None:
            continue
        if product := of_products.get(keys.stem):
            alpha = header.alphas.get(keys.alpha)
            pair = expand.pair(path, name, product, partial(_number, path, tensors=tensors), alpha)
            used.update(product.keys.values())
        else:
            down, up = _number(path, keys.down, tensors), _number(path, keys.up, tensors)
            alpha = tensors[keys.alpha] if keys.alpha in tensors else config.alpha(name, down.shape[0])
            pair = Pair(down, up, float(alpha))
        magnitude = next((_number(path, key, tensors) for key in keys.magnitudes if key in tensors), None)
        if magnitude is not None and keys.layout in ("peft", "diffusers"):
            magnitude = magnitude.flatten()  # of outputs, there along the second dimension for convolutions
        pairs[name] = pair._replace(magnitude=magnitude)
        used.update((keys.down, keys.up, keys.alpha, *keys.magnitudes))
        layout = keys.layout
    return LoraFile(pairs, dict(header.metadata), layout, sorted(tensors.keys() - used))


def _number(path: Path, key: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """The tensor in fp32."""
    if tensors[key].dtype not in WEIGHTS:
        raise ValueError(
            f"{shown(path.name)} can't be loaded: {key} is stored as {str(tensors[key].dtype).removeprefix('torch.')}; "
            "convert the file to fp16."
        )
    return tensors[key].float()


def _fit(path: Path, name: str, pair: Pair, weight: Tensor) -> Pair:
    """The pair in the layer's own number of dimensions: SD 2 projections are 2-D in some files and 4-D in others."""
    rank, (out, *inputs) = pair.rank, weight.shape
    fits = pair.down.numel() == rank * weight[0].numel() and pair.up.numel() == out * rank
    if not fits or pair.up.shape[:2] != (out, rank):
        raise ValueError(
            f"{shown(path.name)} does not fit this model: {name} is {tuple(weight.shape)} here, and the file has "
            f"{tuple(pair.down.shape)} and {tuple(pair.up.shape)} for it. Choose the base model it was trained on."
        )
    ones = (1,) * (len(inputs) - 1)
    magnitude = None if pair.magnitude is None else fit_magnitude(path, name, pair.magnitude, weight)
    return Pair(pair.down.reshape(rank, *inputs), pair.up.reshape(out, rank, *ones), pair.alpha, magnitude)


def fit_magnitude(path: Path, name: str, magnitude: Tensor, weight: Tensor) -> Tensor:
    """The magnitudes of a DoRA, shaped to multiply the weight: those of inputs lie along the second dimension."""
    (out, inputs), ones, shape = weight.shape[:2], (1,) * (weight.dim() - 2), tuple(magnitude.shape)
    if shape[:2] == (1, inputs) and magnitude.numel() == inputs:
        return magnitude.reshape(1, inputs, *ones)
    if magnitude.numel() == out:
        return magnitude.reshape(out, 1, *ones)
    raise ValueError(
        f"{shown(path.name)} does not fit this model: {name} is {tuple(weight.shape)} here, and the file has "
        f"magnitudes of the shape {shape} for it. Choose the base model it was trained on."
    )


def _not_finite(pairs: Mapping[str, Pair]) -> str | None:
    """The first layer that holds NaN or infinity."""
    return next((n for n, p in pairs.items() if not all(t.isfinite().all() for t in p.tensors)), None)


def save(
    path: str | Path,
    pairs: Mapping[str, Pair],
    family: Family,
    *,
    metadata: Mapping[str, str],
    layout: Layout = "kohya",
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a LoRA file, whole or not at all: read back and compared bit for bit before it takes its name."""
    path = Path(path)
    if name := _not_finite(pairs):
        raise ValueError(
            f"{path.name} was not saved: the weights of {name} are not finite numbers; "
            "go back to an earlier checkpoint and train at a lower learning rate."
        )
    stored = _stored(pairs, layout, dtype)
    if name := _not_finite(stored):
        raise TooLarge(
            f"{path.name} was not saved: the weights of {name} are too large for fp16; use bf16 or fp32."
        )
    data = b"".join(container.pieces(_tensors(stored, family, layout), metadata))
    try:
        _place(path, data, stored, family)
    except OSError as error:
        raise OSError(
            f"{path} was not saved: {error.strerror or error}. It needs {len(data) / 1e6:.1f} MB; "
            "make room or choose another folder. A file that had this name is as it was."
        ) from error


def _stored(pairs: Mapping[str, Pair], layout: Layout, dtype: torch.dtype) -> dict[str, Pair]:
    """The pairs as the file will hold them.

    kohya files get one alpha: where layers differ, diffusers 0.42 applies the most usual one to all of them.
    PEFT files have no alpha, which readers take for alpha = rank.
    """
    alpha = most_usual(pairs.values())[1]
    stored = {}
    for name, pair in pairs.items():
        pair = _at_alpha(pair, pair.rank if layout == "peft" else alpha)
        stored[name] = pair._replace(down=pair.down.to(dtype).contiguous(), up=pair.up.to(dtype).contiguous())
    return stored


def _at_alpha(pair: Pair, alpha: float) -> Pair:
    """The same update with another alpha, rounded to fp32 as in the file: the ratio goes into `up`."""
    down, up = pair.down.detach().float().cpu(), pair.up.detach().float().cpu()
    return pair._replace(down=down, up=up * (pair.alpha / alpha), alpha=_fp32(alpha).item())


def _tensors(stored: Mapping[str, Pair], family: Family, layout: Layout) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, pair in stored.items():
        keys = written_keys(name, family, layout)
        tensors |= {keys.down: pair.down, keys.up: pair.up}
        if layout == "kohya":
            tensors[keys.alpha] = _fp32(pair.alpha)
        if pair.magnitude is not None:
            tensors[keys.magnitudes[0]] = _magnitude(pair, layout)
    return tensors


def _magnitude(pair: Pair, layout: Layout) -> Tensor:
    """In fp32 whatever the rest is in: what was learnt is a small difference. PEFT has it (out) or (1, out, 1, 1)."""
    magnitude = pair.magnitude.detach().float().cpu().contiguous()
    if layout == "kohya":
        return magnitude
    if len(magnitude) != len(pair.up):
        raise ValueError(
            "save.layout is peft, which has no place for magnitudes of inputs; set it to kohya, or lora.dora to output."
        )
    return magnitude.flatten() if magnitude.dim() == 2 else magnitude.transpose(0, 1).contiguous()


def _fp32(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float32)


def _place(path: Path, data: bytes, stored: Mapping[str, Pair], family: Family) -> None:
    """Put the file there in one move, once it lies on the disk and reads back as what it should hold."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as file:
        file.write(data)
        file.flush()
        if not _holds(Path(file.name), stored, family):
            raise OSError("what was read back is not what was written")


def _holds(path: Path, stored: Mapping[str, Pair], family: Family) -> bool:
    file = _read(path, read_header(path), stored, family)
    same_names = file.pairs.keys() == stored.keys() and not file.unused
    return same_names and all(_equal(stored[name], pair) for name, pair in file.pairs.items())


def _equal(a: Pair, b: Pair) -> bool:
    return a.alpha == b.alpha and all(
        torch.equal(stored.float().cpu().flatten(), read.flatten())
        for stored, read in zip(a.tensors, b.tensors, strict=True)
    )


def save_lora(
    models: Models,
    path: str | Path,
    *,
    adapter: str = "lora",
    layout: Layout = "kohya",
    dtype: torch.dtype = torch.float16,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write an adapter that is on a model; `metadata` goes over the header that names the base model."""
    path, pairs = Path(path), adapters(models.parts(), adapter)
    if not pairs:
        raise ValueError(f"There is no LoRA named {adapter!r} on this model, so {path.name} was not saved.")
    training = Training(
        base=models.source,
        output_name=path.stem,
        clip_skip=models.clip_skip,
        zero_snr=models.zero_snr,
        inpainting=bool(models.extra_channels),
    )
    header = build(models.family, models.prediction, pairs, training, level="minimal")
    save(path, pairs, models.family, metadata=header | dict(metadata or {}), layout=layout, dtype=dtype)
    return path
