"""`train` and `resume`: a config or a run folder in, a LoRA file out; one process at a time, its end always recorded."""

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import config as cfg
from .. import errors, lock, run, signals
from ..config import TrainConfig
from ..events import Event, Failed, Finished, Note, OnEvent
from ..recorder import Recorder
from ..settings import PLACES
from . import sameness, trackers, world
from .resuming import to_resume
from .trackers import Trackers
from .trainer import Trainer
from .voice import Stopped
from .world import World


def train(
    config: TrainConfig,
    on_event: OnEvent | None = None,
    *,
    folder: Path | None = None,
    accept_changes: bool = False,
) -> Path:
    """Train a LoRA and give its file; everything on the way lies in the run's folder.

    `folder` is a run folder to continue; without it a new one is made. Raises ValueError, with a sentence that says how,
    for what a person can mend (`sameness.Changed` where the run was begun with other settings or pictures, unless
    `accept_changes`), and Stopped where the run was stopped before its first step. Ctrl-C stops and saves, then is
    raised. Under a launcher of several processes each calls this; the first of them writes, and `on_event` hears of it.
    """
    with signals.heard(then_raise=True):
        here = world.join(config.machine.device)
        try:
            if here.first:
                folder = folder or run.create(config)
                with lock.hold(folder, lock.in_use(folder)):
                    run.tidy(folder)
                    if run.read_state(folder).step and not accept_changes:
                        sameness.check_settings(folder / "state", config)
                    return _recorded(config, on_event, folder, here, accept_changes)
            return Trainer(config, Path(here.agree(None)), lambda event: None, here, accept_changes).go()
        finally:
            here.leave()


def resume(
    folder: Path | str,
    on_event: OnEvent | None = None,
    *,
    extend: int | str = 0,
    changes: Mapping[str, Any] | None = None,
    accept_changes: bool = False,
) -> Path:
    """Go on with the run of `folder`, `extend` steps (or "2 epochs") longer than it was to be; gives its LoRA file, as `train` does.

    `changes` are other settings, by dotted name; those that change the mathematics need `accept_changes`.
    """
    folder = Path(folder).resolve()
    config = to_resume(folder, cfg.changed(cfg.load(folder / "config.toml"), changes or {}), extend)
    return train(config, on_event, folder=folder, accept_changes=accept_changes)


def _recorded(
    config: TrainConfig, on_event: OnEvent | None, folder: Path, here: World, accept_changes: bool
) -> Path:
    """The run as its first process has it: what happens is written down, and told to `on_event`."""
    here.agree(str(folder))

    def tell(event: Event) -> None:
        recorder(event)
        for tracking in begun:
            tracking(event)
        if on_event:
            on_event(event)

    begun: list[Trackers] = []

    # before the recorder writes how long the run is now
    trainer = Trainer(config, folder, tell, here, accept_changes)
    recorder = Recorder(folder, config.optim.known_steps)
    try:
        begun.append(_trackers(config, folder, lambda words: tell(Note(words))))
        return trainer.go()
    except Stopped:
        tell(Finished(step=recorder.state.step, path="", stopped=True))
        raise
    except Exception as error:
        tell(Failed(errors.sentence(error), traceback.format_exc(), errors.code(error), trainer.rung.name))
        raise
    finally:
        for tracking in begun:
            tracking.close()
        recorder.close()


def _trackers(config: TrainConfig, folder: Path, on_note: Callable[[str], None]) -> Trackers:
    """Those of the settings. They are shown what differs from the defaults, but no places on this computer."""
    optim = config.optim
    told = {name: str(value) for name, value in cfg.differences(config).items() if name not in PLACES}
    rates = optim.text_encoder_rate if config.lora.text_encoders else []
    names = ["text_encoders"] if len(rates) == 1 else [f"text_encoder_{n}" for n in range(1, len(rates) + 1)]
    factors = {name: rate / optim.learning_rate for name, rate in zip(names, rates, strict=True)}
    return trackers.start(
        config.output.trackers, folder, settings=told, rates={"unet": 1.0, **factors}, on_note=on_note
    )
