"""LoHa, LoKr and LoCon with a core as plain pairs: the same ΔW as one product of two matrices, exactly.

(U₁D₁) ∘ (U₂D₂) = (U₁ ⊙ U₂)(D₁ ⊙ D₂) with the products of every column with every column, and of rows with rows: ranks multiply.
(U₁D₁) ⊗ (U₂D₂) = (U₁ ⊗ U₂)(D₁ ⊗ D₂), as Kronecker products do; a matrix that is not split is the identity times itself.
"""

from collections.abc import Callable
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from ..paths import shown
from .pairs import Factors, Pair
from .products import CORE, FULL, LOCON, LOHA, Product

MOST_NUMBERS = 2**28  # of an update; the largest of SDXL's layers has a tenth of that


def pair(
    path: Path, layer: str, product: Product, number: Callable[[str], Tensor], alpha: float | None
) -> Pair:
    """The pair of a layer, both as matrices: (rank, in · k · k) and (out, rank).

    `number` gives the tensor of a key in fp32. Without an alpha the product counts as it is. ValueError for tensors that do
    not fit together.
    """
    tensors = {end: number(key) for end, key in product.keys.items()}
    shapes = {key: tuple(tensors[end].shape) for end, key in product.keys.items()}
    try:
        down, up = _factors(product.kind, tensors)
        dim = product.dim(shapes)
    except (RuntimeError, IndexError) as error:
        told = ", ".join(str(shape) for shape in shapes.values())
        raise ValueError(
            f"{shown(path.name)} is damaged: {layer} has {told}, which do not fit together; download it again."
        ) from error
    scale = alpha / dim if alpha and dim else 1.0
    return Pair(down, up, scale * len(down))


def _factors(kind: str, tensors: dict[str, Tensor]) -> Factors:
    if kind == LOCON:
        up, down = (tensors[f"lora_{name}.weight"].flatten(1) for name in ("up", "down"))
        return _split(up.T, down, tensors[CORE])
    if kind == LOHA:
        return _by_number(
            *(
                _split(*(tensors.get(f"hada_{name}") for name in (f"w{n}_a", f"w{n}_b", f"t{n}")))
                for n in (1, 2)
            )
        )
    return _kronecker(
        *(
            _whole(tensors[full].flatten(1))
            if full in tensors
            else _split(*(tensors.get(name) for name in (f"{full}_a", f"{full}_b", f"lokr_t{n}")))
            for n, full in enumerate(FULL, 1)
        )
    )


def _by_number(first: Factors, second: Factors) -> Factors:
    _check(len(first.up) * first.down.shape[1] <= MOST_NUMBERS)
    if len(first.down) * len(second.down) >= min(len(first.up), first.down.shape[1]):
        return _whole((first.up @ first.down) * (second.up @ second.down))
    return Factors(
        torch.einsum("im,jm->ijm", first.down, second.down).flatten(0, 1),
        torch.einsum("oi,oj->oij", first.up, second.up).flatten(1),
    )


def _kronecker(first: Factors, second: Factors) -> Factors:
    sides = [(len(f.up), f.down.shape[1]) for f in (first, second)]
    _check(prod(map(prod, sides)) <= MOST_NUMBERS)
    first, second = (
        f if len(f.down) <= min(side) else _whole(f.up @ f.down)
        for f, side in zip((first, second), sides, strict=True)
    )
    return Factors(torch.kron(first.down, second.down), torch.kron(first.up, second.up))


def _split(a: Tensor, b: Tensor, core: Tensor | None) -> Factors:
    """up (out, r) and down (r, in · k · k); with a core (r, r, k, k), `a` is (r, out) and `b` (r, in)."""
    if core is None:
        _check(len(b) == a.shape[1])
        return Factors(b.flatten(1), a)
    return Factors(torch.einsum("ij...,jn->in...", core, b).flatten(1), a.T.contiguous())


def _check(fits: bool) -> None:
    if not fits:
        raise IndexError("of other sizes")


def _whole(matrix: Tensor) -> Factors:
    """A matrix of any rank as two, of the rank of its smaller side."""
    out, inputs = matrix.shape
    one = torch.eye(min(out, inputs), device=matrix.device)
    return Factors(matrix, one) if out <= inputs else Factors(one, matrix)
