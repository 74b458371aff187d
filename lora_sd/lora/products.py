"""Adapters whose update is a product of more than two matrices, as LyCORIS writes them (arXiv:2309.14859), by names and shapes.

LoHa multiplies two plain updates number by number, LoKr takes a Kronecker product, and a LoCon may have a core between its
matrices. Each is a plain LoRA of another rank, exactly (`expand.py`).
"""

from collections.abc import Container, Mapping
from typing import NamedTuple

LOCON, LOHA, LOKR = KINDS = "LoCon with Tucker decomposition", "LoHa", "LoKr"
CORE, FULL = "lora_mid.weight", ("lokr_w1", "lokr_w2")
ENDINGS = {  # what the keys end in that no other kind has
    LOCON: (CORE,),
    LOHA: ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    LOKR: ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t1", "lokr_t2"),
}
MARKS = tuple(f".{end}" for ends in ENDINGS.values() for end in ends)
WAYS = {  # the tensors of one layer, with those that may be there besides
    LOCON: [("lora_down.weight", "lora_up.weight", CORE)],
    LOHA: [
        (*four, *cores)
        for four in [("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")]
        for cores in [("hada_t1", "hada_t2"), ()]
    ],
    LOKR: [
        (*first, *second)
        for first in [("lokr_w1",), ("lokr_w1_a", "lokr_w1_b")]
        for second in [("lokr_w2",), ("lokr_w2_a", "lokr_w2_b", "lokr_t2"), ("lokr_w2_a", "lokr_w2_b")]
    ],
}
NARROW = {LOCON: ("lora_down.weight",), LOHA: ("hada_w1_b",), LOKR: ("lokr_w2_b", "lokr_w1_b")}


class Product(NamedTuple):
    """What a file has for one layer."""

    kind: str
    keys: Mapping[str, str]  # ending → key

    def dim(self, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
        """The rank that alpha is divided by; None where nothing is divided, in a LoKr of two whole matrices."""
        narrow = next((self.keys[end] for end in NARROW[self.kind] if end in self.keys), None)
        return shapes[narrow][0] if narrow else None

    def rank(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """As the file counts it; the most that whole matrices can have."""
        return self.dim(shapes) or min(shapes[self.keys[FULL[0]]]) * min(shapes[self.keys[FULL[1]]][:2])

    def inputs(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """How many inputs the layer has, for a Linear."""
        if self.kind != LOKR:
            return shapes[self.keys[NARROW[self.kind][0]]][1]
        whole = [self.keys.get(end) or self.keys[f"{end}_b"] for end in FULL]
        return shapes[whole[0]][1] * shapes[whole[1]][1]


def find(stem: str, stored: Container[str]) -> Product | None:
    """What is stored of a layer that a file calls `stem`; None for a plain LoRA, and where something is missing."""
    for kind, ways in WAYS.items():
        for ends in ways:
            if f"{stem}.{ends[-1]}" in stored and all(f"{stem}.{end}" in stored for end in ends):
                return Product(kind, {end: f"{stem}.{end}" for end in ends})
    return None


def find_all(stored: Mapping[str, tuple[int, ...]]) -> dict[str, Product]:
    """Those of a whole file, by what it calls the layers."""
    marked = (key.removesuffix(".weight") for key in stored if key.endswith(MARKS))
    stems = dict.fromkeys(key.rpartition(".")[0] for key in marked)
    return {stem: found for stem in stems if (found := find(stem, stored))}
