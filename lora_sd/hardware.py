"""The machine: its graphics cards, its memory, what to train on, and how much memory that takes.

Torch is imported only to choose a device.
"""

import functools
import importlib.util
import os
import platform
import re
import runpy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, NamedTuple

import psutil

if TYPE_CHECKING:
    import torch

Backend = Literal["cuda", "hip", "mps", "cpu"]

# Memory of a card in GB -> what it is enough for; the first that fits.
ENOUGH_FOR = (
    (15, "enough for every model here, SDXL too"),
    (7, "enough for SD 1.x and 2.x; for SDXL take the preset sdxl_8gb"),
    (3, "enough for SD 1.x at 512 pixels"),
    (0, "little memory: take the starter model"),
)


@dataclass(frozen=True)
class Device:
    kind: Literal["cuda", "mps", "cpu"]
    name: str
    total: int  # bytes
    free: int  # bytes, right now


def devices() -> list[Device]:
    """What the installed PyTorch can train on here, best first; the processor is always the last."""
    found = {"cuda": nvidia_cards, "hip": _amd_cards, "mps": _apple_chip, "cpu": lambda: []}[backend()]()
    return [*found, processor()]


def best() -> Device:
    return devices()[0]


def describe() -> str:
    """One sentence for the page: the machine, and what it means for training."""
    device = best()
    if device.kind == "cpu":
        if cards := nvidia_cards():
            return (
                f"{cards[0].name} is here, but the installed PyTorch is made for the processor only; to use the card, "
                "run: python launch.py repair"
            )
        return "No NVIDIA graphics card found: training runs on the processor; the starter model works well here."
    gigabytes = device.total / 2**30
    meaning = next(words for least, words in ENOUGH_FOR if gigabytes >= least)
    return f"{device.name} with {gigabytes:.0f} GB: {meaning}."


@functools.cache
def backend() -> Backend:
    """What the installed PyTorch was built for, read from its version file: importing it takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None:
        return "cpu"
    version = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    if version.get("hip"):
        return "hip"
    if version.get("cuda"):
        return "cuda"
    return "mps" if (platform.system(), platform.machine()) == ("Darwin", "arm64") else "cpu"


def nvidia_cards() -> list[Device]:
    """NVIDIA's cards that programs may use (CUDA_VISIBLE_DEVICES), whether or not this PyTorch can."""
    nvml = _nvml()
    if nvml is None:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(nvml.nvmlDeviceGetCount()))))
    return [_nvidia_card(nvml, name.strip()) for name in visible.split(",") if name.strip() not in ("", "-1")]


def _nvidia_card(nvml: ModuleType, name: str) -> Device:
    """`name` as in CUDA_VISIBLE_DEVICES: a number or a UUID."""
    handle = (
        nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)
    )
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Device("cuda", nvml.nvmlDeviceGetName(handle), memory.total, memory.free)


def nvidia_driver() -> str:
    """The driver's version; empty without one."""
    nvml = _nvml()
    return nvml.nvmlSystemGetDriverVersion() if nvml else ""


@functools.cache
def _nvml() -> ModuleType | None:
    """NVIDIA's management library, or None where no driver brings it."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _amd_cards() -> Iterator[Device]:
    for memory in sorted(Path("/sys/bus/pci/devices").glob("*/mem_info_vram_total")):
        total, used = (
            int(memory.with_name(f"mem_info_vram_{what}").read_text()) for what in ("total", "used")
        )
        yield Device("cuda", "AMD graphics card", total, total - used)  # PyTorch calls AMD's cards cuda, too


def _apple_chip() -> list[Device]:
    memory = psutil.virtual_memory()
    return [Device("mps", "Apple silicon", memory.total, memory.available)]


def processor() -> Device:
    """The processor and the computer's memory."""
    memory = psutil.virtual_memory()
    return Device("cpu", f"{_processor_name()}, {os.cpu_count()} threads", memory.total, memory.available)


def _processor_name() -> str:
    information = Path("/proc/cpuinfo")  # Linux: platform.processor() says nothing there
    match = re.search(r"model name\s*: (.+)", information.read_text()) if information.exists() else None
    return match[1] if match else platform.processor() or platform.machine()


