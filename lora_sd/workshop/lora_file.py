"""A LoRA file as `{layer name: Pair}` without a model: layers are read one by one, when they are asked for."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..lora import expand
from ..lora.formats import DTYPES, WEIGHTS
from ..lora.inspection import Header, family_of, foreign_kinds, has_magnitudes, read_header
from ..lora.names import Keys, stored_keys
from ..lora.pairs import Pair
from ..lora.peft_config import PeftConfig
from ..lora.products import Product, find_all
from ..lora.stored import StoredTensors
from ..models.family import FAMILIES, Family
from ..paths import shown, typed
from .spectra import largest, shaped
from .table import kernel, spelled


class LoraFile(Mapping[str, Pair]):
    """Pairs in fp32 by our layer names, in the order of the layers' table."""

    def __init__(self, path: Path, header: Header, family: Family):
        self.path, self.header, self.family = path, header, family
        self.metadata = dict(header.metadata)
        self.products = find_all(header.shapes)
        self.keys_of = self._found()
        self.config = PeftConfig(path, self.metadata)
        self.file = StoredTensors(path)
        used = {
            key
            for layer, keys in self.keys_of.items()
            for key in (*self._weights(layer), keys.alpha, *keys.magnitudes)
        }
        self.unused = sorted(header.shapes.keys() - used)
        for layer, keys in self.keys_of.items():
            if keys.stem not in self.products:
                _check(path, layer, header.shapes[keys.down], header.shapes[keys.up])

    def _found(self) -> dict[str, Keys]:
        stored = self.header.shapes
        found = {
            layer: stored_keys(ways, stored, self.products) for layer, ways in spelled(self.family).items()
        }
        return {layer: keys for layer, keys in found.items() if keys}

    def _weights(self, layer: str) -> tuple[str, ...]:
        """The keys of the matrices whose product the update is."""
        keys = self.keys_of[layer]
        product = self.products.get(keys.stem)
        return tuple(product.keys.values()) if product else (keys.down, keys.up)

    def __len__(self) -> int:
        return len(self.keys_of)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys_of)

    def __contains__(self, layer: object) -> bool:
        return layer in self.keys_of

    def __getitem__(self, layer: str) -> Pair:
        keys = self.keys_of[layer]
        if product := self.products.get(keys.stem):
            return self._expanded(layer, product, self._number)._replace(magnitude=self._magnitude(keys))
        return Pair(self._number(keys.down), self._number(keys.up), self.alpha(layer), self._magnitude(keys))

    def _expanded(self, layer: str, product: Product, number: Callable[[str], Tensor]) -> Pair:
        alpha = self.header.alphas.get(self.keys_of[layer].alpha)
        pair = expand.pair(self.path, layer, product, number, alpha)
        sides = kernel(layer, self.family)
        inputs, rest = divmod(pair.down.shape[1], math.prod(sides))
        if rest:
            raise ValueError(
                f"{self.name} is damaged: {layer} has {pair.down.shape[1]} inputs; download it again."
            )
        return shaped(pair.down, pair.up, pair.alpha, (inputs, *sides))

    def _described(self, layer: str, product: Product) -> Pair:
        """The pair without its numbers."""
        shapes = self.header.shapes
        return self._expanded(layer, product, lambda key: torch.empty(shapes[key], device="meta"))

    def _magnitude(self, keys: Keys) -> Tensor | None:
        """Of a DoRA, shaped as the file has it; flat where that tells nothing."""
        key = next((key for key in keys.magnitudes if key in self.header.shapes), None)
        if key is None:
            return None
        return self._number(key).flatten() if keys.layout in ("peft", "diffusers") else self._number(key)

    def _number(self, key: str) -> Tensor:
        stored = self.file.tensor(key)
        if stored.dtype not in WEIGHTS:
            kind = str(stored.dtype).removeprefix("torch.")
            raise ValueError(
                f"{shown(self.path.name)} can't be read: {shown(key)} is stored as {kind}; convert the file to fp16."
            )
        number = stored.float()
        if not math.isfinite(largest(number)):
            raise ValueError(
                f"{shown(self.path.name)} is damaged: {shown(key)} holds numbers that are not finite; use another copy."
            )
        return number

    def alpha(self, layer: str) -> float:
        keys = self.keys_of[layer]
        if product := self.products.get(keys.stem):
            return self._described(layer, product).alpha
        return self.header.alphas.get(keys.alpha) or self.config.alpha(layer, self.rank(layer))

    def rank(self, layer: str) -> int:
        return self.shapes(layer)[0][0]

    def shapes(self, layer: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of `down` and of `up`."""
        keys = self.keys_of[layer]
        if product := self.products.get(keys.stem):
            pair = self._described(layer, product)
            return tuple(pair.down.shape), tuple(pair.up.shape)
        return self.header.shapes[keys.down], self.header.shapes[keys.up]

    def numbers(self) -> int:
        """How many its layers consist of in the file."""
        weights = {key for layer in self.keys_of for key in self._weights(layer)}
        return sum(math.prod(self.header.shapes[key]) for key in weights)

    def left_out(self) -> tuple[str, ...]:
        """A sentence on the tensors that belong to no layer; none where there are none."""
        if not self.unused:
            return ()
        names = ", ".join(map(shown, self.unused[:2]))
        return (
            f"{len(self.unused)} tensors of {self.name} belong to no layer that is known and are left out: {names} …",
        )

    @property
    def layout(self) -> str:
        return next(iter(self.keys_of.values())).layout

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the first layer, fp16 where it is not one that we write."""
        stored = self.file.dtype(self._weights(next(iter(self.keys_of)))[0])
        return stored if stored in DTYPES.values() else torch.float16

    @property
    def name(self) -> str:
        return shown(self.path.name)


def open_lora(path: str | Path, family: str | None = None, *, dora: bool = False) -> LoraFile:
    """A LoRA, LoHa or LoKr of any layout, or with `dora` a DoRA, too; `family` (sd15, sd2, sdxl) where the file does not tell.

    ValueError says why not.
    """
    path = typed(str(path), "The LoRA")
    header = read_header(path)
    if kinds := foreign_kinds(header):
        raise ValueError(
            f"{shown(path.name)} has parts of {' and '.join(kinds)}, which is no LoRA; that can't be computed with here."
        )
    if has_magnitudes(header) and not dora:
        raise ValueError(
            f"{shown(path.name)} is a DoRA, whose update depends on the base model; merge it into that, and extract a LoRA "
            "from the two."
        )
    file = LoraFile(path, header, FAMILIES[family_named(path, header, family)])
    if not file:
        raise ValueError(
            f"{shown(path.name)} holds no LoRA for {file.family.title}: none of its {len(header.shapes)} tensors "
            "has a name that is known."
        )
    return file


def family_named(path: Path, header: Header, family: str | None) -> str:
    """sd15, sd2 or sdxl: as the file tells by shapes, header or names, else as the person does."""
    if family and family not in FAMILIES:
        raise ValueError(f"--family is {family!r}; it must be one of {', '.join(FAMILIES)}.")
    told = family_of(header) or _by_names(header)
    if told and family and told != family:
        raise ValueError(
            f"{shown(path.name)} was made for {FAMILIES[told].title}, not for {FAMILIES[family].title}."
        )
    if not (told or family):
        raise ValueError(
            f"{shown(path.name)} does not tell the base model that it was made for; say it with --family: "
            f"{', '.join(FAMILIES)}."
        )
    return told or family


def _by_names(header: Header) -> str | None:
    """Only SDXL has a second text encoder, or kohya's names in Stability's numbering."""
    marks = ("lora_te2_", "text_encoder_2.", "text_encoders.clip_g.", "lora_unet_input_", "lora_unet_output_")
    return "sdxl" if any(key.startswith(marks) for key in header.shapes) else None


def _check(path: Path, layer: str, down: tuple[int, ...], up: tuple[int, ...]) -> None:
    if up[1:2] != down[:1] or 0 in up or set(up[2:]) - {1}:
        raise ValueError(
            f"{shown(path.name)} is damaged: {layer} has {down} and {up}, which do not fit together; download it again."
        )


def same_family(first: LoraFile, other: LoraFile) -> LoraFile:
    """`other`, where it is for the same kind of model as `first`; ValueError else."""
    if first.family is not other.family:
        raise ValueError(
            f"{first.name} is for {first.family.title} and {other.name} for {other.family.title}; "
            "these have no layers in common."
        )
    return other
