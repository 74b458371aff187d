"""The real trainer in processes that can be killed, and what a run comes to, for comparing.

A trainer is a fork of this process, which has imported torch already: to start one costs what loading the model costs.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_sd import __main__ as cli
from lora_sd import events, run
from lora_sd.training import train as _  # noqa: F401  imported once, here

Operation = Callable[[str], None]  # called at each file operation with its name


def start(folder: Path, on_operation: Operation | None = None, *options: str) -> int:
    """`lora_sd resume FOLDER` in a child process; gives its number. `on_operation` runs in the child."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        with open(folder / "log.txt", "ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if on_operation:
            watch_files(on_operation)
        code = cli.main(["resume", str(folder), *options])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def watch_files(on_operation: Operation) -> None:
    """Before this process opens a file to write, renames or removes one, or makes sure that one is on the disk."""
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        on_operation(f"fsync {os.readlink(f'/proc/self/fd/{descriptor}')}")
        sync(descriptor)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if f"{os.sep}commands{os.sep}" in str(arguments[:1]):
            return  # looked for after every step, and seldom there
        if event in ("os.rename", "os.remove", "os.truncate"):
            on_operation(f"{event} {arguments[0]}")
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            on_operation(f"open {arguments[0]}")

    os.fsync = fsync
    sys.addaudithook(audit)


def counting(path: Path) -> Operation:
    """Appends a byte to `path` for each operation: how many there were."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    return lambda name: os.write(descriptor, b".") and None


def dying_at(number: int, last_words: Path) -> Operation:
    """Kills its own process at the operation of that number, whose name it leaves in `last_words`."""
    left = [number]
    descriptor = os.open(last_words, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def count(name: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.write(descriptor, name.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    return count


def wait(pid: int, seconds: float | None = None) -> int | None:
    """How a process ended (its exit code, or minus its signal); None while it goes on after `seconds`."""
    until = time.monotonic() + (seconds if seconds is not None else 600)
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def kill(pid: int) -> int:
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run leaves, without clock times: tensors of its files, its states, previews, losses."""
    told = run.read_events(folder)[0]
    steps = {e.step: (e.loss, e.held_out, e.learning_rate) for e in told if isinstance(e, events.Step)}
    return {
        "files": {path.name: body(path) for path in sorted((folder / "checkpoints").rglob("*.safetensors"))},
        "previews": {path.name: path.read_bytes() for path in sorted((folder / "previews").iterdir())},
        "steps": steps,
        "state": _state(folder),
        "settings": (folder / "config.toml").read_text(),
        "began": json.loads((folder / "state" / "began.json").read_text()),
    }


def _state(folder: Path) -> Any:
    from lora_sd.training import state

    values = state.read(folder / "state")
    values.pop("seconds")
    return repr(plain(values))


def plain(value: Any) -> Any:
    """Tensors as their bytes, inside whatever holds them."""
    if hasattr(value, "numpy"):
        return value.detach().numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def body(path: Path) -> bytes:
    """The tensors' bytes of a LoRA file: its header tells the time."""
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]
