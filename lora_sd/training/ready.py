"""From settings to all that a run works with: pictures and captions encoded, the model in the form that fits, and what learns.

Everything is loaded on the CPU; each part of the model is on the card only while it has work there.
"""

import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .. import footprint, hardware, length, run
from ..data import cache
from ..data.buckets import Rules
from ..data.folder import Example
from ..footprint import Rung
from ..length import Epoch
from ..lora import formats, layers, metadata, targets, warm
from ..lora.dropout import Dropout
from ..models import fast
from ..models.family import Models
from ..models.load import load
from ..models.words import Rows
from ..settings import LoraSettings, TrainConfig
from . import class_pictures, examples, memory, prepare, word
from .feed import Text
from .prepare import Dataset
from .vector import Vector
from .voice import Voice
from .world import World


@dataclass
class Ready:
    """What a run works with."""

    device: torch.device
    models: Models  # with adapters, on the device as far as it trains
    base: str  # identity of the U-Net before anything was done to it
    base_hashes: "Future[tuple[str, str]]"  # computed beside the rest: reading a whole model takes seconds
    data: Dataset
    held_out: Dataset | None
    text: Text
    modules: dict[str, int]  # adapted layers of each part: {"unet": 192}
    rung: Rung
    word: dict[str, Rows]  # of the trigger word by text encoder, where it learns
    vector: Vector
    dropout: Dropout | None
    epoch: Epoch
    total: int  # steps of the run


def get_ready(
    config: TrainConfig, world: World, voice: Voice, *, ranks: dict[str, int], rung: str = ""
) -> Ready:
    """All of it. Raises ValueError for what a person can mend, and Stopped where they asked to stop.

    Of a run that goes on `ranks` are those of its state, which will be put in place, and `rung` where on the memory
    ladder it was.
    """
    check_adapter(config)
    word.check(config)
    voice.say("starting", "Looking at the pictures")
    good = run.home() / "cache" / "good.json"
    train_on, held_out = examples.find(
        config.data, config.captions, config.validate, config.seed, on_note=voice.note, memory=good
    )
    voice.say("starting", f"Loading {Path(config.model.base).name}")
    device, dtype = hardware.choose(config.machine.device, config.machine.precision)
    models = load(
        config.model.base,
        dtype=dtype,
        prediction=config.model.prediction,
        zero_snr=config.model.zero_snr,
        clip_skip=config.model.clip_skip,
        weighted=config.captions.weights,
    )
    base = cache.identity(models.unet)
    memorized = run.home() / "cache" / "hashes.json"
    base_hashes = ThreadPoolExecutor(1).submit(metadata.base_hashes, models.path, memorized)
    resolution = config.data.resolution or models.resolution
    if config.data.regularisation_draw:
        drawn = class_pictures.draw(
            models, config.data, config.preview, device, resolution=resolution, world=world, voice=voice
        )
        count = config.data.regularisation_draw
        train_on += examples.prior(
            train_on, config.data, drawn, on_note=voice.note, memory=good, at_most=count
        )
    encode = functools.partial(
        prepare.prepare,
        models=models,
        resolution=resolution,
        folder=run.home() / "cache",
        rules=Rules(
            config.data.bucket_step,
            config.data.bucket_min,
            config.data.bucket_max,
            shapes=config.data.buckets,
            enlarge=config.data.enlarge,
        ),
        seed=config.seed,
        crops=config.data.crops,
        world=world,
    )
    with memory.on_device(models, device, "vae"):
        data = encoded(train_on, encode, voice, "Preparing picture")
        plain = functools.partial(encode, crops=1, rectangles=0)  # an inpainting model paints all of them
        apart = (
            encoded([replace(e, flip=False) for e in held_out], plain, voice, "Preparing held-out picture")
            if held_out
            else None
        )
    dropout = dropout_of(config.lora, world.rank)
    modules = inject(models, config.lora, config.seed, ranks, voice.note, dropout)
    if config.lora.initial != "random":
        begin_alike(models, world)
    rows = word.begin(models, config, start="" if ranks else config.lora.start, on_note=voice.note)
    if not (modules or rows):
        raise ValueError(
            "lora.targets is none, so nothing would learn; set embedding.tokens, or other layers."
        )
    epoch = data.epoch(config.optim.batch_size, config.optim.accumulation)
    total = length.total(config.optim, epoch)
    batches = total * config.optim.accumulation
    captions = data.texts(batches, config.optim.batch_size) + (apart.captions() if apart else [])
    if rows:
        word.check_captions(config.data.trigger, captions)
    text = read_captions(captions, models, device, world, voice)
    largest = max(w * h for w, h in data.bucket_counts())
    placed = place(models, device, config, largest, world, voice, at_least=rung)
    if dropout:
        dropout.to(device)
    low_ranks = (low_rank for _, low_rank in layers.low_ranks(models.parts()))
    vector = Vector(low_ranks, models.dtype, rows.values())
    return Ready(
        device,
        models,
        base,
        base_hashes,
        data,
        apart,
        text,
        modules,
        placed,
        rows,
        vector,
        dropout,
        epoch,
        total,
    )


