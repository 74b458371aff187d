"""Can this machine train? One line for each thing that matters, and the one command or act that mends it."""

import contextlib
import importlib.metadata
import importlib.util
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from . import hardware, run, torch_build

PACKAGES = "torch diffusers transformers accelerate gradio pillow safetensors pydantic tomli-w psutil nvidia-ml-py".split()
OPTIONAL = {
    "peft": "lets diffusers load LoRA files, for comparing",
    "playwright": "drives the pages in tests",
    "bitsandbytes": "8-bit optimizers; nothing here needs it",
    "xformers": "attention; PyTorch's own is used",
}
DISK = 2  # GB for a run, its checkpoints and the cache
MEMORY = 3  # GB that training the starter model takes


class Check(NamedTuple):
    name: str
    found: str
    remedy: str = ""  # none where all is well
    needed: bool = True  # whether training is impossible without the remedy

    @property
    def mark(self) -> str:
        return "ok " if not self.remedy else "FIX" if self.needed else "tip"


def main() -> int:
    """Print the report; 0 where this machine can train, 1 where something has to be mended first."""
    checks = []
    for check in report():
        print(f"{check.mark}  {check.name:<14} {check.found}", flush=True)
        if check.remedy:
            print(f"     {'':<14} -> {check.remedy}", flush=True)
        checks.append(check)
    broken = [check.name for check in checks if check.mark == "FIX"]
    print(f"\nMend first: {', '.join(broken)}." if broken else "\nThis machine can train.")
    return 1 if broken else 0


def report() -> Iterator[Check]:
    """Every check; the quick ones first, those that import torch last."""
    yield from quick()
    if importlib.util.find_spec("torch"):
        yield pytorch()
        yield training()
    yield from optional()


def quick() -> Iterator[Check]:
    """Those that do not import torch."""
    yield Check("Python", f"{platform.python_version()}, {sys.executable}")
    yield packages()
    yield memory()
    yield disk(run.home())
    yield card()


def packages() -> Check:
    missing = [name for name in PACKAGES if _version(name) is None]
    if missing:
        return Check("Packages", f"missing: {', '.join(missing)}", torch_build.REPAIR)
    return Check("Packages", ", ".join(f"{name} {_version(name)}" for name in PACKAGES))


def memory() -> Check:
    found = hardware.processor()
    text = f"{_gigabytes(found.free)} of {_gigabytes(found.total)} free, {found.name}"
    enough = found.free >= MEMORY * 2**30
    return Check(
        "Memory", text, "" if enough else f"close other programs: {MEMORY} GB are needed", needed=False
    )


def disk(home: Path) -> Check:
    """Room for runs, where they are written."""
    nearest = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    free = shutil.disk_usage(nearest).free
    remedy = f"free {DISK} GB there, or set LORA_SD_HOME to another disk"
    return Check("Disk", f"{_gigabytes(free)} free in {home}", "" if free >= DISK * 2**30 else remedy)


def card() -> Check:
    cards = hardware.nvidia_cards()
    if cards:
        described = "; ".join(f"{c.name}, {_gigabytes(c.free)} of {_gigabytes(c.total)} free" for c in cards)
        return Check("Graphics card", f"{described}; driver {hardware.nvidia_driver()}")
    if "nvidia" in torch_build.display_vendors():
        return Check(
            "Graphics card",
            "NVIDIA, without its driver",
            f"install it from {torch_build.DRIVERS}",
            needed=False,
        )
    return Check("Graphics card", hardware.describe())


def pytorch() -> Check:
    """Whether the installed build fits the card and its driver."""
    import torch

    found = f"{torch.__version__}, built for {torch.cuda.get_arch_list() or hardware.backend()}"
    if not hardware.nvidia_cards():
        return Check("PyTorch", found)
    if not torch.version.cuda:
        return Check("PyTorch", f"{found}, not for this card", torch_build.REPAIR, needed=False)
    if not torch.cuda.is_available():
        remedy = f"update the driver from {torch_build.DRIVERS}"
        return Check(
            "PyTorch", f"{found}; driver {hardware.nvidia_driver()} can't run it", remedy, needed=False
        )
    major, minor = torch.cuda.get_device_capability()
    remedy = "" if runs_on(torch.cuda.get_arch_list(), (major, minor)) else torch_build.REPAIR
    return Check("PyTorch", f"{found}; the card is sm_{major}{minor}", remedy)


def runs_on(arch_list: list[str], capability: tuple[int, int]) -> bool:
    """Whether a build runs on a card: it has code for the same generation, not newer, or PTX to translate.

    >>> runs_on(["sm_80", "sm_90"], (8, 6)), runs_on(["sm_80", "sm_90"], (12, 0))
    (True, False)
    """
    for arch in arch_list:
        kind, digits = arch.split("_")
        number = int(digits.rstrip("af"))
        built = divmod(number, 10)
        if built <= capability and (kind == "compute" or built[0] == capability[0]):
            return True
    return False


def training() -> Check:
    """One gradient through one small layer, on the device and in the number format that a run would take."""
    import torch

    device, dtype = hardware.choose()
    try:
        layer = torch.nn.Linear(8, 8, device=device, dtype=dtype)
        layer(torch.ones(1, 8, device=device, dtype=dtype)).sum().backward()
    except RuntimeError as error:  # a driver or a build that doesn't fit says so only here
        return Check("Training", f"fails on {device}: {str(error).splitlines()[0]}", torch_build.REPAIR)
    return Check("Training", f"on {device} in {str(dtype).removeprefix('torch.')}")


def optional() -> Iterator[Check]:
    for name, use in OPTIONAL.items():
        yield Check("Optional", f"{name} {_version(name) or 'is not installed'}: {use}")


def _version(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GB"
