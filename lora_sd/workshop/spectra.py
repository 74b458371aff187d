"""The singular values of ΔW = (alpha / rank) · up @ down, found in rank space: ΔW itself is never made.

up = Q₁R₁ and downᵀ = Q₂R₂, so ΔW = Q₁ (scale · R₁R₂ᵀ) Q₂ᵀ, and the matrix in the middle is rank × rank: its singular
values are ΔW's. All in fp64, where the rounding of the files is the only one that counts.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..lora.pairs import Pair, delta_weight

ROUNDING = 1e-7  # singular values below this part of the largest are rounding: fp32 has 24 bits
DENSE_RANK = 256  # above it ΔW as one matrix takes less than products of its factors in fp64


class Spectrum(NamedTuple):
    """ΔW = left · diag(values) · right, values falling."""

    left: Tensor  # (out, k), columns orthonormal
    values: Tensor  # (k,)
    right: Tensor  # (k, in · k · k), rows orthonormal


def _factors(pair: Pair) -> tuple[Tensor, Tensor, float]:
    """(out, r), (in, r) and the scale."""
    return pair.up.double().flatten(1), pair.down.double().flatten(1).T, pair.alpha / pair.rank


def decompose(pair: Pair) -> Spectrum:
    up, down, scale = _factors(pair)
    (q_up, r_up), (q_down, r_down) = torch.linalg.qr(up), torch.linalg.qr(down)
    left, values, right = torch.linalg.svd(scale * (r_up @ r_down.T), full_matrices=False)
    return Spectrum(q_up @ left, values, right @ q_down.T)


def singular_values(pair: Pair) -> Tensor:
    """Those of ΔW, falling; as many as the rank, or as the layer's smaller side."""
    up, down, scale = _factors(pair)
    r_up, r_down = (torch.linalg.qr(factor, mode="r").R for factor in (up, down))
    return torch.linalg.svdvals(scale * (r_up @ r_down.T))


def inner(a: Pair, b: Pair) -> float:
    """⟨ΔWₐ, ΔW_b⟩, the sum over all entries of their product."""
    (up_a, down_a, scale_a), (up_b, down_b, scale_b) = _factors(a), _factors(b)
    return scale_a * scale_b * ((up_a.T @ up_b) * (down_a.T @ down_b)).sum().item()


def largest(numbers: Tensor) -> float:
    """The largest absolute value; NaN or infinity where one is among them. (`isfinite` and `any` take 20 times as long.)"""
    low, high = numbers.aminmax()
    return torch.maximum(-low, high).item()


def norm(pair: Pair) -> float:
    """‖ΔW‖, in fp32."""
    up, down = pair.up.float().flatten(1), pair.down.float().flatten(1)
    return abs(pair.alpha / pair.rank) * max(0.0, ((up.T @ up) * (down @ down.T)).sum().item()) ** 0.5


def distance(a: Pair, b: Pair) -> float:
    """‖ΔWₐ − ΔW_b‖, exact to about 1e-8 of the larger; where `down` is the same, to rounding of what is left."""
    if a.down.shape == b.down.shape and torch.equal(a.down.float(), b.down.float()):
        apart = a.up.float() * (a.alpha / a.rank) - b.up.float() * (b.alpha / b.rank)
        return norm(Pair(a.down, apart, a.rank)) if largest(apart) else 0.0
    if max(a.rank, b.rank) > DENSE_RANK:
        return (delta_weight(a) - delta_weight(b)).norm().item()
    return max(0.0, inner(a, a) - 2 * inner(a, b) + inner(b, b)) ** 0.5


def energies(values: Tensor) -> Tensor:
    """The part of ‖ΔW‖² that the first 1, 2, 3 … singular values hold; all 1 for an update of zero."""
    squares = values.square().cumsum(0)
    return squares / squares[-1] if squares[-1] > 0 else torch.ones_like(squares)


def rank_for(values: Tensor, energy: float) -> int:
    """The smallest rank, at least 1, that keeps this part of ‖ΔW‖²; 1 is all but rounding."""
    if energy >= 1:
        return max(1, int((values > ROUNDING * values[0]).sum()))
    return int((energies(values) < energy).sum()) + 1


def effective_rank(values: Tensor) -> float:
    """exp of the entropy of σᵢ / Σσ (Roy and Vetterli, EUSIPCO 2007): k for k equal values, near 1 where one is all."""
    if values.sum() == 0:
        return 0.0
    shares = values[values > 0] / values.sum()
    return torch.exp(-(shares * shares.log()).sum()).item()


def truncated(spectrum: Spectrum, rank: int, inputs: tuple[int, ...]) -> Pair:
    """The best approximation of ΔW of this rank (Eckart and Young), as a pair with alpha = rank, for (in,) or (in, k, k).

    Both factors get √σ: their numbers are then of one size, which half precision needs.
    """
    left, values, right = (part.double() for part in spectrum)
    root = values[:rank].sqrt()
    down, up = root[:, None] * right[:rank], left[:, :rank] * root
    return shaped(down.float(), up.float(), float(len(down)), inputs)


def shaped(down: Tensor, up: Tensor, alpha: float, inputs: tuple[int, ...]) -> Pair:
    """The pair of two matrices (rank, in · k · k) and (out, rank), for a layer whose inputs are (in,) or (in, k, k)."""
    return Pair(down.reshape(-1, *inputs), up.reshape(*up.shape, *(1,) * (len(inputs) - 1)), alpha)
