"""Which build of PyTorch fits this machine: its graphics cards and drivers -> a folder of PyTorch's wheel index.

Standard library only: launch.py asks before anything is installed.
"""

import platform
import re
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import NamedTuple

INDEX = "https://download.pytorch.org/whl"
REPAIR = "python launch.py repair"
DRIVERS = "https://www.nvidia.com/drivers"


class Build(NamedTuple):
    tag: str  # the folder in the index; none for what pip finds by itself
    title: str
    gigabytes: int  # free space that the whole environment takes while it is installed
    takes: str
    driver: int = 0  # the oldest NVIDIA driver that runs it
    oldest: float = 0  # NVIDIA compute capabilities in it
    newest: float = 0


# PyTorch's RELEASE.md, "CUDA support matrix": 2.11 is the last release for CUDA 12.8, 2.14 for 12.6.
CUDA = tuple(
    Build(tag, f"NVIDIA cards ({tag})", 6, "3 to 15 minutes, 3 GB to download", *limits)
    for tag, *limits in (("cu130", 580, 7.5, inf), ("cu128", 570, 7.5, 12.0), ("cu126", 525, 5.0, 9.0))
)
ROCM = tuple(
    Build(tag, f"AMD cards ({tag}; not tested by us)", 15, "5 to 20 minutes, 4 GB to download")
    for tag in ("rocm7.2", "rocm7.1", "rocm6.4")
)
CPU = Build("cpu", "the processor", 2, "about a minute, 0.2 GB to download")
PIPS_CHOICE = Build("", "this system, as pip finds it", 2, "1 to 15 minutes")
BUILDS = {build.tag: build for build in (*CUDA, *ROCM, CPU, PIPS_CHOICE)}


class Hardware(NamedTuple):
    system: str  # Windows, Linux or Darwin
    processor: str  # x86_64, AMD64, arm64 …
    driver: int = 0  # NVIDIA's, its main number; 0 without one
    capability: float = 0  # of the newest NVIDIA card; 0 where the driver is too old to tell
    vendors: frozenset[str] = frozenset()  # of the graphics cards, with or without a driver


def choose(say: Callable[[str], None]) -> Build:
    """The best build for this machine that PyTorch's index has; what pip finds where the index doesn't answer."""
    builds, note = fitting(find_hardware())
    if note:
        say(note)
    return first_offered(builds, say)


def fitting(hardware: Hardware) -> tuple[tuple[Build, ...], str]:
    """The builds that run on this hardware, best first, and what its owner should know."""
    if hardware.system == "Darwin":
        if hardware.processor != "arm64":
            raise ValueError(
                "PyTorch is no longer made for Macs with an Intel processor; use another computer."
            )
        return (), "Apple silicon: lora_sd is written for it, but untested there."
    if hardware.driver:
        builds = tuple(
            b for b in CUDA if hardware.driver >= b.driver and b.oldest <= hardware.capability <= b.newest
        )
        return (builds, "") if builds else ((CPU,), _too_old(hardware))
    if "nvidia" in hardware.vendors:
        return (CPU,), (
            "An NVIDIA card is here but its driver is not, so training will run on the processor: install the driver "
            f"from {DRIVERS}, then run: {REPAIR}"
        )
    if "amd" in hardware.vendors and hardware.system == "Linux":
        return ROCM, ""
    if hardware.vendors:
        return (CPU,), (
            "No NVIDIA card is here (nor an AMD card under Linux), so training will run on the processor."
        )
    return (CPU,), ""


def _too_old(hardware: Hardware) -> str:
    if hardware.capability and hardware.capability < CUDA[-1].oldest:
        return (
            f"The NVIDIA card's compute capability is {hardware.capability}, and PyTorch needs {CUDA[-1].oldest}: "
            "training will run on the processor."
        )
    return (
        f"The NVIDIA driver {hardware.driver} is too old for PyTorch, so training will run on the processor: update it "
        f"from {DRIVERS}, then run: {REPAIR}"
    )


def first_offered(builds: tuple[Build, ...], say: Callable[[str], None]) -> Build:
    """The first build that the index has for this Python; PIPS_CHOICE where it doesn't answer within five seconds."""
    for build in builds:
        try:
            with urllib.request.urlopen(f"{INDEX}/{build.tag}/torch/", timeout=5) as page:
                if has_wheel(page.read().decode()):
                    return build
        except urllib.error.HTTPError:  # the index answers, and has no such folder any more
            continue
        except OSError:
            say("PyTorch's own index doesn't answer; taking the build that pip finds.")
            return PIPS_CHOICE
    return PIPS_CHOICE


def has_wheel(page: str) -> bool:
    """Whether a page of the index lists a wheel for the running Python and system."""
    python = "cp{}{}".format(*sys.version_info)
    processor = sysconfig.get_platform().split("-")[-1]
    return re.search(rf"-{python}-{python}-[\w.]*{processor}\.whl", page) is not None


def find_hardware() -> Hardware:
    drivers = nvidia_smi("driver_version")
    return Hardware(
        platform.system(),
        platform.machine(),
        driver=int(drivers[0].split(".")[0]) if drivers else 0,
        capability=max(map(float, nvidia_smi("compute_cap")), default=0),
        vendors=frozenset(display_vendors()),
    )


def nvidia_smi(field: str) -> list[str]:
    """A number for each NVIDIA card; none without a driver, or where it is too old to know the field."""
    lines = _output("nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader").splitlines()
    return [line.strip() for line in lines if re.match(r"\d", line)]


def display_vendors() -> Iterator[str]:
    """Who made the graphics cards; AMD's own memory tells cards from graphics inside a processor."""
    if platform.system() == "Windows":
        names = _output(
            "powershell", "-NoProfile", "-Command", "(Get-CimInstance Win32_VideoController).Name"
        ).lower()
        words = {"nvidia": "nvidia", "radeon": "amd", "intel": "intel"}
        yield from (vendor for word, vendor in words.items() if word in names)
        return
    for device in Path("/sys/bus/pci/devices").glob("*"):
        if (device / "class").read_text().startswith("0x03"):
            vendor = (device / "vendor").read_text().strip()
            memory = device / "mem_info_vram_total"
            if vendor == "0x1002" and memory.exists() and int(memory.read_text()) >= 4e9:
                yield "amd"
            elif vendor in (ids := {"0x10de": "nvidia", "0x8086": "intel"}):
                yield ids[vendor]


def _output(*command: str) -> str:
    """What a program prints; nothing where it is missing, fails or hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
