"""Dropout of adapters, whose masks are computed from a key instead of drawn.

The random number of a place is hash(key, layer, place). Asked again under the same key it is the same, as gradient
checkpointing needs in the backward pass; a recorded step reads the key where it always lies; and keys that are a function
of (seed, step) make a resumed run equal to an undisturbed one.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .seeds import stable_seed

LOW = 0xFFFFFFFF  # 32 bits
GOLDEN = 0x9E3779B9  # sets streams apart


class Dropout:
    """The shares that are dropped, for all adapters of a training; they act inside `acting` functions only.

    inputs: single numbers of what `down` reads. ranks: whole ranks, for each example. layers: all of a layer's adapter.
    """

    def __init__(self, inputs: float = 0.0, ranks: float = 0.0, layers: float = 0.0, *, process: int = 0):
        self.inputs, self.ranks, self.layers, self.process = inputs, ranks, layers, process
        self.key = torch.zeros((), dtype=torch.int64)  # stays at one address, on the adapters' device
        self.acts = False

    def to(self, device: torch.device) -> None:
        self.key = self.key.to(device)

    def renew(self) -> None:
        """Another key, from PyTorch's global generator, which every step seeds anew. Doesn't wait for the device."""
        self.key.fill_(int(torch.randint(LOW, ())) + GOLDEN * self.process)

    def renewing(self, function: Callable[[Any], None]) -> Callable[[Any], None]:
        """`function` with another key at each call."""

        def renewed(argument: Any) -> None:
            self.renew()
            function(argument)

        return renewed

    def acting(self, function: Callable[[Any], None]) -> Callable[[Any], None]:
        """`function` with dropout."""

        def acted(argument: Any) -> None:
            self.acts = True
            try:
                function(argument)
            finally:
                self.acts = False

        return acted


class LayerDropout:
    """The dropout of one layer's adapter."""

    def __init__(self, shared: Dropout, layer: str):
        self.shared = shared
        number = stable_seed(0, layer) & LOW
        self.streams = [
            int(_mix(torch.tensor(number + kind))) for kind in range(3)
        ]  # one for each way to drop

    def of_inputs(self, x: Tensor) -> Tensor:
        return self._drop(x, x.shape, self.shared.inputs, 0)

    def of_ranks(self, narrow: Tensor, axis: int) -> Tensor:
        """Whole ranks (along `axis`) of single examples (axis 0)."""
        shape = [1] * narrow.ndim
        shape[0], shape[axis] = narrow.shape[0], narrow.shape[axis]
        return self._drop(narrow, torch.Size(shape), self.shared.ranks, 1)

    def of_layer(self, x: Tensor) -> Tensor:
        """All or nothing, with no other factor: this is how the whole network is made shorter (arXiv:1603.09382)."""
        return x * self._kept(torch.Size(), self.shared.layers, 2).to(x.dtype) if self.shared.layers else x

    def _drop(self, x: Tensor, shape: torch.Size, share: float, kind: int) -> Tensor:
        """x with a share of it at 0 and the rest times 1 / (1 − share), so that its mean stays (arXiv:1207.0580)."""
        return x * (self._kept(shape, share, kind).to(x.dtype) / (1 - share)) if share else x

    def _kept(self, shape: torch.Size, share: float, kind: int) -> Tensor:
        stream = _mix(self.shared.key + self.streams[kind])
        places = torch.arange(math.prod(shape), device=stream.device)
        return (_mix(places ^ stream) >> 8).view(shape) >= share * 2**24


def _mix(x: Tensor) -> Tensor:
    """32 bits to 32 others that look random: `lowbias32` of https://nullprogram.com/blog/2018/07/31/."""
    x = x & LOW
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & LOW
    x = ((x ^ (x >> 15)) * 0x846CA68B) & LOW
    return x ^ (x >> 16)
