"""LoRA files: `{layer name: Pair}` to and from the layouts in use.

kohya (read by every program; our default), PEFT (what diffusers writes) and diffusers' older ones. A layout is a
renaming, our layer name → their key, and reading inverts it over the names the model really has.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from lora_sd.lora.layers import Pair, named_layers
from lora_sd.lora.metadata import Header, foreign_kinds, read_header, text_width
from lora_sd.models.family import Family

Layout = Literal["kohya", "peft"]

# Stability's numbering of the SDXL U-Net, from diffusers' (the indices are those of the shipped architecture)
SGM_BLOCKS = (
    (r"down_blocks\.(\d)\.resnets\.(\d)", lambda i, j: f"input_blocks.{3 * i + j + 1}.0"),
    (r"down_blocks\.(\d)\.attentions\.(\d)", lambda i, j: f"input_blocks.{3 * i + j + 1}.1"),
    (r"down_blocks\.(\d)\.downsamplers\.0\.conv", lambda i: f"input_blocks.{3 * i + 3}.0.op"),
    (r"mid_block\.resnets\.(\d)", lambda j: f"middle_block.{2 * j}"),
    (r"mid_block\.attentions\.0", lambda: "middle_block.1"),
    (r"up_blocks\.(\d)\.resnets\.(\d)", lambda i, j: f"output_blocks.{3 * i + j}.0"),
    (r"up_blocks\.(\d)\.attentions\.(\d)", lambda i, j: f"output_blocks.{3 * i + j}.1"),
    (r"up_blocks\.(\d)\.upsamplers\.0\.conv", lambda i: f"output_blocks.{3 * i + 2}.2.conv"),
    (r"conv_in", lambda: "input_blocks.0.0"),
    (r"conv_out", lambda: "out.2"),
    (r"time_embedding\.linear_(\d)", lambda n: f"time_embed.{2 * n - 2}"),
    (r"add_embedding\.linear_(\d)", lambda n: f"label_emb.0.{2 * n - 2}"),
)
SGM_LEAVES = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def _sgm_path(path: str) -> str:
    for pattern, renamed in SGM_BLOCKS:
        if match := re.match(pattern + r"(?=\.|$)", path):
            block, leaf = renamed(*map(int, match.groups())), path[match.end() :].removeprefix(".")
            return ".".join(filter(None, (block, SGM_LEAVES.get(leaf, leaf))))
    raise AssertionError(f"no name for the SDXL layer {path}")


UNET_PATH = {"sdxl": _sgm_path}  # by family; the others keep diffusers' paths


def kohya_name(layer: str, family: Family) -> str:
    """`lora_unet_…` / `lora_te_…`: what stands before the first dot of kohya's keys."""
    part, path = layer.split(".", 1)
    if part == "unet":
        path = UNET_PATH.get(family.name, str)(path)
    return f"{_prefixes(family)[part]}_{path.replace('.', '_')}"


def _prefixes(family: Family) -> dict[str, str]:
    return {"unet": "lora_unet"} | {spec.attribute: spec.kohya_prefix for spec in family.text_encoders}


class Keys(NamedTuple):
    """Where one layer's tensors are in a file."""

    layout: str
    down: str
    up: str
    alpha: str


SUFFIXES = {"kohya": ("lora_down.weight", "lora_up.weight"), "peft": ("lora_A.weight", "lora_B.weight")}


def _keys(layout: str, stem: str, suffixes: tuple[str, str]) -> Keys:
    down, up = suffixes
    return Keys(layout, f"{stem}.{down}", f"{stem}.{up}", f"{stem}.alpha")


def written_keys(layer: str, family: Family, layout: Layout) -> Keys:
    """How we spell a layer."""
    return _keys(layout, kohya_name(layer, family) if layout == "kohya" else layer, SUFFIXES[layout])


