"""`train`: a config in, a LoRA file out. Here settings turn into plain values; everything below takes those.

The order is the program's one line: pictures → latents → adapters → steps → file, with previews and held-out loss on the way.
"""

import contextlib
import functools
import gc
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from .. import errors, footprint, run
from ..config import TrainConfig
from ..events import Event, Failed, Finished, OnEvent, Saved, Step
from ..lora import formats, layers
from ..models import text
from ..recorder import Recorder
from . import cadence, loop, memory, optim, prepare, previews, state, world
from .description import DTYPES, describe
from .feed import Feed, feeds
from .graph import Passes
from .loss import HELD_OUT_T, held_out_losses
from .ready import get_ready
from .update import LossScale, Update
from .voice import Stopped, Voice
from .world import World

MOST_LEFT_OUT = 3  # steps in a row


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
    recorder = Recorder(folder, config.optim.steps)

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
        self.voice = Voice(tell, self.asked_to_end)
        self.started = time.time()
        self.seconds = 0.0  # of training before this process
        self.done = 0  # steps
        self.left_out = 0  # steps in a row that changed nothing
        self.passes: Passes | None = None

    def go(self) -> Path:
        settings = self.config.optim
        if settings.batch_size * settings.accumulation < self.world.size:
            self.voice.note(
                f"A step has fewer pictures than the {self.world.size} processes; raise optim.batch_size."
            )
        self.ready = get_ready(self.config, self.world, self.voice)
        self.rung = self.ready.rung
        self.at_once = len(HELD_OUT_T) if self.rung is footprint.RUNGS[0] else 1
        self.set_up()
        return self.teach()

    def set_up(self) -> None:
        """Make the optimizer, and go on from the run's saved state if there is one."""
        settings = self.config.optim
        saved = self.world.agree(state.read(self.folder / "state") if self.world.first else None)
        name = "AdamW8bit" if self.rung.small_optimizer else "AdamW"
        optimizer = optim.OPTIMIZERS[saved.get("optimizer_name", "AdamW") if saved else name](
            [self.ready.vector.values],
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        scale = LossScale(self.ready.models.dtype == torch.float16, self.ready.device)
        self.update = Update(self.ready.vector, optimizer, max_grad_norm=settings.max_grad_norm, scale=scale)
        if saved:
            self.done, self.seconds = state.restore(saved, self.ready.models.parts(), self.update)

    def teach(self) -> Path:
        settings, total = self.config.optim, self.config.optim.steps
        per_epoch = max(1, self.ready.data.batches_per_epoch(settings.batch_size) // settings.accumulation)
        self.steps_of = functools.partial(cadence.steps_of, total=total, per_epoch=per_epoch)
        self.warmup = self.steps_of(settings.warmup)
        self.voice.say("training", "Training")
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
        self.voice.note(
            f"Memory ran out after step {self.done}; training goes on from there {self.rung.title}."
        )
        memory.take_rung(self.ready.models.unet, self.rung)
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
            self.ready.models,
            self.ready.text,
            self.ready.vector,
            self.update.scale,
            self.config.loss.min_snr,
        )
        wanted = self.config.machine.cuda_graph
        passes = Passes(work, self.ready.vector.sums, graphs=wanted, on_note=self.voice.note)
        if passes.graphed:
            self.voice.say("training", "Recording a step for the card")
            passes.prepare(self.shapes())
            self.voice.say("training", "Training")
        return passes

    def shapes(self) -> Iterator[Feed]:
        """A feed of every shape that an epoch has."""
        captions = self.ready.data.captions()
        num_chunks = dict(zip(captions, text.num_chunks(self.ready.models, captions), strict=True))
        batch_size = self.config.optim.batch_size
        for part in self.ready.data.shapes(self.config.seed, batch_size, self.world, num_chunks):
            yield from self.feeds([part], step=0)

    def feeds(self, parts: Iterable[prepare.Part], step: int) -> Iterator[Feed]:
        return feeds(
            parts,
            self.ready.text,
            seed=self.config.seed,
            step=step,
            num_timesteps=len(self.ready.models.alpha_bar),
        )

    def bunches(self, ends_bunch: loop.EndsBunch) -> Iterator[list[Step]]:
        settings, total = self.config.optim, self.config.optim.steps
        self.ready.vector.sums.zero_()
        return loop.steps(
            self.passes,
            self.update,
            self.feeds,
            self.ready.data.endless(
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
                self.voice.note(f"Step {step.step} was left out: its loss or gradient was not a number.")
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
            self.voice.say("paused", f"Paused at step {step}")
        return path

    def measure(self) -> float | None:
        """The held-out loss as the LoRA is now; None where nothing is held out. The processes share the pictures."""
        if self.ready.held_out is None:
            return None
        count = len(self.ready.held_out.examples)
        mine = range(self.world.rank, count, self.world.size)
        return self.world.total(sum(self.losses_of(mine)), self.ready.device) / count

    def losses_of(self, indices: range) -> list[float]:
        """The losses of held-out pictures; where memory is short for several timesteps at once, one by one from now on."""
        pictures = prepare.held_out_inputs(self.ready.held_out, self.ready.models, self.ready.text, indices)
        try:
            return held_out_losses(self.ready.models, pictures, seed=self.config.seed, at_once=self.at_once)
        except RuntimeError as error:
            if self.at_once == 1 or not errors.out_of_memory(error):
                raise
        self.at_once = 1
        return self.losses_of(indices)

    def preview(self, step: int) -> None:
        if self.world.first:
            self.voice.say("training", f"Drawing previews of step {step}")
            settings = self.config.preview
            prompts = previews.prompts(settings, self.ready.data.captions())
            for event in previews.draw(
                self.ready.models, self.folder, step, prompts, settings, self.ready.device
            ):
                self.tell(event)
            self.voice.say("training", "Training")

    def save(self, step: int) -> Path:
        """The LoRA of `step` as a file, and the state to go on from; told once both are complete."""
        final = step == self.config.optim.steps
        name = run.safe_name(self.config.output.name)
        stem = name if final else f"{name}-{step:06d}"
        path = self.folder / "checkpoints" / f"{stem}.safetensors"
        if not self.world.first:
            return path
        parts = self.ready.models.parts()
        formats.save(
            path,
            layers.adapters(parts),
            self.ready.models.family,
            metadata=describe(
                self.config,
                self.ready.models,
                self.ready.data,
                held_out=len(self.ready.held_out.examples) if self.ready.held_out else 0,
                base_hashes=self.ready.base_hashes.result(),
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
        self.tell(Saved(step=step, path=self.relative(path), modules=self.ready.modules))
        return path

    def relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()
