"""The layouts that files can be written in: what each calls a layer, and what it calls the tensors of an adapter there.

Three spell modules with kohya's endings (alpha is stored, and other kinds than plain LoRA have theirs): kohya itself, kohya
with diffusers' numbers of SDXL's blocks, and ComfyUI. Two have no alpha, which is then the rank: PEFT and old diffusers.
"""

from collections.abc import Callable
from typing import NamedTuple

from ..lora.inspection import FOREIGN
from ..lora.names import MAGNITUDES, SUFFIXES, comfyui_name, kohya_name, numbered_name
from ..lora.products import ENDINGS
from ..models.family import Family

Namer = Callable[[str, Family], str]


def _dotted(layer: str, family: Family) -> str:
    return layer


def _old_ends(layer: str) -> tuple[str, str]:
    kind = "lora" if layer.startswith("unet.") else "lora_linear_layer"
    return f"{kind}.down.weight", f"{kind}.up.weight"


class Layout(NamedTuple):
    stem: Namer
    ends: Callable[[str], tuple[str, str]]  # of down and up, by layer
    has_alpha: bool


LAYOUTS = {
    "kohya": Layout(kohya_name, lambda layer: SUFFIXES["kohya"], True),
    "kohya-diffusers": Layout(numbered_name, lambda layer: SUFFIXES["kohya"], True),
    "comfyui": Layout(comfyui_name, lambda layer: SUFFIXES["kohya"], True),
    "peft": Layout(_dotted, lambda layer: SUFFIXES["peft"], False),
    "diffusers": Layout(_dotted, _old_ends, False),
}
ENDS = (
    *SUFFIXES["kohya"],
    *MAGNITUDES["kohya"],
    "alpha",
    "diff_b",
    *(end for ends in (ENDINGS | FOREIGN).values() for end in ends),
)


def split(key: str) -> tuple[str, str] | None:
    """(module, ending) of a key with kohya's endings; None for others.

    >>> split("lora_unet_mid_block_attentions_0_proj_in.lora_up.weight")
    ('lora_unet_mid_block_attentions_0_proj_in', 'lora_up.weight')
    """
    found = [end for end in ENDS if key.endswith(f".{end}")]
    if not found:
        return None
    end = max(found, key=len)
    return key.removesuffix(f".{end}"), end
