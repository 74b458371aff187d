"""What an adapter begins with: a function of (seed, layer name) alone."""

import math

import torch
from torch import nn

from .pairs import Pair
from .seeds import stable_seed


def initial_pair(layer: nn.Module, rank: int, alpha: float, seed: int, name: str) -> Pair:
    """down ~ U(±1/√fan_in), drawn from (seed, name) alone, and up = 0: the first output is the base's."""
    weight = layer.weight
    generator = torch.Generator().manual_seed(stable_seed(seed, name))
    bound = 1 / math.sqrt(weight[0].numel())
    down = torch.empty(rank, *weight.shape[1:]).uniform_(-bound, bound, generator=generator)
    up = torch.zeros(weight.shape[0], rank, *(1,) * (weight.dim() - 2))
    return Pair(down, up, alpha)