def encoded(pictures: list[Example], encode: Callable[..., Dataset], voice: Voice, words: str) -> Dataset:
    """The pictures as latents; `words` say what is being counted."""
    dataset = encode(pictures, on_progress=voice.progress("caching", words))
    for note in dataset.notes():
        voice.note(note)
    return dataset


def dropout_of(settings: LoraSettings, process: int) -> Dropout | None:
    shares = (settings.dropout, settings.rank_dropout, settings.module_dropout)
    return Dropout(*shares, process=process) if any(shares) else None


def check_adapter(config: TrainConfig) -> None:
    """ValueError for settings of the adapter that can't go together."""
    settings = config.lora
    if settings.dora == "input" and config.save.layout == "peft":
        raise ValueError(
            "lora.dora is input, and files of the peft layout hold magnitudes of outputs alone; set save.layout to kohya, "
            "or lora.dora to output."
        )
    other = next((name for name in ("start", "max_norm") if getattr(settings, name)), None)
    if settings.initial == "pissa" and other:
        raise ValueError(
            f"lora.initial is pissa, which begins in the base model itself and does not go with lora.{other}; leave one of them out."
        )


def inject(
    models: Models,
    settings: LoraSettings,
    seed: int,
    begun: dict[str, int],
    on_note: Callable[[str], None],
    dropout: Dropout | None = None,
) -> dict[str, int]:
    """Put new adapters on the model, with the update of lora.start in them; gives how many layers of each part have one.

    `begun` are the ranks in the state of a run that goes on: it needs its lora.start no more.
    """
    parts = models.parts()
    ranks = targets.resolve(
        parts,
        settings.targets,
        rank=settings.rank,
        conv_rank=settings.conv_rank,
        patterns=settings.ranks,
        text_encoders=settings.text_encoders,
    )
    started = formats.load(settings.start, parts, models.family) if settings.start and not begun else None
    if settings.start and begun:
        ranks = begun
    if started:
        for note in warm.notes(ranks, started.pairs, started.unused, Path(settings.start).name):
            on_note(note)
        warm.check_kind(started.pairs, parts, settings.dora, Path(settings.start).name)
        ranks = warm.ranks_for(ranks, started.pairs)
    scales = targets.scales(
        parts,
        ranks,
        rank=settings.rank,
        alpha=settings.alpha or settings.rank / 2,
        conv_rank=settings.conv_rank,
        conv_alpha=settings.conv_alpha,
        patterns=settings.alphas,
        rank_stabilized=settings.rank_stabilized,
    )
    layers.inject(
        parts,
        ranks,
        scales,
        seed=seed,
        dropout=dropout,
        train_down=settings.train_down,
        initial=settings.initial,
        magnitudes=None if settings.dora == "off" else settings.dora,
    )
    if started:
        warm.fill(parts, started.pairs)
    for part in parts.values():
        part.train()  # dropout acts, and checkpointing where it is on
    counts = {part: sum(name.startswith(f"{part}.") for name in ranks) for part in parts}
    return {part: count for part, count in counts.items() if count}


@torch.no_grad()
def begin_alike(models: Models, world: World) -> None:
    """Every process has the adapters of the first: another machine may round a decomposition otherwise."""
    mine = [tensor for _, low_rank in layers.low_ranks(models.parts()) for tensor in low_rank.tensors]
    for here, there in zip(mine, world.agree(mine), strict=True):
        here.copy_(there)


def read_captions(
    captions: list[str], models: Models, device: torch.device, world: World, voice: Voice
) -> Text:
    """Captions → text states: encoded anew in each pass while the encoders learn, else once."""
    if models.encoders_learn:
        return prepare.learning_text(models)
    progress = voice.progress("caching", "Reading caption")
    with memory.on_device(models, device, "text_encoders"):
        return prepare.cached_text(models, captions, run.home() / "cache", on_progress=progress, world=world)


def place(
    models: Models,
    device: torch.device,
    config: TrainConfig,
    pixels: int,
    world: World,
    voice: Voice,
    *,
    at_least: str = "",
) -> Rung:
    """Bring what trains to the card, in the form that fits; `pixels` are those of the largest bucket.

    `at_least` is the rung that a resumed run was on: it had its reason, and 8 bits give other numbers.
    """
    needs = footprint.Needs(
        models.family.name,
        pixels=pixels,
        batch_size=-(-config.optim.batch_size // world.size),
        rank=config.lora.rank,
        targets=config.lora.targets,
        text_encoders=any(name.startswith("text_encoder") for name, _ in layers.low_ranks(models.parts())),
        embedding=config.embedding.tokens > 0,
        bytes_per_weight=models.dtype.itemsize,
        dora=config.lora.dora != "off",
    )
    mine, why = memory.choose_rung(config.machine.memory, device, models.unet, needs)
    before = next((rung for rung in footprint.RUNGS if rung.name == at_least), footprint.RUNGS[0])
    lowest = max(footprint.RUNGS.index(mine), footprint.RUNGS.index(before))
    rung = footprint.RUNGS[world.most(lowest, device)]
    if why:
        voice.note(why)
    memory.take_rung(models.unet, rung)
    models.place(device, "unet", *(["text_encoders"] if models.encoders_learn else []))
    fast.speed_up(models.unet)
    memory.count_from_here()
    return rung
