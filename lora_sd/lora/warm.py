"""A training that goes on from a LoRA file: new adapters hold its update, whatever their ranks and alphas.

With s = alpha / rank of each side: down = [down_file; random], up = [up_file · s_file / s; 0], so that ΔW is the file's.
"""

from collections.abc import Mapping

import torch
from torch import nn

from . import dora
from .layers import low_ranks, named_layers
from .pairs import Pair


def ranks_for(ranks: Mapping[str, int], pairs: Mapping[str, Pair]) -> dict[str, int]:
    """`ranks` with room for all that the file has: more where its rank is larger, and its own layers besides."""
    larger = {name: max(pair.rank, ranks.get(name, 0)) for name, pair in pairs.items()}
    return {**ranks, **larger}


@torch.no_grad()
def fill(parts: Mapping[str, nn.Module], pairs: Mapping[str, Pair]) -> None:
    """Give the adapters on the model the update of `pairs`, which fit into their ranks; they go on learning from there."""
    mine, layers = dict(low_ranks(parts)), named_layers(parts)
    for name, pair in pairs.items():
        adapter = mine[name]
        ratio = (pair.alpha / pair.rank) / (adapter.alpha / adapter.down.shape[0])
        adapter.down[: pair.rank] = pair.down
        adapter.up.zero_()
        adapter.up[:, : pair.rank] = pair.up * ratio
        if adapter.magnitude is not None:
            # those of the file, or with which a plain LoRA is as strong as it was
            own = dora.norm(layers[name].weight, adapter) if pair.magnitude is None else pair.magnitude
            adapter.magnitude.copy_(own)


def check_kind(pairs: Mapping[str, Pair], parts: Mapping[str, nn.Module], magnitudes: str, name: str) -> None:
    """ValueError for a DoRA that an adapter with other `magnitudes` (lora.dora) can't go on from at its strength."""
    layers = named_layers(parts)
    for layer, pair in pairs.items():
        if pair.magnitude is not None:
            axis = dora.axis_of(pair.magnitude, layers[layer].weight)
            if axis != magnitudes:
                raise ValueError(
                    f"lora.start: {name} is a DoRA with magnitudes of {axis}s, and lora.dora is {magnitudes}; set it to {axis}."
                )


def notes(ranks: Mapping[str, int], pairs: Mapping[str, Pair], unused: list[str], name: str) -> list[str]:
    """What a person should know where the settings and the file differ."""
    larger = [layer for layer, pair in pairs.items() if pair.rank > ranks.get(layer, 0) > 0]
    added = [layer for layer in pairs if layer not in ranks]
    said = []
    if larger:
        said.append(
            f"{name} has a larger rank than lora.rank in {len(larger)} layers; they keep it, to lose nothing."
        )
    if added:
        said.append(f"{name} has {len(added)} layers that lora.targets leaves out; they learn, too.")
    if unused:
        said.append(f"{len(unused)} tensors of {name} have no place in this model and were left out.")
    return said