def spellings(layer: str, family: Family) -> Iterator[Keys]:
    """Every way a layer is spelled in files that exist, ours first."""
    part, path = layer.split(".", 1)
    yield written_keys(layer, family, "kohya")
    # SDXL with diffusers' block names, and SD 1.x from diffusers' converter, which numbers its only encoder
    for prefix in (_prefixes(family)[part], "lora_te1" if part == "text_encoder" else "lora_unet"):
        yield _keys("kohya", f"{prefix}_{path.replace('.', '_')}", SUFFIXES["kohya"])
    for stem in _dotted_stems(part, path):
        yield _keys("peft", stem, SUFFIXES["peft"])
        yield _keys("diffusers", stem, ("lora.down.weight", "lora.up.weight"))
        yield _keys("diffusers", stem, ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"))
        attention, _, leaf = stem.removesuffix(".0").rpartition(".")
        for old in (f"{attention}.processor.{leaf}_lora", f"{attention}.{leaf}_lora"):
            yield _keys("diffusers", old, ("down.weight", "up.weight"))


def _dotted_stems(part: str, path: str) -> list[str]:
    if part == "unet":
        return [f"{part}.{path}", path]  # a U-Net saved by itself has no prefix
    return [
        f"{part}.{path}",
        f"{part}.{path.removeprefix('text_model.')}",
    ]  # with transformers 5, no such level


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
            f"{path.name} is not a plain LoRA but has parts of {' and '.join(kinds)}; these can't be loaded."
        )
    layers = named_layers(parts)
    _check_base(path, header, layers, family)
    file = _read(safetensors.torch.load_file(path), header.metadata, layers, family)
    if not file.pairs:
        raise ValueError(
            f"{path.name} holds no LoRA for {family.title}: none of its {len(file.unused)} tensors has a place there."
        )
    pairs = {name: _fit(path, name, pair, layers[name].weight) for name, pair in file.pairs.items()}
    check_finite(pairs, path.name)
    return file._replace(pairs=pairs)


def _check_base(path: Path, header: Header, layers: Mapping[str, nn.Module], family: Family) -> None:
    width = text_width(header)
    widths = {layer.weight.shape[1] for name, layer in layers.items() if name.endswith(".attn2.to_k")}
    if width and width not in widths:
        raise ValueError(
            f"{path.name} was made for another base model: it takes text states of width {width}, "
            f"and this {family.title} model has {max(widths)}. Choose the base model it was trained on."
        )


def _read(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], names: Iterable[str], family: Family
) -> LoraFile:
    config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    pairs: dict[str, Pair] = {}
    used: set[str] = set()
    layout = "unknown"
    for name in names:
        keys = next((k for k in spellings(name, family) if k.down in tensors and k.up in tensors), None)
        if keys is None:
            continue
        down, up = tensors[keys.down], tensors[keys.up]
        alpha = (
            tensors[keys.alpha].item()
            if keys.alpha in tensors
            else _config_alpha(config, name, down.shape[0])
        )
        pairs[name] = Pair(down.float(), up.float(), float(alpha))
        used.update(keys[1:])
        layout = keys.layout
    return LoraFile(pairs, dict(metadata), layout, sorted(tensors.keys() - used))


def _config_alpha(config: Mapping[str, Any], layer: str, rank: int) -> float:
    """alpha from PEFT's config in the header, as in files whose `up` is not folded; the rank where there is none."""
    part, path = layer.split(".", 1)

    def get(field: str, default: Any) -> Any:
        return config.get(f"{part}.{field}", default)

    alpha = get("lora_alpha", rank)
    for pattern, value in get("alpha_pattern", {}).items():
        if re.match(rf"(.*\.)?({pattern})$", path):  # PEFT's own rule
            alpha = value
    return alpha * rank**0.5 if get("use_rslora", False) else alpha  # alpha/√r, arXiv:2312.03732


