"""Runs of a tiny model, short enough for a test, and what to look at after them."""

import itertools

from lora_sd import config as cfg
from lora_sd import events, run
from lora_sd.training import loop


def config_for(base, pictures, **changes):
    quick = {
        "model.base": str(base),
        "data.images": str(pictures),
        "lora.rank": 2,
        "optim.steps": 4,
        "optim.batch_size": 2,
        "optim.learning_rate": 1e-2,
        "preview.every": 0,
        "save.every": 0,
        "save.dtype": "fp32",
    }
    return cfg.changed(cfg.changed(cfg.TrainConfig(), quick), changes)


def stop_at(step, word="stop"):
    """An `on_event` that asks for `word` when `step` is done."""

    def listen(event):
        if isinstance(event, events.Step) and event.step == step:
            run.command(run.list_runs()[0].folder, word)

    return listen


def body(path):
    """The tensors' bytes of a file: the header tells the time."""
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def at_calls(monkeypatch, calls, change):
    """Let `change` have the losses of these calls of the loss, counted from 1."""
    real, count = loop.denoising_loss, itertools.count(1)

    def changed(*args, **options):
        losses = real(*args, **options)
        return change(losses) if next(count) in calls else losses

    monkeypatch.setattr(loop, "denoising_loss", changed)


def told(folder=None):
    """The events of a run, the newest unless given."""
    return run.read_events(folder or run.list_runs()[0].folder)[0]


def notes(folder=None):
    return [event.text for event in told(folder) if isinstance(event, events.Note)]
