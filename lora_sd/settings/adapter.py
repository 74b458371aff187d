"""Settings of the LoRA itself."""

from typing import Annotated, Literal

from pydantic import AfterValidator

from ..paths import shown
from .setting import Section, setting

MOST_RANK = 1024
MOST_ALPHA = 4096
LONGEST_PATTERN = 200


def _ranks(ranks: dict[str, int]) -> dict[str, int]:
    for pattern, rank in ranks.items():
        if not 0 <= rank <= MOST_RANK:
            raise ValueError(f"the rank of {shown(pattern)!r} must be 0 to {MOST_RANK}")
        if len(pattern) > LONGEST_PATTERN:
            raise ValueError(f"a pattern must have at most {LONGEST_PATTERN} letters")
    return ranks


def _alphas(alphas: dict[str, float]) -> dict[str, float]:
    for pattern, alpha in alphas.items():
        if not 0 < alpha <= MOST_ALPHA:
            raise ValueError(f"the alpha of {shown(pattern)!r} must be above 0 and at most {MOST_ALPHA}")
        if len(pattern) > LONGEST_PATTERN:
            raise ValueError(f"a pattern must have at most {LONGEST_PATTERN} letters")
    return alphas


Ranks = Annotated[dict[str, int], AfterValidator(_ranks)]
Alphas = Annotated[dict[str, float], AfterValidator(_alphas)]


class LoraSettings(Section):
    """The LoRA"""

    rank: int = setting(
        16,
        "How much the LoRA can hold; higher learns finer detail and makes a larger file.",
        label="Rank",
        ge=1,
        le=MOST_RANK,
    )
    alpha: float | None = setting(
        None,
        "The update is scaled by alpha / rank; half the rank unless you set it.",
        label="Alpha",
        gt=0,
        le=MOST_ALPHA,
    )
    rank_stabilized: bool = setting(
        False,
        "Scale by alpha / √rank instead, so that high ranks learn as fast as low ones (rsLoRA); alpha is then best near 4.",
        label="Rank-stabilized",
    )
    conv_rank: int = setting(
        0,
        "The rank of convolutions that look at more than one point, where lora.targets has them; 0 for the same rank as the rest.",
        label="Convolution rank",
        ge=0,
        le=MOST_RANK,
    )
    conv_alpha: float = setting(
        0.0,
        "The alpha of these convolutions; 0 for the same strength as the rest.",
        label="Convolution alpha",
        ge=0,
        le=MOST_ALPHA,
    )
    targets: Literal["attention", "attention-qv", "transformer", "full", "none"] = setting(
        "attention",
        "Which layers learn: attention is enough for most subjects, transformer adds the feed-forward layers, full adds convolutions, none is for embedding.tokens alone.",
        label="Layers",
    )
    ranks: Ranks = setting(
        {},
        'Ranks by layer-name pattern, for some of the chosen layers: {"unet.mid_block.*" = 32}; 0 leaves a layer out.',
        label="Ranks by pattern",
    )
    alphas: Alphas = setting(
        {},
        'Alphas by layer-name pattern: {"unet.mid_block.*" = 8}; each is for the rank that its layers have.',
        label="Alphas by pattern",
    )
    dora: Literal["off", "output", "input"] = setting(
        "off",
        "Learn how large each channel's weights are by itself (DoRA): output is what diffusers reads, with save.layout peft, "
        "and input what ComfyUI, A1111 and Forge read exactly.",
        label="DoRA",
    )
    initial: Literal["random", "orthogonal", "pissa"] = setting(
        "random",
        "How the matrices begin: orthogonal keeps the ranks apart from the start, pissa takes what is largest in the base model, "
        "which learns sooner and makes a file of twice the rank.",
        label="Beginning",
    )
    text_encoders: bool = setting(
        False,
        "Train the text encoders too; helps a new word to take, and over-fits sooner.",
        label="Train text encoders",
    )
    dropout: float = setting(
        0.0,
        "The share of the numbers going into the LoRA that each pass leaves out by chance; 0.1 over-fits later.",
        label="Dropout",
        ge=0,
        le=0.95,
    )
    rank_dropout: float = setting(
        0.0,
        "The share of the ranks that each pass leaves out by chance, for each picture; 0.1 to 0.3 over-fits later.",
        label="Rank dropout",
        ge=0,
        le=0.95,
    )
    module_dropout: float = setting(
        0.0,
        "The share of the layers that each pass leaves as in the base model, by chance; 0.1 over-fits later.",
        label="Layer dropout",
        ge=0,
        le=0.95,
    )
    max_norm: float = setting(
        0.0,
        "No layer's update becomes larger than this: 1 keeps a LoRA from burning and lets it mix with others; 0 is off.",
        label="Largest update",
        ge=0,
        le=1000,
    )
    plus_ratio: float = setting(
        1.0,
        "How many times faster the second matrix of each layer learns than the first (LoRA+): 4 to 16 learns sooner, 1 is off.",
        label="LoRA+ ratio",
        ge=1,
        le=100,
    )
    train_down: bool = setting(
        True,
        "Off keeps the first matrix of each layer as it began: half as much learns, which needs less memory.",
        label="Train both matrices",
    )
    start: str = setting(
        "",
        "A LoRA file to go on from, of any rank and alpha; training starts at exactly its strength.",
        label="Start from LoRA",
    )
