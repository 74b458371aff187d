"""What an adapter begins with: a function of (seed, layer name), and with pissa of the layer's weight. ΔW is 0 at first."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from .pairs import Factors, Pair
from .seeds import stable_seed

Initial = Literal["random", "orthogonal", "pissa"]
SPARE, PASSES = 8, 4  # of the randomized SVD (arXiv:0909.4061, algorithms 4.4 and 5.1)


def initial_pair(
    layer: nn.Module, rank: int, alpha: float, seed: int, name: str, kind: Initial = "random"
) -> Pair:
    """up = 0, and down ~ U(±1/√fan_in), or with orthonormal rows, or 0 where the principal factors are added to it."""
    weight, generator = layer.weight, torch.Generator().manual_seed(stable_seed(seed, name))
    down = torch.empty(rank, *weight.shape[1:])
    if kind == "orthogonal":
        nn.init.orthogonal_(down, generator=generator)
    elif kind == "pissa":
        down.zero_()
    else:
        bound = 1 / math.sqrt(weight[0].numel())
        down.uniform_(-bound, bound, generator=generator)
    up = torch.zeros(weight.shape[0], rank, *(1,) * (weight.dim() - 2))
    return Pair(down, up, alpha)


@torch.no_grad()
def principal(weight: Tensor, rank: int, scale: float, seed: int, name: str) -> Factors:
    """PiSSA (arXiv:2404.02948): scale · up down is the best approximation of W of this rank; both have half of its spectrum."""
    matrix = weight.float().cpu().flatten(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_seed(seed, name))
        u, s, v = torch.svd_lowrank(matrix, min(rank + SPARE, *matrix.shape), PASSES)
    half = (s[:rank] / scale).sqrt()
    u, v = _padded(u[:, :rank] * half, rank), _padded(v[:, :rank] * half, rank)
    return Factors(
        v.T.reshape(rank, *weight.shape[1:]), u.reshape(len(weight), rank, *(1,) * (weight.dim() - 2))
    )


def _padded(columns: Tensor, rank: int) -> Tensor:
    """With columns of zeros where a matrix has fewer singular values than the rank."""
    return nn.functional.pad(columns, (0, rank - columns.shape[1]))
