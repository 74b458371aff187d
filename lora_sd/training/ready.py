"""From settings to all that a run works with: pictures and captions encoded, the model in the form that fits, and what learns.

Everything is loaded on the CPU; each part of the model is on the card only while it has work there.
"""

import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .. import errors, footprint, hardware, length, run
from ..data import cache
from ..data.buckets import Rules
from ..data.folder import Example
from ..footprint import Rung
from ..length import Epoch
from ..lora import layers, metadata
from ..lora.dropout import Dropout
from ..models import fast
from ..models.family import Models
from ..models.load import load
from ..models.words import Rows
from ..settings import TrainConfig
from . import adapter, class_pictures, examples, memory, prepare, word
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
    adapter.check(config)
    word.check(config)
    with errors.about("pictures"):
        train_on, held_out = look(config, voice)
    voice.say("starting", f"Loading {Path(config.model.base).name}")
    device, dtype = hardware.choose(config.machine.device, config.machine.precision)
    with errors.about("model"):
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
    data, apart = encode(config, models, device, train_on, held_out, world, voice)
    dropout = adapter.dropout_of(config.lora, world.rank)
    modules = adapter.inject(models, config.lora, config.seed, ranks, voice.note, dropout)
    if config.lora.initial != "random":
        adapter.begin_alike(models, world)
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


def look(config: TrainConfig, voice: Voice) -> tuple[list[Example], list[Example]]:
    """The pictures to train on, and those to hold out."""
    voice.say("starting", "Looking at the pictures")
    return examples.find(
        config.data, config.captions, config.validate, config.seed, on_note=voice.note, memory=_good()
    )


def _good() -> Path:
    """Where it is remembered which pictures are good."""
    return run.home() / "cache" / "good.json"


def encode(
    config: TrainConfig,
    models: Models,
    device: torch.device,
    train_on: list[Example],
    held_out: list[Example],
    world: World,
    voice: Voice,
) -> tuple[Dataset, Dataset | None]:
    """Both as latents, with the regularisation pictures that the model draws among the first."""
    settings = config.data
    resolution = settings.resolution or models.resolution
    if count := settings.regularisation_draw:
        drawn = class_pictures.draw(
            models, settings, config.preview, device, resolution=resolution, world=world, voice=voice
        )
        prior = examples.prior(train_on, settings, drawn, on_note=voice.note, memory=_good(), at_most=count)
        train_on = train_on + prior
    rules = Rules(
        settings.bucket_step,
        settings.bucket_min,
        settings.bucket_max,
        shapes=settings.buckets,
        enlarge=settings.enlarge,
    )
    into_latents = functools.partial(
        prepare.prepare,
        models=models,
        resolution=resolution,
        folder=run.home() / "cache",
        rules=rules,
        seed=config.seed,
        crops=settings.crops,
        world=world,
    )
    with memory.on_device(models, device, "vae"):
        data = encoded(train_on, into_latents, voice, "Preparing picture")
        if not held_out:
            return data, None
        # an inpainting model paints all of them
        plain = functools.partial(into_latents, crops=1, rectangles=0)
        unflipped = [replace(example, flip=False) for example in held_out]
        return data, encoded(unflipped, plain, voice, "Preparing held-out picture")


def encoded(
    pictures: list[Example], into_latents: Callable[..., Dataset], voice: Voice, words: str
) -> Dataset:
    """The pictures as latents; `words` say what is being counted."""
    dataset = into_latents(pictures, on_progress=voice.progress("caching", words))
    for note in dataset.notes():
        voice.note(note)
    return dataset


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
