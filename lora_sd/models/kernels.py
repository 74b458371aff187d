"""Whether our Triton kernels work on a device."""

import importlib.util
import logging
from functools import cache
from typing import Protocol

import torch

log = logging.getLogger(__name__)


class Kernels(Protocol):
    """An autograd Function that launches kernels."""

    __name__: str

    @staticmethod
    def trial(device: torch.device, dtype: torch.dtype) -> None:
        """Launch each of them once, on something small."""


@cache
def run(function: type[Kernels], device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the function's kernels work there; found out by a trial, as they are compiled on the spot."""
    if device.type != "cuda" or not importlib.util.find_spec("triton"):
        return False
    try:
        function.trial(device, dtype)
    except (
        Exception
    ) as error:  # Triton has an own one for each: no C compiler, no headers of Python, a card too old
        log.warning("The fast %s does not run here, so steps take longer: %s", function.__name__, error)
        return False
    return True
