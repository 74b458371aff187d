"""Starts lora_sd on a machine that has only Python: makes its environment once, then opens the page.

    python launch.py [--port N] [--no-browser] [--listen ADDRESS] [--share]        the page, in your browser
    python launch.py train | resume | generate | inspect | download | doctor ...   the command line
    python launch.py test [options of pytest]                                      the tests
    python launch.py repair                                                        the environment made anew

The environment is `.venv` beside this file, unless the running Python has all that pyproject.toml asks for. This
file uses the standard library only, and an old Python can still read it, to say in one sentence that it is too old.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
STAMP = VENV / "lora_sd.json"  # written last: without it the environment is not finished
LOG = VENV / "install.log"
PYTHONS = (3, 11), (3, 14)
LONGEST_INSIDE = 195  # characters of the deepest path under .venv, a licence text of torch

# What pip, venv and the system say when something is wrong -> what a person can do. The first that fits is told.
REMEDIES = (
    (r"No space left|Errno 28|WinError 112", "The disk is full: free some space, then start again."),
    (r"ensurepip|No module named '?venv", "This Python can't make environments: install its venv part (on Debian and "
     "Ubuntu: sudo apt install python3-venv) or Python from https://www.python.org/downloads, then start again."),
    (r"CERTIFICATE_VERIFY_FAILED|SSLError", "A secure connection was refused, often by a company's proxy or a wrong "
     "clock: check both, then start again."),
    (r"NewConnectionError|NameResolutionError|getaddrinfo|name resolution|Network is unreachable|ProxyError|timed out|"
     r"Connection(Reset|Aborted)?Error", "The network doesn't answer: connect this computer to the internet (only this "
     "first start needs it), then start again; what is already there is kept."),
    (r"WinError 206|path too long|Long Path", "Windows finds the paths too long: move this folder nearer to the drive's "
     r"root, say to C:\lora_sd, then start again."),
    (r"Permission ?(denied|Error)|Access is denied|WinError 5\b", "A file can't be written: close other lora_sd windows, "
     "move this folder to a place of your own, then start again."),
    (r"No matching distribution found for (?P<what>[\w.-]+)", "There is no {what} for this Python and system: try another "
     "Python from 3.11 to 3.14, best 3.12."),
)  # fmt: skip


def say(text: str) -> None:
    print(text, flush=True)


def stop(text: str) -> NoReturn:
    sys.exit(f"lora_sd: {text}")


def main(arguments: list[str]) -> int:
    check_python(sys.version_info[:2], sys.maxsize)
    command = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    if {"-h", "--help"} & set(arguments[:1]):
        say(__doc__)
        return 0
    if command == "repair":
        shutil.rmtree(VENV, ignore_errors=True)
        say(f"The environment is ready: {environment()}")
        return 0
    if command == "test":
        return run([environment("test"), "-m", "pytest", *arguments[1:]], cwd=HERE)
    if command:
        return run([environment(), "-P", "-m", "lora_sd", *arguments])
    python = environment()
    say("Starting the page (about 5 seconds) ...")
    return run([python, "-P", "-m", "app.main", *arguments])


def check_python(version: tuple[int, int], largest_int: int) -> None:
    if not PYTHONS[0] <= version <= PYTHONS[1]:
        stop(
            "this is Python {}.{}, and 3.11 to 3.14 is needed: install 3.12 from https://www.python.org/downloads "
            "(it lives beside this one) and start launch.py with it.".format(*version)
        )
    if largest_int < 2**32:
        stop(
            "this is a 32-bit Python, for which there is no PyTorch: install a 64-bit one from "
            "https://www.python.org/downloads and start launch.py with it."
        )


# The environment


def environment(extra: str = "") -> str:
    """The Python to run with: this one if it has everything, else that of `.venv`, made or brought up to date."""
    wanted = requirements((HERE / "pyproject.toml").read_text("utf-8"), extra)
    if all(map(satisfied, wanted)):
        return sys.executable
    if not up_to_date(extra):
        install(wanted, extra)
    return str(venv_python())


def requirements(pyproject: str, extra: str = "") -> list[str]:
    """What has to be installed, in pyproject.toml's one form: `name>=version`."""
    import tomllib  # is part of Python from 3.11 on

    project = tomllib.loads(pyproject)["project"]
    return project["dependencies"] + (project["optional-dependencies"][extra] if extra else [])


def satisfied(requirement: str) -> bool:
    """Whether the running Python has this package, in this version or a newer one."""
    name, _, oldest = requirement.partition(">=")
    try:
        return numbers(importlib.metadata.version(name)) >= numbers(oldest)
    except importlib.metadata.PackageNotFoundError:
        return False


