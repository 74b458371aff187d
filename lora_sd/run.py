"""A run is a folder: everything a person sees of it is a file there, so the page, the command line and a crash agree.

runs/20261122-141530-mycat/
  config.toml    the settings, frozen               state.json    {pid, created, t, status, step, total, phase, error}
  events.jsonl   what happened, one line each       commands/     stop, pause, preview, save: flags for the trainer
  previews/      pictures on the way                checkpoints/  LoRA files, the last one final
  tensorboard/   curves, where that was asked for
  state/         what a resume needs                log.txt       all that the process printed
  .lock          held by the process that trains it
"""

import contextlib
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Literal, get_args

import psutil

from . import config as cfg
from . import events, lock
from .events import Event
from .files import unfinished, write_text

Command = Literal["stop", "pause", "preview", "save"]
COMMANDS: tuple[Command, ...] = get_args(Command)
ACTIVE = ("starting", "caching", "training")
SECRETS = ("LORA_SD_PASSWORD", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN")  # variables
BEST = "-best"  # at the end of the name of the file with the lowest held-out loss
CHILD = "LORA_SD_CHILD"  # set in the environment of a trainer that `start` made


def home() -> Path:
    """Where runs, projects, models and the cache live: LORA_SD_HOME, else ~/lora_sd."""
    return Path(os.environ.get("LORA_SD_HOME") or Path.home() / "lora_sd")


@dataclass
class State:
    status: str = (
        "starting"  # queued starting caching training paused stopped finished failed; interrupted is derived
    )
    step: int = 0
    total: int = 0
    phase: str = ""
    error: str = ""
    extend: str = ""  # how much longer it was last asked to be; not yet done where it was refused
    pid: int = 0
    created: float = 0.0  # when the process began: a pid alone may be someone else's by now
    t: float = field(default_factory=time.time)

    @property
    def active(self) -> bool:
        return self.status in ACTIVE

    @property
    def place(self) -> str:
        """`"step 5 of 1,000"`; the total of a length in epochs is known once its pictures are counted."""
        return f"step {self.step:,}" + (f" of {self.total:,}" if self.total else "")


@dataclass(frozen=True)
class Run:
    """One run as lists show it."""

    folder: Path
    name: str
    state: State
    started: datetime


def tidy(folder: Path) -> None:
    """Take away what a trainer that was killed left half-written; for the one that holds the run."""
    for part in ("previews", "checkpoints", "state"):
        for path, pid in list(unfinished(folder / part)):
            if not psutil.pid_exists(pid):
                with contextlib.suppress(OSError):
                    path.unlink()


def create(config: cfg.TrainConfig, status: str = "starting") -> Path:
    """A new run folder with its settings in it; nothing is started."""
    root = Path(config.output.dir) if config.output.dir else home() / "runs"
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{safe_name(config.output.name)}"
    for number in range(1, 1000):
        folder = root / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            continue
    for part in ("commands", "previews", "checkpoints", "state"):
        (folder / part).mkdir()
    write_text(folder / "config.toml", cfg.dumps(config))
    write_text(folder / "versions.json", json.dumps(versions(), indent=1))
    write_state(folder, State(status=status, total=config.optim.known_steps, phase="Waiting to start"))
    (folder / "events.jsonl").touch()
    return folder


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """Train the run of `folder` in a process of its own, which outlives this one; continues where it was.

    `options` are those of `lora_sd resume`: `--extend 500`, `--accept-changes`.
    """
    before = read_state(folder)
    extend = options[options.index("--extend") + 1] if "--extend" in options else ""
    beginning = State(
        status="starting", step=before.step, total=before.total, phase="Starting", extend=extend
    )
    write_state(folder, beginning)
    forget_commands(folder)
    detached = (
        {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
        if sys.platform == "win32"
        else {"start_new_session": True}
    )
    with open(folder / "log.txt", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lora_sd", "resume", str(folder), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**child_environment(), CHILD: "1"},
            **detached,
        )
    return process


def child_environment() -> dict[str, str]:
    """What a process of ours is given of this one's environment: no secrets; it lets nobody in and downloads nothing."""
    return {name: v for name, v in os.environ.items() if name not in SECRETS} | {"PYTHONUTF8": "1"}


def beside(words: Sequence[str], log: IO[str], **environment: str) -> subprocess.Popen[str]:
    """A process of ours (`python -m WORDS`) that is talked to by lines of UTF-8; what else it prints goes into `log`."""
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        encoding="utf-8",
        bufsize=1,
        env=child_environment() | environment,
    )


def command(folder: Path, name: Command) -> None:
    """Ask the trainer for something; it looks after every step."""
    (folder / "commands").mkdir(exist_ok=True)
    (folder / "commands" / name).touch()


def take(folder: Path, name: Command) -> bool:
    """Whether `name` was asked for; asking is over once it is taken."""
    try:
        (folder / "commands" / name).unlink()
    except FileNotFoundError:
        return False
    return True


def forget_commands(folder: Path) -> None:
    """Nothing asked of a run that ended may reach the next process that goes on with it."""
    for name in COMMANDS:
        take(folder, name)


def read_state(folder: Path) -> State:
    """The run's state as its trainer wrote it, or `interrupted` where that trainer is gone."""
    try:
        state = _state_of(json.loads((folder / "state.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return State(status="interrupted", error="Its state file can't be read.")
    if state.active and not _alive(folder, state):
        state.status = "interrupted"
    return state


def _state_of(values: Any) -> State:
    kinds = {field.name: field.type for field in fields(State)}
    if not isinstance(values, dict):
        raise ValueError("it is no table")
    known = {name: value for name, value in values.items() if name in kinds}
    if wrong := [name for name, value in known.items() if type(value) not in (kinds[name], int)]:
        raise ValueError(f"{wrong[0]} is of another type")
    return State(**known)


def _alive(folder: Path, state: State) -> bool:
    """Whether its trainer lives: by number and start, else by the lock, which a clock that was set can't confuse."""
    if not state.pid and abs(time.time() - state.t) < 60:  # the child has not reported yet
        return True
    try:
        process = psutil.Process(state.pid)
        if process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - state.created) < 2:
            return True
    except psutil.Error:
        pass
    return bool(lock.held(folder))


def write_state(folder: Path, state: State) -> None:
    write_text(folder / "state.json", state_text(state))


def state_text(state: State) -> str:
    state.t = time.time()
    return json.dumps(asdict(state))


def read_events(folder: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Events from byte `offset` on, and the offset to ask from next time. A line still being written waits."""
    try:
        with open(folder / "events.jsonl", "rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    complete = data[: data.rfind(b"\n") + 1]
    found = []
    for line in complete.decode("utf-8", "replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a line torn by a crash says nothing
            found.append(events.from_line(line))
    return found, offset + len(complete)


def list_runs(root: Path | None = None) -> list[Run]:
    """Runs, newest first."""
    root = root or home() / "runs"
    return [run for run in map(_describe, sorted(_folders(root), key=lambda f: f.name, reverse=True))]


def _folders(root: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from (f for f in root.iterdir() if (f / "config.toml").is_file())


def _describe(folder: Path) -> Run:
    match = re.match(r"(\d{8}-\d{6})-(.+)", folder.name)
    started = datetime.fromtimestamp((folder / "config.toml").stat().st_mtime)
    if match:
        with contextlib.suppress(ValueError):
            started = datetime.strptime(match[1], "%Y%m%d-%H%M%S")
    return Run(folder, match[2] if match else folder.name, read_state(folder), started)


def find(run_id: str, root: Path | None = None) -> Path | None:
    """The folder of a run by its id (the folder's name); None for anything that is not one."""
    folder = (root or home() / "runs") / run_id
    return folder if run_id and Path(run_id).name == run_id and (folder / "config.toml").is_file() else None


def folder_of(text: str) -> Path:
    """A run's folder, by its path or by its name among our runs; ValueError where there is none."""
    for folder in (Path(text).expanduser(), find(text)):
        if folder and (folder / "config.toml").is_file():
            return folder.resolve()
    raise ValueError(f"There is no run at {text}: give its folder, the one with config.toml in it.")


def checkpoints(folder: Path) -> list[Path]:
    """The run's LoRA files by step, then the best, the final one last. Their times say nothing in a copied folder."""

    def order(path: Path) -> tuple[float, bool]:
        number = step_of(path)
        return (math.inf, not is_best(path)) if number is None else (number, False)

    return sorted((folder / "checkpoints").glob("*.safetensors"), key=order)


def is_best(checkpoint: Path) -> bool:
    """Whether a LoRA file is that of the lowest held-out loss, cat-best.safetensors, and no final one of a run so called."""
    stem, folder = checkpoint.stem, checkpoint.parent.parent.name
    final = re.search(rf"-{re.escape(stem)}(-\d+)?$", folder)
    return stem.endswith(BEST) and not final


def saved_step(folder: Path) -> int | None:
    """The step that a resume goes on from; None for a run that has saved none."""
    names = [path.stem for path in (folder / "state").glob("*.pt")]
    if names == ["latest"]:  # of version 0.1.0
        return read_state(folder).step
    return max((int(name) for name in names if name.isdecimal()), default=None)


def step_of(checkpoint: Path) -> int | None:
    """The step in the name of a LoRA file, cat-000050.safetensors; None for the final one, which has no number."""
    number = re.search(r"-(\d{6,})$", checkpoint.stem)
    return int(number[1]) if number else None


def versions() -> dict[str, str]:
    """What the run was made with."""
    packages = ("lora-sd", "torch", "diffusers", "transformers", "accelerate", "safetensors", "gradio")
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def safe_name(name: str) -> str:
    """A file name that every system takes: letters of any script, digits, `._-`; never empty, never a device name."""
    kept = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", name)).strip("._")[:80]
    kept = kept.encode()[:160].decode(errors="ignore").strip("._") or "lora"  # a file system counts bytes
    reserved = re.fullmatch(
        r"(con|prn|aux|nul|conin|conout|com[\d¹²³]|lpt[\d¹²³])(\..*)?", kept, re.IGNORECASE
    )
    return f"{reserved[1]}_{reserved[2] or ''}" if reserved else kept  # con.txt is a device as con is
