"""What of a model is on the card, and in which form: the part that works, in the fastest way that fits (footprint.RUNGS)."""

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .. import footprint
from ..footprint import Needs, Rung
from ..lora import layers
from ..models.family import Models

GB = 2**30


@contextlib.contextmanager
def on_device(models: Models, device: torch.device, *names: str) -> Iterator[None]:
    """Parts of the model that don't train come to the device while they work, and leave its memory free afterwards."""
    models.place(device, *names)
    try:
        yield
    finally:
        models.place("cpu", *names)
        give_back()


def give_back() -> None:
    """Give the card back what no tensor uses, so that a recording or another program can have it."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def count_from_here() -> None:
    """The peak that steps tell of is theirs: caching needs more for a while, as much as there is."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def choose_rung(wanted: str, device: torch.device, unet: nn.Module, needs: Needs) -> tuple[Rung, str]:
    """How memory is saved, as set or the fastest way that fits the card, and the sentence that says so."""
    if wanted != "auto":
        return next(rung for rung in footprint.RUNGS if rung.name == wanted), ""
    small = (
        sum(p.numel() for p in unet.parameters()) < footprint.FOOTPRINTS[needs.family].unet / 2
    )  # the starter
    if device.type != "cuda" or small:
        return footprint.RUNGS[0], ""
    free, total = torch.cuda.mem_get_info(device)
    rung = footprint.choose_rung(free, needs)
    sentence = (
        f"Memory: about {footprint.predict(needs, rung) / GB:.1f} GB wanted, {free / GB:.1f} of "
        f"{total / GB:.1f} GB are free: {rung.title}."
    )
    return rung, sentence


def take_rung(unet: nn.Module, rung: Rung) -> None:
    """Bring a U-Net into the form of a rung; from there it only goes down."""
    if rung.checkpointing:
        # no RNG state: dropout has a key instead (lora/dropout.py), and it can't be read while a step is recorded
        again = functools.partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
        unet.enable_gradient_checkpointing(again)
    if rung.packed:
        layers.pack(unet)


def below(rung: Rung) -> Rung | None:
    """The next rung down."""
    return next(iter(footprint.RUNGS[footprint.RUNGS.index(rung) + 1 :]), None)
