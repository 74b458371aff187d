"""What a run needs to go on exactly where it was: adapters, a word of its own, optimizer, loss scale, the step, and what went wrong so far.

Order and randomness are functions of (seed, step), so no generator and no place in the data is saved. A state is a file of
its own, state/000050.pt: 32 bytes of SHA-256, then what torch wrote. The one before stays until the next one is complete.
"""

import hashlib
import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..files import written
from ..lora import layers
from .update import Update

KEPT = 2  # the newest, and the one before in case the disk loses that
FIRST_VERSION = "latest.pt"  # of version 0.1.0: no checksum, no number
DAMAGED = (RuntimeError, EOFError, ValueError, KeyError, OSError)


class Progress(NamedTuple):
    """How far a run is."""

    step: int = 0
    seconds: float = 0.0  # of training until then
    rate_factor: float = 1.0  # on the learning rate: halved when the run went back to a good state
    left_out: int = 0  # steps that changed nothing, for their loss or gradient was no number
    rung: str = ""  # of the memory ladder
    best_loss: float | None = None  # the lowest held-out loss so far, where the best file is kept
    best_step: int = 0


def save(folder: Path, progress: Progress, parts: dict[str, nn.Module], update: Update) -> None:
    """Write a state; until it is complete the ones before stay. Raises OSError, and ArithmeticError for one with NaN."""
    if not update.vector.values.isfinite().all():
        raise ArithmeticError(f"The weights of step {progress.step} are not all numbers, and were not saved.")
    values = {
        **progress._asdict(),
        "adapters": {
            name: tuple(tensor.clone() for tensor in low_rank.tensors)
            for name, low_rank in layers.low_ranks(parts)
        },
        "word": [rows.vectors.detach().clone() for rows in update.vector.rows],
        "optimizer_name": type(update.optimizer).__name__,
        "update": update.state_dict(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with written(folder / f"{progress.step:06d}.pt") as file:
        hashed = _Hashed(file)
        file.write(bytes(hashed.sha.digest_size))
        torch.save(values, hashed)
        if hashed.error:
            raise hashed.error
        file.seek(0)
        file.write(hashed.sha.digest())
    _tidy(folder, progress.step)


def _tidy(folder: Path, step: int) -> None:
    """Keep the state of `step` and those before it that are to be kept; later ones are of a way that was given up."""
    later = [path for path in _newest_first(folder) if _step(path) > step]
    before = [path for path in _newest_first(folder) if _step(path) < step]
    for path in [*later, *before[KEPT - 1 :], folder / FIRST_VERSION]:
        path.unlink(missing_ok=True)


class _Hashed(io.RawIOBase):
    """Writes on to a file, and hashes what goes through. Keeps an OSError of the file, which torch would translate."""

    def __init__(self, file: IO[bytes]):
        self.file, self.sha = file, hashlib.sha256()
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha.update(data)
        try:
            if self.error is None:
                self.file.write(data)
        except OSError as error:
            self.error = error
        return len(data)


def read(folder: Path) -> dict[str, Any] | None:
    """The newest state that is whole, on the CPU; None where there is none."""
    found = (_read(path) for path in [*_newest_first(folder), folder / FIRST_VERSION] if path.is_file())
    return next((values for values in found if values is not None), None)


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("*.pt") if path.stem.isdecimal()), key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.stem)


def _read(path: Path) -> dict[str, Any] | None:
    """The state in a file; None where it is damaged: cut short, changed on the disk, or no state.

    Raises ValueError for one that is whole, and holds more than numbers: it is never opened, and not passed over in silence.
    """
    try:
        data = path.read_bytes()
        start = 0 if path.name == FIRST_VERSION else 32
        if start and hashlib.sha256(memoryview(data)[start:]).digest() != data[:start]:
            return None
        return torch.load(io.BytesIO(memoryview(data)[start:]), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if path.name == FIRST_VERSION:  # whose damage nothing else tells
            return None
        raise ValueError(
            f"{path} holds more than numbers, and is not opened; move it away, and the run goes on from the state before, "
            "or begins anew."
        ) from error
    except DAMAGED:
        return None


def progress_of(values: dict[str, Any]) -> Progress:
    return Progress(**{name: values[name] for name in Progress._fields if name in values})


def restore(values: dict[str, Any], parts: dict[str, nn.Module], update: Update) -> Progress:
    """Put a state in place; gives how far the run was."""
    mine = {name: low_rank.tensors for name, low_rank in layers.low_ranks(parts)}
    if _shapes(values["adapters"]) != _shapes(mine):
        raise ValueError(
            "The saved state of this run is of a LoRA with other layers or ranks, or of another kind; put lora.rank, "
            "lora.targets, lora.ranks, lora.dora and lora.initial back, or start a new run from its file: lora.start."
        )
    rows, words = update.vector.rows, values.get("word", [])
    if [vectors.shape for vectors in words] != [one.vectors.shape for one in rows]:
        raise ValueError(
            "The saved state of this run has another number of vectors for the trigger word; put embedding.tokens back, or "
            "start a new run."
        )
    with torch.no_grad():
        for name, tensors in mine.items():
            for here, there in zip(tensors, values["adapters"][name], strict=True):
                here.copy_(there)
        for one, vectors in zip(rows, words, strict=True):
            one.vectors.copy_(vectors)
    update.vector.renew()
    if fits(values, update):
        update.load_state_dict(values.get("update") or _of_matrices(values, update))
    else:
        update.begin_anew()
    return progress_of(values)


def _shapes(adapters: Mapping[str, Sequence[Tensor]]) -> dict[str, list[torch.Size]]:
    return {name: [tensor.shape for tensor in tensors] for name, tensors in adapters.items()}


def fits(values: dict[str, Any], update: Update) -> bool:
    """Whether the optimizer can go on with what it remembered; another one, or one of other groups, begins anew."""
    if values.get("optimizer_name", "AdamW") != type(update.optimizer).__name__:
        return False
    return "update" not in values or update.fits(values["update"])


def _of_matrices(values: dict[str, Any], update: Update) -> dict[str, Any]:
    """The update's state in a run of version 0.1.0, whose optimizer kept each matrix by itself."""
    old = values["optimizer"]
    each = [old["state"][index] for index in sorted(old["state"])]
    joined = {name: update.vector.join([state[name] for state in each]) for name in ("exp_avg", "exp_avg_sq")}
    group = {**old["param_groups"][0], "params": [0], "fused": True}
    optimizer = {"state": {0: {"step": each[0]["step"], **joined}}, "param_groups": [group]}
    return {"optimizer": optimizer, "scale": {}}
