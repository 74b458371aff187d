"""The header of a LoRA file: what it says of itself. Reading it needs no torch."""

import json
from pathlib import Path
from typing import NamedTuple

FOREIGN = {  # kinds of adapter that are not a plain LoRA, by what their keys end in
    "LoCon with Tucker decomposition": ("lora_mid.weight",),
    "DoRA": ("dora_scale", "lora_magnitude_vector", "lora_magnitude_vector.weight"),
    "LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    "LoKr": ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t1", "lokr_t2"),
    "IA3": ("on_input",),
    "OFT": ("oft_blocks", "oft_diag", "rescale"),
    "full weight differences": ("diff", "diff_b"),
    "norm layers": ("w_norm", "b_norm"),
    "GLoRA": ("a1.weight", "a2.weight", "b1.weight", "b2.weight", "bm.weight"),
    "LoRA with biases": ("lora_B.bias", "lora_up.bias"),
}


class TensorInfo(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    start: int  # bytes from the beginning of the file
    stop: int


class Header(NamedTuple):
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def read_header(path: str | Path) -> Header:
    """The header of a .safetensors file; ValueError with one sentence where it is not one, or is cut short."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no file at {path}.")
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        if start > size or file.read(1) != b"{":
            raise ValueError(f"{path.name} is not a .safetensors file, or its beginning is damaged.")
        file.seek(8)
        entries = json.loads(file.read(start - 8))
    metadata = entries.pop("__metadata__", {})
    tensors = {
        key: TensorInfo(e["dtype"], tuple(e["shape"]), *(start + o for o in e["data_offsets"]))
        for key, e in entries.items()
    }
    end = max((info.stop for info in tensors.values()), default=start)
    if end > size:
        raise ValueError(
            f"{path.name} is cut short: it has {size:,} of {end:,} bytes; download or copy it again."
        )
    return Header(tensors, metadata)


def foreign_kinds(header: Header) -> list[str]:
    """Which kinds of adapter besides plain LoRA the file has parts of."""
    return [
        kind
        for kind, suffixes in FOREIGN.items()
        if any(key.endswith(tuple(f".{suffix}" for suffix in suffixes)) for key in header.tensors)
    ]


def text_width(header: Header) -> int | None:
    """Width of the text states a LoRA was made for: 768 SD 1.x, 1024 SD 2.x, 2048 SDXL; None without cross-attention."""
    for key, info in header.tensors.items():
        if (
            "attn2" in key
            and "to_k" in key
            and key.endswith(("lora_down.weight", "lora_A.weight", "lora.down.weight"))
        ):
            return info.shape[1]
    return None