def _fit(path: Path, name: str, pair: Pair, weight: Tensor) -> Pair:
    """The pair in the layer's own number of dimensions: SD 2 projections are 2-D in some files and 4-D in others."""
    rank, (out, *inputs) = pair.rank, weight.shape
    shapes = (pair.down.reshape(rank, -1).shape[1], tuple(pair.up.reshape(-1, rank).shape))
    if shapes != (weight[0].numel(), (out, rank)):
        raise ValueError(
            f"{path.name} does not fit this model: {name} is {tuple(weight.shape)} here, and the file has "
            f"{tuple(pair.down.shape)} and {tuple(pair.up.shape)} for it. Choose the base model it was trained on."
        )
    return Pair(
        pair.down.reshape(rank, *inputs), pair.up.reshape(out, rank, *(1,) * (len(inputs) - 1)), pair.alpha
    )


def check_finite(pairs: Mapping[str, Pair], where: str) -> None:
    """Raises ValueError with the first layer that holds NaN or infinity."""
    for name, pair in pairs.items():
        if not (pair.down.isfinite().all() and pair.up.isfinite().all()):
            raise ValueError(f"{where}: the weights of {name} are not finite numbers.")


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
    check_finite(pairs, f"{path.name} was not saved")
    stored = {name: _stored(pair, layout, dtype) for name, pair in pairs.items()}
    check_finite(stored, f"{path.name} was not saved as {dtype}, choose fp32 or bf16".replace("torch.", ""))
    tensors = _tensors(stored, family, layout)
    data = _container(tensors, metadata)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(part, data)
        _compare(part, stored, family)
        os.replace(part, path)
    except OSError as error:
        raise OSError(
            f"{path} was not saved: {error.strerror or error}. It needs {len(data) / 1e6:.1f} MB; "
            "make room or choose another folder. A file of that name is as it was."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _stored(pair: Pair, layout: Layout, dtype: torch.dtype) -> Pair:
    """The pair as the file will hold it. PEFT has no alpha: alpha / rank goes into `up`."""
    down, up, alpha = pair.down.detach().float().cpu(), pair.up.detach().float().cpu(), pair.alpha
    if layout == "peft":
        up, alpha = up * (alpha / pair.rank), float(pair.rank)
    return Pair(down.to(dtype).contiguous(), up.to(dtype).contiguous(), torch.tensor(alpha).item())  # as fp32


def _tensors(stored: Mapping[str, Pair], family: Family, layout: Layout) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, pair in stored.items():
        keys = written_keys(name, family, layout)
        tensors |= {keys.down: pair.down, keys.up: pair.up}
        if layout == "kohya":
            tensors[keys.alpha] = torch.tensor(pair.alpha)
    return tensors


def _container(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The bytes of the file, with kohya's two hashes in the header; the same input gives the same bytes."""
    data = safetensors.torch.save(dict(tensors))
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    of_training = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    legacy = _with_header(header, body, of_training)[0x100000:0x110000]
    hashes = {
        "sshs_model_hash": hashlib.sha256(body).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(legacy).hexdigest()[:8],
    }
    return _with_header(header, body, {**metadata, **hashes})


def _with_header(header: Mapping[str, Any], body: bytes, metadata: Mapping[str, str]) -> bytes:
    # written here because safetensors puts the metadata in another order each time
    text = json.dumps(
        {"__metadata__": dict(sorted(metadata.items())), **header}, ensure_ascii=False, separators=(",", ":")
    )
    head = text.encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + body


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _compare(path: Path, stored: Mapping[str, Pair], family: Family) -> None:
    file = _read(safetensors.torch.load_file(path), read_header(path).metadata, stored, family)
    same = file.pairs.keys() == stored.keys() and not file.unused
    if not (same and all(_equal(stored[name], pair) for name, pair in file.pairs.items())):
        raise OSError("what was read back is not what was written")


def _equal(a: Pair, b: Pair) -> bool:
    return torch.equal(a.down.float(), b.down) and torch.equal(a.up.float(), b.up) and a.alpha == b.alpha