def numbers(version: str) -> list[int]:
    """`2.13.0+cpu` as [2, 13, 0]."""
    return [int(number) for number in re.match(r"\d+(\.\d+)*", version)[0].split(".")]


def venv_python() -> Path:
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint() -> str:
    return hashlib.sha256((HERE / "pyproject.toml").read_bytes()).hexdigest()


def stamp() -> dict:
    """What `.venv` was made from; empty where there is none, or an unfinished one, or its Python is gone."""
    return json.loads(STAMP.read_text("utf-8")) if STAMP.exists() and venv_python().exists() else {}


def up_to_date(extra: str) -> bool:
    made = stamp()
    return made.get("pyproject") == fingerprint() and extra in ["", *made["extras"]]


def install(wanted: list[str], extra: str) -> None:
    """Make `.venv`, or bring it up to date, and stamp it."""
    from lora_sd import torch_build  # standard library only, but for newer Pythons

    made = stamp()
    try:
        build = torch_build.BUILDS[made["torch"]] if made else torch_build.choose(say)
    except ValueError as no_build:
        stop(str(no_build))
    check_folder(build.gigabytes)
    if not made:
        say("1 of 3: making the environment .venv (about 10 seconds).")
        check_call([sys.executable, "-m", "venv", "--clear", str(VENV)])
    torch, *rest = wanted
    say(f"2 of 3: installing PyTorch for {build.title} ({build.takes}).")
    pip(torch, *(["--index-url", f"{torch_build.INDEX}/{build.tag}"] if build.tag else []))
    say("3 of 3: installing the other packages (1 to 3 minutes, 0.3 GB to download).")
    pip(torch, *rest)
    extras = sorted({extra, *made.get("extras", [])} - {""})
    STAMP.write_text(json.dumps({"pyproject": fingerprint(), "torch": build.tag, "extras": extras}), "utf-8")
    say("The environment is finished; the next start takes seconds.")


def pip(*arguments: str) -> None:
    """Install with the environment's pip, showing what it downloads."""
    check_call(
        [str(venv_python()), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *arguments]
    )


def check_call(command: list[str]) -> None:
    """Run a step of the installation; where it fails, stop with the sentence that fits its output."""
    output = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as step:
        for line in step.stdout:
            output.append(line)
            if line.lstrip().startswith("Downloading "):
                say("        " + re.sub(r"\S*/", "", line.strip()))
    if VENV.exists():
        with LOG.open("a", encoding="utf-8") as log:
            log.writelines([" ".join(command), "\n", *output])
    if step.returncode:
        stop(explain("".join(output)))


def explain(output: str) -> str:
    """What went wrong in a step of the installation and what to do, in one sentence."""
    for pattern, sentence in REMEDIES:
        match = re.search(pattern, output, re.IGNORECASE)
        if match:
            return sentence.format(**match.groupdict())
    last = (output.strip().splitlines() or ["it ended without a word"])[-1]
    return f"A step of the installation failed ({last}); all it said is in {LOG}. To begin anew: python launch.py repair"


def check_folder(gigabytes: int) -> None:
    """Stop before the download where the result would not fit on the disk, or its paths not into Windows."""
    free = shutil.disk_usage(HERE).free / 1e9
    if free < gigabytes:
        stop(
            f"{free:.1f} GB are free where {HERE} lies, and {gigabytes} are needed: free some space, then start again."
        )
    room = 259 - LONGEST_INSIDE
    if os.name == "nt" and len(str(HERE)) > room and not long_paths():
        stop(
            f"the path of {HERE} has {len(str(HERE))} characters, and Windows leaves room for {room}: move this folder "
            r"nearer to the drive's root, say to C:\lora_sd, then start again."
        )


def long_paths() -> bool:
    """Whether this Windows allows paths of more than 260 characters."""
    import winreg

    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem") as key:
        return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0])


# Running


def run(command: list[str], cwd: Path | None = None) -> int:
    """Run a program of ours and hand back its exit code. Ctrl-C reaches it directly, and it ends in its own way."""
    signal.signal(signal.SIGINT, lambda *_: None)
    child = subprocess.Popen(command, cwd=cwd, env=child_environment())
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    code = child.wait()
    return code if code >= 0 else 128 - code  # ended by a signal


def child_environment() -> dict[str, str]:
    path = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    home = os.environ.get("LORA_SD_HOME") or str(HERE / "workspace")
    return {**os.environ, "PYTHONUTF8": "1", "PYTHONPATH": os.pathsep.join(path), "LORA_SD_HOME": home}


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        stop("stopped; start again to go on from here.")