def choose(device: str = "auto", precision: str = "auto") -> "tuple[torch.device, torch.dtype]":
    """The device to use and the number format of the base model: half precision on a card, fp32 elsewhere."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kind = next(kind for kind in there if there[kind]) if device == "auto" else device
    if not there[kind]:
        raise ValueError(
            f"machine.device is {kind!r}, and PyTorch {torch.__version__} finds none here; choose 'auto', or ask "
            "python launch.py doctor what is missing."
        )
    if kind == "cpu" and precision == "fp16":
        raise ValueError(
            "machine.precision is 'fp16', which the processor can't train in; choose 'auto' or 'fp32'."
        )
    if precision == "auto":
        precision = (
            ("bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp16") if kind == "cuda" else "fp32"
        )
    return torch.device(kind), {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
        precision
    ]


def memory_used() -> int:
    """Bytes that this process holds: its peak on the card where it uses one, else what is resident."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        return torch.cuda.max_memory_reserved()
    return psutil.Process().memory_info().rss


# How much memory a run takes, and the ladder of ways to take less


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
        adapters={"attention-qv": 99_648, "attention": 199_296, "transformer": 423_936, "full": 1_050_816},
        text_adapters=165_888,
        kept={
            "attention-qv": (174_109, 43_247, 43_247),
            "attention": (174_750, 43_343, 43_343),
            "transformer": (212_474, 55_062, 55_062),
            "full": (233_945, 59_676, 59_676),
        },
        narrow=168,
        text_kept=29_924_376,
    ),
    "sd2": Footprint(
        unet=865_910_724,
        packed=867_649_928,
        text=340_387_840,
        adapters={"attention-qv": 103_744, "attention": 207_488, "transformer": 432_128, "full": 1_059_008},
        text_adapters=423_936,
        kept={
            "attention-qv": (173_501, 43_197, 43_197),
            "attention": (174_137, 43_293, 43_293),
            "transformer": (211_851, 55_002, 55_002),
            "full": (235_554, 59_615, 59_615),
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
        },
        text_adapters=903_168,
        kept={
            "attention-qv": (330_503, 30_970, 30_970),
            "attention": (331_113, 30_994, 30_994),
            "transformer": (401_059, 36_227, 36_227),
            "full": (425_356, 44_433, 44_433),
        },
        narrow=146,
        text_kept=132_784_168,
    ),
}
LATENT_SIDE = 8  # pixels a side of one latent pixel
# What a count of tensors can't know: the libraries' workspaces, and what the allocator loses between tensors. Fitted to
# published measurements (one H100, diffusers' own blocks, a step in one CUDA graph): SD 1.5 at batch 1, 4 and 8 reserved
# 3.3, 6.2 and 10.0 GiB, SDXL at 1 and 4 13.4 and 32.9. With the count of those blocks this gives them within 5 %.
WORKSPACE = 700 * 2**20
ALLOCATOR = 1.10
FILL = 0.95  # of the free memory, at most


def predict_memory(needs: Needs, rung: Rung) -> int:
    """Bytes that training reserves on a card at its peak, without the driver's own (about 0.5 GB)."""
    model, each = FOOTPRINTS[needs.family], needs.bytes_per_weight
    learning = model.adapters[needs.targets]
    weights = model.packed if rung.packed else model.unet * each
    latent_pixels = needs.pixels / LATENT_SIDE**2
    kept = latent_pixels * model.kept[needs.targets][RUNGS.index(rung)]
    if not rung.checkpointing:
        kept += latent_pixels * model.narrow * (needs.rank - 16)
    if needs.text_encoders:
        learning += model.text_adapters
        weights += model.text * each
        kept += model.text_kept
    # in fp32 value, gradient and two states of the optimizer; in the base's format a copy, and gradients fresh and gathered
    adapters = needs.rank * learning * (4 + 4 + (2 if rung.small_optimizer else 8) + 3 * each)
    return round(weights + adapters + needs.batch_size * kept * each / 2 * ALLOCATOR + WORKSPACE)


def choose_rung(free: int, needs: Needs) -> Rung:
    """The fastest rung that fits `free` bytes, with a margin; the last where none does."""
    return next((rung for rung in RUNGS if predict_memory(needs, rung) <= FILL * free), RUNGS[-1])
