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
from typing import TYPE_CHECKING, Literal

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
