"""What LoRA files call our layers: kohya's names, PEFT's, diffusers' older ones, and ComfyUI's.

A layout is a renaming, our layer name → their key; reading inverts it over the names that a model really has.
"""

import re
from collections.abc import Container, Iterable, Iterator
from typing import Literal, NamedTuple

from ..models.family import Family

Layout = Literal["kohya", "peft"]  # those we write

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


def ldm_path(path: str, family: Family) -> str:
    """Stability's path of a U-Net layer: as in checkpoints of one file, and in ComfyUI."""
    if path == "up_blocks.0.upsamplers.0.conv" and family.name not in UNET_PATH:
        return "output_blocks.2.1.conv"  # no attention comes before it
    return _sgm_path(path)


UNET_PATH = {"sdxl": _sgm_path}  # by family; the others keep diffusers' paths


def kohya_name(layer: str, family: Family) -> str:
    """`lora_unet_…` / `lora_te_…`: what stands before the first dot of kohya's keys."""
    part, path = layer.split(".", 1)
    if part == "unet":
        path = UNET_PATH.get(family.name, str)(path)
    return f"{_prefixes(family)[part]}_{path.replace('.', '_')}"


def numbered_name(layer: str, family: Family, prefix: str = "") -> str:
    """kohya's name with diffusers' own numbers of blocks, which differs for SDXL."""
    part, path = layer.split(".", 1)
    return f"{prefix or _prefixes(family)[part]}_{path.replace('.', '_')}"


def _prefixes(family: Family) -> dict[str, str]:
    return {"unet": "lora_unet"} | {spec.attribute: spec.kohya_prefix for spec in family.text_encoders}


COMFYUI = {"sd2": "clip_h"}  # its name of the first text encoder, by family, where that is not clip_l


def comfyui_name(layer: str, family: Family) -> str:
    """`diffusion_model.…` / `text_encoders.…`: ComfyUI's own names of layers, in LoRAs that it extracts."""
    part, path = layer.split(".", 1)
    if part == "unet":
        return f"diffusion_model.{ldm_path(path, family)}"
    encoder = "clip_g" if part == "text_encoder_2" else COMFYUI.get(family.name, "clip_l")
    return f"text_encoders.{encoder}.transformer.{path}"


class Keys(NamedTuple):
    """Where one layer's tensors are in a file."""

    layout: str
    down: str
    up: str
    alpha: str
    magnitudes: tuple[str, ...]  # of a DoRA: every spelling, ours first

    @property
    def stem(self) -> str:
        """What the file calls the layer."""
        return self.alpha.removesuffix(".alpha")


PEFTS = (
    "lora_magnitude_vector.weight",
    "lora_magnitude_vector",  # as PEFT writes it; transformers 5 does not find it in text encoders
)
MAGNITUDES = {"kohya": ("dora_scale",), "comfyui": ("dora_scale",), "peft": PEFTS, "diffusers": PEFTS}
SUFFIXES = {"kohya": ("lora_down.weight", "lora_up.weight"), "peft": ("lora_A.weight", "lora_B.weight")}


def _keys(layout: str, stem: str, suffixes: tuple[str, str]) -> Keys:
    down, up = suffixes
    magnitudes = tuple(f"{stem}.{suffix}" for suffix in MAGNITUDES[layout])
    return Keys(layout, f"{stem}.{down}", f"{stem}.{up}", f"{stem}.alpha", magnitudes)


def written_keys(layer: str, family: Family, layout: Layout) -> Keys:
    """How we spell a layer."""
    return _keys(layout, kohya_name(layer, family) if layout == "kohya" else layer, SUFFIXES[layout])


def spellings(layer: str, family: Family) -> Iterator[Keys]:
    """Every way a layer is spelled in files that exist, ours first."""
    part, path = layer.split(".", 1)
    yield written_keys(layer, family, "kohya")
    # SDXL with diffusers' block names, and SD 1.x from diffusers' converter, which numbers its only encoder
    for prefix in ("", *(["lora_te1"] if part == "text_encoder" else [])):
        yield _keys("kohya", numbered_name(layer, family, prefix), SUFFIXES["kohya"])
    yield _keys("comfyui", comfyui_name(layer, family), SUFFIXES["kohya"])
    for stem in _dotted_stems(part, path):
        yield _keys("peft", stem, SUFFIXES["peft"])
        yield _keys("diffusers", stem, ("lora.down.weight", "lora.up.weight"))
        yield _keys("diffusers", stem, ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"))
        attention, _, leaf = stem.removesuffix(".0").rpartition(".")
        for old in (f"{attention}.processor.{leaf}_lora", f"{attention}.{leaf}_lora"):
            yield _keys("diffusers", old, ("down.weight", "up.weight"))
    if (
        part != "unet"
    ):  # diffusers' converter beside transformers 5, where a CLIPTextModel has no text_model level
        flat = f"{part}.{path.removeprefix('text_model.')}"
        for prefix in ("", *(["lora_te1"] if part == "text_encoder" else [])):
            yield _keys("kohya", numbered_name(flat, family, prefix), SUFFIXES["kohya"])


def stored_keys(ways: Iterable[Keys], stored: Container[str], others: Container[str]) -> Keys | None:
    """The first way in which a layer is stored: as down and up, or as another kind of adapter, of the stems in `others`."""
    return next((k for k in ways if k.stem in others or (k.down in stored and k.up in stored)), None)


def _dotted_stems(part: str, path: str) -> list[str]:
    if part == "unet":
        return [f"unet.{path}", path]  # a U-Net saved by itself has no prefix
    # saved with transformers 5, a CLIPTextModel has no text_model level
    return [f"{part}.{path}", f"{part}.{path.removeprefix('text_model.')}"]
