"""How a run that ended early can go on: the options of `lora_sd resume` for each code of errors.py, for the command line and the page."""

from pathlib import Path

from . import config as cfg
from . import run
from .config import TrainConfig
from .events import Failed
from .footprint import RUNGS

SMALLEST = 256  # pixels of a side that is made smaller
Options = tuple[str, ...]


def options(folder: Path, failure: Failed) -> Options | None:
    """The options that the run of `folder` goes on with; None where something has to be mended first.

    Raises ValueError where its settings can't be read.
    """
    match failure.code:
        case "memory":
            return less_memory(cfg.load(folder / "config.toml"), failure.rung)
        case "numbers":
            return half_the_rate(cfg.load(folder / "config.toml"))
        case "changed":
            more = run.read_state(folder).extend  # refused with the changes, so still to be done
            return (*(("--extend", more) if more else ()), "--accept-changes")
        case "model" | "pictures" | "input":
            return None
    return ()


def less_memory(config: TrainConfig, rung: str = "") -> Options | None:
    """One step down: the next way to save memory, else half the batch in twice as many parts, else smaller pictures."""
    names = [each.name for each in RUNGS]
    now = max(names.index(name) for name in (config.machine.memory, rung, names[0]) if name in names)
    if now + 1 < len(names):
        return ("--machine.memory", names[now + 1])
    optim, side = config.optim, config.data.resolution or 0
    if optim.batch_size > 1:
        half, parts = optim.batch_size // 2, optim.accumulation * 2
        return ("--optim.batch_size", str(half), "--optim.accumulation", str(parts), "--accept-changes")
    if side > SMALLEST:
        smaller = max(SMALLEST, side * 3 // 4 // 64 * 64)
        return ("--data.resolution", str(smaller), "--accept-changes")
    return None


def half_the_rate(config: TrainConfig) -> Options:
    rates = [f"{rate / 2:g}" for rate in config.optim.text_encoder_rate]
    of_text = ("--optim.text_encoder_rate", *rates) if rates else ()
    return ("--optim.learning_rate", f"{config.optim.learning_rate / 2:g}", *of_text, "--accept-changes")


def command(folder: Path, failure: Failed) -> str:
    """The command that goes on; "" where something has to be mended first."""
    try:
        found = options(folder, failure)
    except ValueError:
        return ""
    return "" if found is None else " ".join(["python -m lora_sd resume", str(folder), *found])
