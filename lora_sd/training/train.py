"""`train`: a config in, a LoRA file out. Here settings turn into plain values; everything below takes those.

The order is the program's one line: pictures → latents → adapters → steps → file, with previews and held-out loss on the way.
"""

import contextlib
import functools
import gc
import time
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from .. import errors, footprint, hardware, run
from ..config import TrainConfig
from ..data.folder import Example
from ..events import Event, Failed, Finished, Note, OnEvent, Phase, Saved, Step
from ..lora import formats, layers, metadata, targets
from ..models import fast
from ..models.load import load
from . import cadence, loop, memory, optim, prepare, previews, state, world
from .description import DTYPES, describe
from .feed import Feed, Text, feeds
from .graph import Passes
from .loss import HELD_OUT_T, held_out_losses
from .update import LossScale, Update
from .vector import Vector
from .world import World

MOST_LEFT_OUT = 3  # steps in a row


class Stopped(Exception):
    """Someone asked the run to stop before there was anything to save."""


def train(config: TrainConfig, on_event: OnEvent | None = None, *, folder: Path | None = None) -> Path:
    """Train a LoRA and give its file; everything on the way lies in the run's folder.

    `folder` is a run folder to continue; without it a new one is made. Raises ValueError, with a sentence that says how,
    for what a person can mend, and Stopped where the run was stopped before its first step. Under a launcher of several
    processes each calls this; the first of them writes, and `on_event` hears of it there.
    """
    here = world.join(config.machine.device)
    try:
        if here.first:
            return _recorded(config, on_event, folder or run.create(config), here)
        return _Training(config, Path(here.agree(None)), lambda event: None, here).go()
    finally:
        here.leave()


def _recorded(config: TrainConfig, on_event: OnEvent | None, folder: Path, here: World) -> Path:
    """The run as its first process has it: what happens is written down, and told to `on_event`."""
    here.agree(str(folder))
    recorder = run.Recorder(folder, config.optim.steps)

    def tell(event: Event) -> None:
        recorder(event)
        if on_event:
            on_event(event)

    try:
        return _Training(config, folder, tell, here).go()
    except Stopped:
        tell(Finished(step=recorder.state.step, path="", stopped=True))
        raise
    except Exception as error:
        failed = Failed(errors.sentence(error), traceback.format_exc())
        with contextlib.suppress(OSError):  # a full disk may be why: then only the caller can be told
            recorder(failed)
        if on_event:
            on_event(failed)
        raise
    finally:
        with contextlib.suppress(OSError):
            recorder.close()


