"""Settings of other programs → ours: sd-scripts (kohya), its graphical interface kohya_ss, and the header of a LoRA file.

`load(path)` gives a config that trains as theirs would, as far as that is possible, and a note for each option: what it
became, what differs, or why it was left out. What a file does not set is what *their* trainer takes then.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .. import config as cfg
from ..config import TrainConfig
from ..paths import shown, typed
from ..settings import PLACES
from . import datasets, header, network, optimizers, prompts, reading
from .notes import Note
from .notes import report as report
from .table import DATASET, OPTIONS
from .translation import SETTINGS, Translation, everything, written
from .values import decimal, flag, pairs, whole, word

WINDOWS = re.compile(r"^([A-Za-z]:[\\/]|\\\\)")


class Imported(NamedTuple):
    config: TrainConfig
    notes: list[Note]
    whole: bool = False  # whether all that it does not name is at our default, too


def load(path: str | Path, *, beside: bool = True) -> Imported:
    """The config of a settings file of sd-scripts or kohya_ss, of a command line, of a LoRA's header, or of our own TOML.

    `beside`: files that it names (config_file, dataset_config, sample_prompts) are read, too. ValueError with one
    sentence for a file that has none.
    """
    path = typed(str(path), "The settings file")
    if not path.is_file():
        raise ValueError(f"There is no settings file at {shown(path)}; check its spelling.")
    if path.suffix.lower() == ".toml" and _is_ours(table := cfg.read_toml(path)):
        return _as_it_is(cfg.parse(table, path.resolve().parent if beside else None), table)
    if path.suffix.lower() == ".safetensors" and (own := header.own_settings(path)):
        return _own(own)
    given = reading.read(path, beside=beside)
    if not given.datasets and not any(option in everything() for option in given.options):
        raise ValueError(
            f"{shown(path.name)} has no setting of sd-scripts or kohya_ss in it; choose another file."
        )
    return translate(given)


def _is_ours(table: Mapping[str, Any]) -> bool:
    """Whether more of its settings are ours, in our sections, than theirs, whose sections may be called anything."""
    named = [
        (f"{section}.{name}", name)
        for section, part in table.items()
        if isinstance(part, dict)
        for name in part
    ]
    ours = sum(full in SETTINGS for full, _ in named) + ("version" in table)
    return ours > sum(name in OPTIONS for _, name in named)


def _as_it_is(config: TrainConfig, table: Mapping[str, Any]) -> Imported:
    """A file of ours, with the names that are in it."""
    names = [
        setting.name
        for setting in cfg.settings()
        if setting.name.rpartition(".")[2]
        in (table.get(setting.name.partition(".")[0], {}) if "." in setting.name else table)
    ]
    notes = [Note(name, None, "taken", f"{written(cfg.get(config, name))}.", name) for name in names]
    return Imported(config, notes, whole="version" in table)


def _own(settings: Mapping[str, Any]) -> Imported:
    """The settings in the header of one of our LoRAs; no place on a computer is ever taken from there."""
    work = Translation({}, complete=False, called={})
    for name, value in settings.items():
        if name in SETTINGS and name not in PLACES:
            work.set(name, value, name, value)
        else:
            work.note(name, value, "unknown", cfg.unknown(name))
    return Imported(work.config, work.notes, whole=True)


def translate(given: reading.Given) -> Imported:
    """Options by sd-scripts' names → ours. Each of them is in the notes."""
    work = Translation(given.options, complete=given.complete, called=given.called)
    datasets.translate(work, given.datasets)
    if given.options:
        network.translate(work, given.sdxl)
        _optimizer(work)
        _schedule(work)
        _length(work)
    if named := work.take("dataset_config"):
        work.note("dataset_config", named, "ignored", "that file was not read; import it by itself.")
    _noise(work)
    _loss(work)
    _model(work, given.sdxl)
    path = reading.look_for(
        given, work.rest.get("sample_prompts"), "sample_prompts", ".txt", ".toml", ".json"
    )
    prompts.translate(work, given.prompts, path)
    work.one_by_one({**{name: option for name, option in DATASET.items() if not option.ours}, **OPTIONS})
    work.finish(everything())
    _paths(work, given.beside)
    return Imported(work.config, work.notes)


