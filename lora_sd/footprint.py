"""How much memory a training takes on a card, predicted, and the ladder of ways to take less."""

import importlib.util
from typing import NamedTuple


class Rung(NamedTuple):
    """One way to save memory; each is slower than the one before."""

    name: str  # as machine.memory has it
    title: str  # what a person reads: "training goes on …"
    checkpointing: bool  # compute the inside of blocks again in the backward pass
    packed: bool  # keep the frozen weights of the U-Net in 8 bits
    small_optimizer: bool  # keep the optimizer's states in 8 bits


RUNGS = (
    Rung("fast", "at full speed", False, False, False),
    Rung("low", "with parts computed twice, about a third slower", True, False, False),
    Rung(
        "lowest",
        "with parts computed twice and the base in 8 bits",
        True,
        True,
        small_optimizer=importlib.util.find_spec("bitsandbytes") is not None,
    ),
)


class Needs(NamedTuple):
    """What the memory of a training depends on, besides the rung."""

    family: str
    pixels: int  # of the largest bucket
    batch_size: int  # on this card
    rank: int
    targets: str  # as lora.targets has it
    text_encoders: bool  # whether they learn; else they leave the card
    bytes_per_weight: int = 2  # of the base model
    dora: bool = False
    embedding: bool = False  # whether a word of its own learns, for which the text encoders run in each step


class Footprint(NamedTuple):
    """What the released models of a family take."""

    unet: int  # weights
    packed: int  # bytes of them in 8 bits, with scales and the few layers that stay dense
    text: int  # weights of all text encoders
    adapters: dict[str, int]  # parameters for each unit of rank, by lora.targets
    text_adapters: int  # the same of the text encoders
    kept: dict[str, tuple[int, ...]]  # bytes per latent pixel on each rung, by lora.targets, at rank 16
    narrow: int  # bytes per latent pixel for each unit of rank more, where all is kept
    text_kept: int  # bytes per picture, where the text encoders learn


# Counted, not measured: `python benchmarks/memory.py --count` prints these rows. `kept` is the peak of what a forward and
# backward pass in half precision holds beside what was there before.
FOOTPRINTS = {
    "sd15": Footprint(
        unet=859_520_964,
        packed=861_260_168,
        text=123_060_480,
        adapters={
            "attention-qv": 99_648,
            "attention": 199_296,
            "transformer": 423_936,
            "full": 1_050_816,
            "none": 0,
        },
        text_adapters=165_888,
        kept={
            "attention-qv": (154_109, 43_247, 43_247),
            "attention": (154_750, 43_343, 43_343),
            "transformer": (192_474, 55_062, 55_062),
            "full": (216_185, 59_676, 59_676),
            "none": (138_948, 41_870, 41_870),
        },
        narrow=168,
        text_kept=29_924_376,
    ),
    "sd2": Footprint(
        unet=865_910_724,
        packed=867_649_928,
        text=340_387_840,
        adapters={
            "attention-qv": 103_744,
            "attention": 207_488,
            "transformer": 432_128,
            "full": 1_059_008,
            "none": 0,
        },
        text_adapters=423_936,
        kept={
            "attention-qv": (153_501, 43_197, 43_197),
            "attention": (154_137, 43_293, 43_293),
            "transformer": (191_851, 55_002, 55_002),
            "full": (215_554, 59_615, 59_615),
            "none": (138_357, 41_820, 41_820),
        },
        narrow=167,
        text_kept=60_250_568,
    ),
    "sdxl": Footprint(
        unet=2_567_463_684,
        packed=2_575_046_408,
        text=817_720_320,
        adapters={
            "attention-qv": 725_760,
            "attention": 1_451_520,
            "transformer": 2_659_840,
            "full": 3_074_240,
            "none": 0,
        },
        text_adapters=903_168,
        kept={
            "attention-qv": (279_303, 30_970, 30_970),
            "attention": (279_913, 30_994, 30_994),
            "transformer": (349_859, 36_227, 36_227),
            "full": (374_156, 44_433, 44_433),
            "none": (251_480, 30_306, 30_306),
        },
        narrow=146,
        text_kept=132_784_168,
    ),
}
# How many times more DoRA keeps on each rung, counted in the same way: of the families the one with most.
DORA = {
    "attention-qv": (1.14, 1.05, 1.05),
    "attention": (1.29, 1.09, 1.09),
    "transformer": (1.57, 1.45, 1.45),
    "full": (1.58, 1.46, 1.46),
}
LATENT_SIDE = 8  # pixels a side of one latent pixel
# What a count of tensors can't know: the libraries' workspaces, and what the allocator loses between tensors. Fitted to
# published measurements (one H100, diffusers' own blocks, a step in one CUDA graph): SD 1.5 at batch 1, 4 and 8 reserved
# 3.3, 6.2 and 10.0 GiB, SDXL at 1 and 4 13.4 and 32.9. With the count of those blocks this gives them within 5 %.
WORKSPACE = 700 * 2**20
ALLOCATOR = 1.10
FILL = 0.95  # of the free memory, at most


class Parts(NamedTuple):
    """What the memory of a training is made of, in bytes."""

    weights: float  # of the base model
    learning: float  # the adapters: values, gradients, the optimizer's states
    kept: float  # by the forward pass for the backward pass
    workspace: float  # of the libraries


def predict(needs: Needs, rung: Rung) -> int:
    """Bytes that training reserves on a card at its peak, without the driver's own (about 0.5 GB)."""
    return round(sum(parts(needs, rung)))


def parts(needs: Needs, rung: Rung) -> Parts:
    """What `predict` is the sum of."""
    model, each = FOOTPRINTS[needs.family], needs.bytes_per_weight
    learning = model.adapters[needs.targets]
    weights = model.packed if rung.packed else model.unet * each
    latent_pixels = needs.pixels / LATENT_SIDE**2
    kept = latent_pixels * model.kept[needs.targets][RUNGS.index(rung)]
    if needs.dora:
        kept *= DORA[needs.targets][RUNGS.index(rung)]
    if not rung.checkpointing:
        kept += latent_pixels * model.narrow * (needs.rank - 16)
    if needs.text_encoders:
        learning += model.text_adapters
    if needs.text_encoders or needs.embedding:
        weights += model.text * each
        kept += model.text_kept
    # in fp32 value, gradient and two states of the optimizer; in the base's format a copy, and gradients fresh and gathered
    adapters = needs.rank * learning * (4 + 4 + (2 if rung.small_optimizer else 8) + 3 * each)
    return Parts(weights, adapters, needs.batch_size * kept * each / 2 * ALLOCATOR, WORKSPACE)


def choose_rung(free: int, needs: Needs) -> Rung:
    """The fastest rung that fits `free` bytes, with a margin; the last where none does."""
    return next((rung for rung in RUNGS if predict(needs, rung) <= FILL * free), RUNGS[-1])
