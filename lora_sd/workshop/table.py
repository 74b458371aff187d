"""Every layer that a family's models can have, by our name for it, and what files call it: so no model has to be loaded.

The table has room for more than the released models (the starter and small ones are of the same build): a name that a
model lacks stands in none of its files.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType

from ..lora.names import SGM_LEAVES, Keys, spellings
from ..models.family import Family

DEPTH = 10  # transformer blocks in a row
ENCODER_LAYERS = 32
LEVELS = {"sdxl": 3}  # of the U-Net, by family; the others have 4
RESNET = tuple(SGM_LEAVES)
ATTENTION = tuple(f"attn{n}.{leaf}" for n in (1, 2) for leaf in ("to_q", "to_k", "to_v", "to_out.0"))
BLOCK = (*ATTENTION, "ff.net.0.proj", "ff.net.2")
TRANSFORMER = (
    "proj_in",
    "proj_out",
    *(f"transformer_blocks.{k}.{leaf}" for k in range(DEPTH) for leaf in BLOCK),
)
ENDS = (
    *("conv_in", "conv_out"),
    *(f"{kind}_embedding.linear_{n}" for kind in ("time", "add") for n in (1, 2)),
)
CONVOLUTIONS = ("conv", "conv1", "conv2", "conv_in", "conv_out")  # of 3 × 3
ENCODER = (*(f"self_attn.{name}_proj" for name in "qkv"), "self_attn.out_proj", "mlp.fc1", "mlp.fc2")


def unet_paths(levels: int) -> Iterator[str]:
    """diffusers' paths of the Linear and Conv2d layers, in the order in which a picture passes them."""
    for i in range(levels):
        yield from _stage(f"down_blocks.{i}", 2)
        yield f"down_blocks.{i}.downsamplers.0.conv"
    yield from (f"mid_block.attentions.0.{leaf}" for leaf in TRANSFORMER)
    yield from (f"mid_block.resnets.{j}.{leaf}" for j in range(2) for leaf in RESNET)
    for i in range(levels):
        yield from _stage(f"up_blocks.{i}", 3)
        yield f"up_blocks.{i}.upsamplers.0.conv"
    yield from ENDS


def _stage(stage: str, layers: int) -> Iterator[str]:
    for j in range(layers):
        yield from (f"{stage}.resnets.{j}.{leaf}" for leaf in RESNET)
        yield from (f"{stage}.attentions.{j}.{leaf}" for leaf in TRANSFORMER)


@cache
def layer_names(family: Family) -> tuple[str, ...]:
    encoders = [
        f"{spec.attribute}.text_model.encoder.layers.{i}.{leaf}"
        for spec in family.text_encoders
        for i in range(ENCODER_LAYERS)
        for leaf in ENCODER
    ]
    return (*encoders, *(f"unet.{path}" for path in unet_paths(LEVELS.get(family.name, 4))))


def kernel(layer: str, family: Family) -> tuple[int, ...]:
    """The sides of a convolution's kernel; () for a Linear."""
    leaf = layer.rpartition(".")[2]
    if leaf in CONVOLUTIONS:
        return (3, 3)
    linear_projections = family.name != "sd15"
    one = leaf == "conv_shortcut" or (leaf in ("proj_in", "proj_out") and not linear_projections)
    return (1, 1) if one else ()


@cache
def spelled(family: Family) -> Mapping[str, tuple[Keys, ...]]:
    """Layer → every way files spell it, the usual first."""
    return MappingProxyType({layer: tuple(spellings(layer, family)) for layer in layer_names(family)})