class _Training:
    """One run while it is on."""

    def __init__(self, config: TrainConfig, folder: Path, tell: OnEvent, here: World):
        self.config, self.folder, self.tell, self.world = config, folder, tell, here
        self.started = time.time()
        self.seconds = 0.0  # of training before this process
        self.done = 0  # steps
        self.left_out = 0  # steps in a row that changed nothing
        self.modules: dict[str, int] = {}
        self.passes: Passes | None = None

    def go(self) -> Path:
        config = self.config
        self.say("starting", "Looking at the pictures")
        train_on, held_out = prepare.find(config.data, config.validate, config.seed, on_note=self.note)
        self.say("starting", f"Loading {Path(config.model.base).name}")
        self.device, dtype = hardware.choose(config.machine.device, config.machine.precision)
        if config.optim.batch_size * config.optim.accumulation < self.world.size:
            self.note(
                f"A step has fewer pictures than the {self.world.size} processes; raise optim.batch_size."
            )
        self.models = load(  # on the CPU: each part comes to the card when it has work there
            config.model.base,
            dtype=dtype,
            prediction=config.model.prediction,
            clip_skip=config.model.clip_skip,
        )
        hashing = ThreadPoolExecutor(1)  # takes seconds for a big file, and is wanted at the first save
        self.base_hashes = hashing.submit(
            metadata.base_hashes, self.models.path, run.home() / "cache" / "models.json"
        )
        with memory.on_device(self.models, self.device, "vae"):
            self.data = self.encoded(train_on, "Preparing picture")
            self.held_out = self.encoded(held_out, "Preparing held-out picture") if held_out else None
        self.inject()
        self.text = self.read_captions()
        self.place()
        self.set_up()
        return self.teach()

    # -- what the run works on ---------------------------------------------------------------------------------------

    def encoded(self, examples: list[Example], words: str) -> prepare.Dataset:
        resolution = self.config.data.resolution or self.models.resolution
        progress = self.progress("caching", words)
        dataset = prepare.prepare(
            examples, self.models, resolution, run.home() / "cache", on_progress=progress, world=self.world
        )
        for note in dataset.notes():
            self.note(note)
        return dataset

    def inject(self) -> None:
        settings, parts = self.config.lora, self.models.parts()
        alpha = settings.alpha or settings.rank / 2
        ranks = targets.resolve(
            parts,
            settings.targets,
            rank=settings.rank,
            patterns=settings.ranks,
            text_encoders=settings.text_encoders,
        )
        layers.inject(parts, ranks, alpha / settings.rank, seed=self.config.seed)
        for part in parts:
            count = sum(name.startswith(f"{part}.") for name in ranks)
            self.modules |= {part: count} if count else {}
        for part in parts.values():
            part.train()  # dropout acts, and checkpointing where it is on

    def read_captions(self) -> Text:
        """Captions → text states: encoded anew in each pass while the encoders learn, else once."""
        if self.models.encoders_learn:
            return prepare.learning_text(self.models)
        captions = self.data.captions() + (self.held_out.captions() if self.held_out else [])
        progress = self.progress("caching", "Reading caption")
        with memory.on_device(self.models, self.device, "text_encoders"):
            return prepare.cached_text(
                self.models, captions, run.home() / "cache", on_progress=progress, world=self.world
            )

    def place(self) -> None:
        """Bring what learns to the card, in the form that fits, and make one vector of it."""
        models, settings = self.models, self.config.optim
        needs = footprint.Needs(
            models.family.name,
            pixels=max(w * h for w, h in self.data.bucket_counts()),
            batch_size=-(-settings.batch_size // self.world.size),
            rank=self.config.lora.rank,
            targets=self.config.lora.targets,
            text_encoders=models.encoders_learn,
            bytes_per_weight=models.dtype.itemsize,
        )
        self.rung, why = memory.choose_rung(self.config.machine.memory, self.device, models.unet, needs)
        if why:
            self.note(why)
        memory.take_rung(models.unet, self.rung)
        models.place(self.device, "unet", *(["text_encoders"] if models.encoders_learn else []))
        fast.speed_up(models.unet)
        memory.count_from_here()
        self.vector = Vector((low_rank for _, low_rank in layers.low_ranks(models.parts())), models.dtype)

    def set_up(self) -> None:
        """Make the optimizer, and go on from the run's saved state if there is one."""
        settings = self.config.optim
        saved = self.world.agree(state.read(self.folder / "state") if self.world.first else None)
        name = "AdamW8bit" if self.rung.small_optimizer else "AdamW"
        optimizer = optim.OPTIMIZERS[saved.get("optimizer_name", "AdamW") if saved else name](
            [self.vector.values], learning_rate=settings.learning_rate, weight_decay=settings.weight_decay
        )
        scale = LossScale(self.models.dtype == torch.float16, self.device)
        self.update = Update(self.vector, optimizer, max_grad_norm=settings.max_grad_norm, scale=scale)
        if saved:
            self.done, self.seconds = state.restore(saved, self.models.parts(), self.update)

    # -- the run -----------------------------------------------------------------------------------------------------

    def teach(self) -> Path:
        settings, total = self.config.optim, self.config.optim.steps
        per_epoch = max(1, self.data.batches_per_epoch(settings.batch_size) // settings.accumulation)
        self.steps_of = functools.partial(cadence.steps_of, total=total, per_epoch=per_epoch)
        self.warmup = self.steps_of(settings.warmup)
        self.say("training", "Training")
        if self.done == 0:
            self.tell(Step(step=0, total=total, held_out=self.measure()))
            if self.steps_of(self.config.preview.every):
                self.preview(0)
        while True:
            try:
                return self.learn()
            except RuntimeError as error:
                if not self.can_step_down(error):
                    raise
            self.step_down()  # out here, where nothing holds on to what did not fit

    def can_step_down(self, error: BaseException) -> bool:
        """Whether memory ran out and there is a rung below; other processes would go on waiting in the old one."""
        return errors.out_of_memory(error) and memory.below(self.rung) is not None and self.world.size == 1

    def step_down(self) -> None:
        """Go on from the last complete step in less memory."""
        self.rung = memory.below(self.rung)
        self.tell(
            Note(f"Memory ran out after step {self.done}; training goes on from there {self.rung.title}.")
        )
        memory.take_rung(self.models.unet, self.rung)
        self.update.forget(self.done)
        self.passes = None
        gc.collect()
        memory.give_back()

    def learn(self) -> Path:
        """Train from the step that is done to the end."""
        total = self.config.optim.steps
        save_every, preview_every, check_every = map(
            self.steps_of, (self.config.save.every, self.config.preview.every, self.config.validate.every)
        )
        due = functools.partial(cadence.due, total=total)
        self.passes = self.ready_passes()
        for bunch in self.bunches(
            lambda step: any(due(step, n) for n in (save_every, preview_every, check_every))
        ):
            self.done = bunch[-1].step
            held_out = self.measure() if due(self.done, check_every) else None
            for step in [*bunch[:-1], replace(bunch[-1], held_out=held_out)]:
                self.tell(step)
            self.look_at(bunch)
            if self.asked("preview") or due(self.done, preview_every):
                self.preview(self.done)
            ending = self.world.agree(self.asked_to_end())
            if self.done == total:
                break
            if ending or due(self.done, save_every) or self.asked("save"):
                path = self.save(self.done)
            if ending:
                return self.end(path, self.done, ending)
        return self.end(self.save(total), total)

    def ready_passes(self) -> Passes:
        work = functools.partial(
            loop.forward_backward,
            self.models,
            self.text,
            self.vector,
            self.update.scale,
            self.config.loss.min_snr,
        )
        graphs = self.config.machine.cuda_graph and self.device.type == "cuda"
        passes = Passes(work, self.vector.sums, graphs=graphs, on_note=self.note)
        if graphs:
            self.say("training", "Recording a step for the card")
            passes.prepare(self.shapes())
            self.say("training", "Training")
        return passes

    def shapes(self) -> Iterator[Feed]:
        """A feed of every shape that an epoch has."""
        for part in self.data.shapes(self.config.seed, self.config.optim.batch_size, self.world):
            yield from self.feeds([part], step=0)

    def feeds(self, parts: Iterable[prepare.Part], step: int) -> Iterator[Feed]:
        return feeds(
            parts, self.text, seed=self.config.seed, step=step, num_timesteps=len(self.models.alpha_bar)
        )

    def bunches(self, ends_bunch: loop.EndsBunch) -> Iterator[list[Step]]:
        settings, total = self.config.optim, self.config.optim.steps
        self.vector.sums.zero_()
        return loop.steps(
            self.passes,
            self.update,
            self.feeds,
            self.data.endless(
                self.config.seed, settings.batch_size, self.done * settings.accumulation, self.world
            ),
            first=self.done + 1,
            last=total,
            accumulation=settings.accumulation,
            learning_rate=lambda done: (
                settings.learning_rate * optim.rate(settings.schedule, done, total, self.warmup)
            ),
            seed=self.config.seed,
            ends_bunch=ends_bunch,
            world=self.world,
        )

    def look_at(self, bunch: list[Step]) -> None:
        """Say which steps were left out; too many in a row end the run."""
        for step in bunch:
            self.left_out = self.left_out + 1 if step.left_out else 0
            if step.left_out:
                self.note(f"Step {step.step} was left out: its loss or gradient was not a number.")
            if self.left_out == MOST_LEFT_OUT:
                raise ArithmeticError(
                    f"The loss was not a number {MOST_LEFT_OUT} times in a row, up to step {step.step}; lower "
                    f"optim.learning_rate ({step.learning_rate:g}) and resume from the last save."
                )

    def asked(self, name: run.Command) -> bool:
        return self.world.first and run.take(self.folder, name)

    def asked_to_end(self) -> str:
        return next((word for word in ("stop", "pause") if self.asked(word)), "")

    def end(self, path: Path, step: int, ending: str = "") -> Path:
        if self.world.first:
            run.forget_commands(self.folder)
        self.tell(Finished(step=step, path=self.relative(path), stopped=bool(ending)))
        if ending == "pause":
            self.say("paused", f"Paused at step {step}")
        return path

    def measure(self) -> float | None:
        """The held-out loss as the LoRA is now; None where nothing is held out. The processes share the pictures."""
        if self.held_out is None:
            return None
        count = len(self.held_out.examples)
        mine = range(self.world.rank, count, self.world.size)
        pictures = prepare.held_out_inputs(self.held_out, self.models, self.text, mine)
        at_once = len(HELD_OUT_T) if self.rung is footprint.RUNGS[0] else 1
        losses = held_out_losses(self.models, pictures, seed=self.config.seed, at_once=at_once)
        return self.world.total(sum(losses), self.device) / count

    def preview(self, step: int) -> None:
        if self.world.first:
            self.say("training", f"Drawing previews of step {step}")
            settings = self.config.preview
            prompts = previews.prompts(settings, self.data.captions())
            for event in previews.draw(self.models, self.folder, step, prompts, settings, self.device):
                self.tell(event)
            self.say("training", "Training")

    def save(self, step: int) -> Path:
        """The LoRA of `step` as a file, and the state to go on from; told once both are complete."""
        final = step == self.config.optim.steps
        name = run.safe_name(self.config.output.name)
        stem = name if final else f"{name}-{step:06d}"
        path = self.folder / "checkpoints" / f"{stem}.safetensors"
        if not self.world.first:
            return path
        parts = self.models.parts()
        formats.save(
            path,
            layers.adapters(parts),
            self.models.family,
            metadata=describe(
                self.config,
                self.models,
                self.data,
                held_out=len(self.held_out.examples) if self.held_out else 0,
                base_hashes=self.base_hashes.result(),
                optimizer=self.update.optimizer,
                warmup=self.warmup,
                started_at=self.started - self.seconds,
                step=step,
            ),
            layout=self.config.save.layout,
            dtype=DTYPES[self.config.save.dtype],
        )
        state.save(
            self.folder / "state",
            step=step,
            seconds=self.seconds + time.time() - self.started,
            parts=parts,
            update=self.update,
        )
        self.tell(Saved(step=step, path=self.relative(path), modules=self.modules))
        return path

    # -- words -------------------------------------------------------------------------------------------------------

    def say(self, status: str, words: str) -> None:
        self.tell(Phase(status, words))

    def note(self, words: str) -> None:
        self.tell(Note(words))

    def progress(self, status: str, words: str) -> prepare.OnProgress:
        def on_progress(done: int, total: int) -> None:
            self.tell(Phase(status, words, done, total))
            if self.asked_to_end():
                raise Stopped(
                    "Stopped before the first step; nothing was learned yet. Resume the run to go on."
                )

        return on_progress

    def relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()
