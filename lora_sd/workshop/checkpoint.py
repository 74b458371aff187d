"""A base model's weights, layer by layer, read from its files without a model: one file in Stability's names, or a folder.

A layer's weight is a tensor, or a third of one: OpenCLIP, the text encoder of SD 2.x and second of SDXL, has q, k and v as
one matrix.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..lora.formats import DTYPES
from ..lora.names import ldm_path
from ..lora.pairs import Pair
from ..lora.stored import StoredTensors
from ..models import find
from ..models.family import FAMILIES, Family
from ..paths import shown
from .table import layer_names

UNET = "model.diffusion_model."
CLIP = {  # where the text encoders of a single file are, each with the ways its layers may be called there
    ("sd15", "text_encoder"): ("cond_stage_model.transformer.text_model.", "cond_stage_model.transformer."),
    ("sdxl", "text_encoder"): ("conditioner.embedders.0.transformer.text_model.",),
}
OPEN_CLIP = {
    ("sd2", "text_encoder"): "cond_stage_model.model.transformer.resblocks.",
    ("sdxl", "text_encoder_2"): "conditioner.embedders.1.model.transformer.resblocks.",
}
OPEN_CLIP_LEAVES = {  # with the third of the matrix
    **{f"self_attn.{name}_proj": ("attn.in_proj_weight", third) for third, name in enumerate("qkv")},
    "self_attn.out_proj": ("attn.out_proj.weight", None),
    "mlp.fc1": ("mlp.c_fc.weight", None),
    "mlp.fc2": ("mlp.c_proj.weight", None),
}


class Place(NamedTuple):
    file: Path
    key: str
    third: int | None = None

    def rows(self, whole: Tensor) -> Tensor:
        """The layer's own part of the tensor, as a view."""
        return whole if self.third is None else whole.chunk(3)[self.third]


class Checkpoint:
    """The Linear and Conv2d layers of a base model, by our names."""

    def __init__(self, found: find.Found):
        self.path, self.title, self.prediction = found.path, shown(found.title), found.prediction or "epsilon"
        self.family = FAMILIES[found.family]
        self.files = {file: StoredTensors(file) for file in _files(found.path, self.family)}
        self.places = {
            layer: place
            for layer in layer_names(self.family)
            if (place := next((p for p in self._ways(layer) if p.key in self.files[p.file]), None))
        }

    def weight(self, layer: str) -> Tensor:
        """(out, in) or (out, in, k, k), in the number format of the file."""
        place = self.places[layer]
        return place.rows(calculable(self.files[place.file].tensor(place.key), place.file))

    def _ways(self, layer: str) -> Iterator[Place]:
        if self.path.is_file():
            yield from (Place(self.path, *key) for key in _single_keys(layer, self.family))
            return
        part, path = layer.split(".", 1)
        for file in (file for file in self.files if file.parent.name == part):
            yield Place(file, f"{path}.weight")
            # saved with transformers 5, a CLIPTextModel has no text_model level
            yield Place(file, f"{path.removeprefix('text_model.')}.weight")


def calculable(weight: Tensor, file: Path) -> Tensor:
    if weight.dtype not in DTYPES.values():
        kind = str(weight.dtype).removeprefix("torch.")
        raise ValueError(
            f"{shown(file.name)} has its weights as {kind}, which can't be computed with; choose it in fp16 or bf16."
        )
    return weight


def _single_keys(layer: str, family: Family) -> Iterator[tuple[str, int | None]]:
    part, path = layer.split(".", 1)
    if part == "unet":
        yield f"{UNET}{ldm_path(path, family)}.weight", None
        return
    path = path.removeprefix("text_model.")
    for prefix in CLIP.get((family.name, part), ()):
        yield f"{prefix}{path}.weight", None
    if prefix := OPEN_CLIP.get((family.name, part)):
        number, leaf = path.removeprefix("encoder.layers.").split(".", 1)
        key, third = OPEN_CLIP_LEAVES[leaf]
        yield f"{prefix}{number}.{key}", third


def open_checkpoint(source: str | Path) -> Checkpoint:
    """A base model on this computer, by its file, folder or name; ValueError where it is none that can be read so."""
    found = find.describe(source)
    if found.path.is_file() and found.path.suffix != ".safetensors":
        raise ValueError(
            f"{shown(found.path.name)} may hold program code and was not opened; use the .safetensors version of this model."
        )
    return Checkpoint(found)


def _files(path: Path, family: Family) -> list[Path]:
    if path.is_file():
        return [path]
    parts = ["unet", *(spec.attribute for spec in family.text_encoders)]
    return [file for part in parts for file in weight_files(path / part)]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of one component, whole or in pieces: those without a variant such as fp16 before those with."""
    files = sorted(folder.glob("*.safetensors"))
    found = [file for file in files if file.name.count(".") == 1] or files
    if not found:
        raise ValueError(
            f"{shown(folder)} has no .safetensors file; download the model again in that format."
        )
    return found


def check_fit(base: Checkpoint, name: str, pair: Pair, weight: Tensor) -> None:
    """ValueError unless the update is as large as the layer's weight."""
    if weight[0].numel() != pair.down[0].numel() or len(weight) != len(pair.up):
        raise ValueError(
            f"{base.title} is not the base model of this LoRA: {name} is {tuple(weight.shape)} there; "
            "choose the one that it was made for."
        )


def check(base: Checkpoint, family: Family, layers: Iterable[str]) -> None:
    """ValueError unless the base model is of this family and has these layers."""
    if base.family is not family:
        raise ValueError(f"{base.title} is {base.family.title}, and this LoRA is for {family.title}.")
    if missing := next((name for name in layers if name not in base.places), None):
        raise ValueError(
            f"{base.title} is not the base model of this LoRA: it has no {missing}; "
            "choose the one that it was made for."
        )
