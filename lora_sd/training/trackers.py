"""What a run tells, for those who compare runs elsewhere: tensorboard in the run's folder, or Weights & Biases on the network.

They are asked for, begin before anything is loaded, and never stop a training: one that fails is told of once and left alone.
"""

import hashlib
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..events import Event, Preview, Step
from ..paths import shown

PROJECT = "lora_sd"  # of Weights & Biases
LONGEST_PROMPT = 80  # letters in the name of a picture


class Tracker(Protocol):
    """Takes numbers and pictures of steps that go up; from a step that was told already, it is told anew."""

    def log(self, values: dict[str, float], step: int) -> None: ...

    def show(self, name: str, picture: np.ndarray, step: int) -> None: ...

    def close(self) -> None: ...


class Tensorboard:
    """In RUN/tensorboard; a run that goes on from an earlier step hides what was told after that step."""

    def __init__(self, folder: Path):
        self.folder, self.tracker, self.last = folder, None, -1

    def log(self, values: dict[str, float], step: int) -> None:
        if self.tracker is None or step <= self.last:
            self.close()
            self._open(step)
        self.last = step
        self.tracker.log(values, step=step)

    def _open(self, step: int) -> None:
        from accelerate.tracking import TensorBoardTracker

        self.tracker = TensorBoardTracker(self.folder.name, self.folder / "tensorboard", purge_step=step)
        self.tracker.start()

    def show(self, name: str, picture: np.ndarray, step: int) -> None:
        if self.tracker:
            self.tracker.log_images({name: picture[None]}, step=step, dataformats="NHWC")

    def close(self) -> None:
        if self.tracker:
            self.tracker.finish()


class Wandb:
    """Steps of a resumed run that Weights & Biases has heard of before are not told again: it takes no step twice."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        import wandb
        from accelerate.tracking import WandBTracker

        self.tracker = WandBTracker(
            PROJECT,
            name=folder.name,
            id=hashlib.sha256(folder.name.encode()).hexdigest()[:16],
            resume="allow",
            dir=str(folder),
            config=dict(settings),
            # what the terminal shows and the program's code stay here
            settings=wandb.Settings(console="off", disable_code=True, disable_git=True),
        )
        self.tracker.start()
        self.last = self.tracker.run.step - 1

    def log(self, values: dict[str, float], step: int) -> None:
        if step > self.last:
            self.last = step
            self.tracker.log(values, step=step)

    def show(self, name: str, picture: np.ndarray, step: int) -> None:
        if step == self.last:
            self.tracker.log_images({name: [picture]}, step=step)

    def close(self) -> None:
        self.tracker.finish()


class Trackers:
    """An `on_event` that passes on what trackers take. `rates` are factors on the learning rate, by the name they show under."""

    def __init__(
        self,
        trackers: Mapping[str, Tracker],
        folder: Path,
        rates: Mapping[str, float],
        on_note: Callable[[str], None],
    ):
        self.trackers, self.folder, self.rates, self.on_note = dict(trackers), folder, rates, on_note

    def __call__(self, event: Event) -> None:
        if isinstance(event, Step):
            values = numbers(event, self.rates)  # nothing in step 0, whose pictures come
            self._all(lambda tracker: tracker.log(values, event.step))
        elif isinstance(event, Preview):
            name = f"previews/{event.index} {event.prompt[:LONGEST_PROMPT]}"
            self._all(lambda tracker: tracker.show(name, pixels(self.folder / event.path), event.step))

    def close(self) -> None:
        self._all(lambda tracker: tracker.close())
        self.trackers.clear()

    def _all(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                act(tracker)
            except Exception as error:  # of a stranger's code, a full disk or the network
                del self.trackers[name]
                self.on_note(
                    f"{name} failed ({reason(error)}) and hears no more of this run; the training goes on."
                )


def start(
    names: Sequence[str],
    folder: Path,
    *,
    settings: Mapping[str, Any],
    rates: Mapping[str, float],
    on_note: Callable[[str], None],
) -> Trackers:
    """The trackers of a run, `settings` being what they may show of it.

    Raises ValueError with a sentence where one is not installed, or can't begin.
    """
    names = list(dict.fromkeys(names))
    for name in names:
        _check(name)
    if names:
        from accelerate import PartialState

        PartialState()  # accelerate's trackers write to a log that needs it
    begun: dict[str, Tracker] = {}
    for name in names:
        try:
            begun[name] = Tensorboard(folder) if name == "tensorboard" else Wandb(folder, settings)
        except Exception as error:
            raise ValueError(
                f"{name} can't begin ({reason(error)}); run `wandb login`, set WANDB_MODE=offline to send it later, or "
                f"take {name} out of output.trackers."
            ) from error
    return Trackers(begun, folder, rates, on_note)


def _check(name: str) -> None:
    module = "torch.utils.tensorboard" if name == "tensorboard" else name
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"output.trackers has {name}, which is not installed; install it with: python -m pip install {name}, "
            "or leave it out."
        ) from error


def numbers(event: Step, rates: Mapping[str, float]) -> dict[str, float]:
    """What a step has for curves."""
    rate = event.learning_rate
    found = {
        "loss/train": event.loss,
        "loss/held_out": event.held_out,
        "norm/gradient": event.gradient_norm,
        **{f"rate/{name}": None if rate is None else rate * factor for name, factor in rates.items()},
    }
    return {name: value for name, value in found.items() if value is not None}


def pixels(path: Path) -> np.ndarray:
    """(H, W, 3) uint8"""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def reason(error: Exception) -> str:
    """The first line of what went wrong, without a key that it may hold."""
    text = str(error).strip().partition("\n")[0] or type(error).__name__
    for secret in filter(None, [os.environ.get("WANDB_API_KEY")]):
        text = text.replace(secret, "…")
    return shown(text).rstrip(".")