def _optimizer(work: Translation) -> None:
    old = {"use_8bit_adam": "AdamW8bit", "use_lion_optimizer": "Lion"}
    for option, name in old.items():
        if work.take(option, flag):
            work.rest.setdefault("optimizer_type", name)
    given, name = work.rest.get("optimizer_type"), work.take("optimizer_type", word)
    args = work.take("optimizer_args", pairs) or {}
    if name is None and not work.complete:
        return
    found = optimizers.found(name or "AdamW")
    if name:
        work.set("optimizer_type", given, "optim.optimizer", found.ours)
    given_decay = args.pop("weight_decay", None)
    decay = found.weight_decay if given_decay is None else given_decay
    work.set("optimizer_args weight_decay", given_decay, "optim.weight_decay", decay)
    if found.ours == "Adafactor":
        _adafactor(work, args)
    arguments = {**found.arguments, **args}
    if arguments:
        work.set("optimizer_args", args or None, "optim.arguments", arguments)


def _adafactor(work: Translation, args: dict[str, Any]) -> None:
    """Its own rate is not here: with relative_step, as it is there unless set, what is set as a rate is left aside."""
    if args.pop("relative_step", True) in (True, "True", "true") or args.get("warmup_init") is True:
        args["warmup_init"] = False
        work.note(
            "optimizer_args relative_step", True, "ignored",
            "Adafactor takes its rate from optim.learning_rate here, there it finds its own.",
        )  # fmt: skip


def _schedule(work: Translation) -> None:
    kind = work.take("lr_scheduler_type", word) or ""
    given, name = work.rest.get("lr_scheduler"), work.take("lr_scheduler", word)
    if name or kind:
        ours, but = optimizers.schedule((name or "constant").lower(), kind)
        work.set("lr_scheduler_type" if kind else "lr_scheduler", kind or given, "optim.schedule", ours, but)
    for option, ours, read, schedule in (
        ("lr_scheduler_num_cycles", "optim.cycles", whole, "cosine_with_restarts"),
        ("lr_scheduler_power", "optim.power", decimal, "polynomial"),
    ):
        given, value = work.rest.get(option), work.take(option, read)
        if work.config.optim.schedule == schedule and (value is not None or work.complete):
            work.set(option, given, ours, 1 if value is None else value)
    given, warmup = work.rest.get("lr_warmup_steps"), work.take("lr_warmup_steps", decimal)
    if warmup and name in (None, "constant") and not kind and work.complete:
        work.note("lr_warmup_steps", given, "ignored", "the schedule constant has no warm-up there.")
    elif warmup:
        steps = f"{100 * warmup:g}%" if warmup < 1 else int(warmup)
        work.set("lr_warmup_steps", given, "optim.warmup", steps)


def _length(work: Translation) -> None:
    """Epochs go before steps; neither set is 1600 steps, there."""
    given, steps = work.rest.get("max_train_steps"), work.take("max_train_steps", whole)
    epochs, count = work.rest.get("max_train_epochs"), work.take("max_train_epochs", whole)
    if count is not None:
        work.set("max_train_epochs", epochs, "optim.epochs", count)
    elif steps is not None or work.unset("max_train_steps"):
        work.set("max_train_steps", given, "optim.steps", 1600 if steps is None else steps)


def _noise(work: Translation) -> None:
    given, scale = work.rest.get("adaptive_noise_scale"), work.take("adaptive_noise_scale", decimal)
    if scale and work.has("noise_offset"):
        work.set("adaptive_noise_scale", given, "noise.offset_adaptive", scale)
    elif scale:
        work.note("adaptive_noise_scale", given, "ignored", "without noise_offset it does nothing there.")


def _loss(work: Translation) -> None:
    if work.take("debiased_estimation_loss", flag):
        but = "min_snr_gamma is left aside, there both act" if work.has("min_snr_gamma") else ""
        work.set("debiased_estimation_loss", True, "loss.weighting", "debiased", but)
    given, scale = work.rest.get("huber_scale"), work.take("huber_scale", decimal)
    if scale is not None and scale != 1:
        if work.rest.get("huber_schedule") in ("exponential", "constant"):
            work.set("huber_scale", given, "loss.huber_scale", scale)
        else:
            work.note("huber_scale", given, "ignored", "it does nothing there for the schedule snr.")


def _model(work: Translation, sdxl: bool | None) -> None:
    if sdxl and work.has("clip_skip"):
        if work.take("clip_skip", whole) not in (None, 1, 2):
            work.note(
                "clip_skip", 2, "ignored", "SDXL has its own layer of the text encoders, there and here."
            )


def _paths(work: Translation, folder: Path | None) -> None:
    """Relative paths are those below the folder of the file; one of another system is told."""
    places = cfg.places(work.config)
    foreign = [
        name for name, value in places.items() if WINDOWS.match(value) and not Path(value).is_absolute()
    ]
    for name in foreign:
        work.note(name, places[name], "differs", "a path of Windows; write where it is on this computer.")
    if folder and not foreign:
        work.config = cfg.parse(work.config.model_dump(), folder)
