"""One run while it is on. Here settings turn into plain values; everything below takes those.

The order is the program's one line: pictures → latents → adapters → steps → file, with previews and held-out loss on the way.
"""

import contextlib
import functools
import gc
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import config as cfg
from .. import errors, footprint, length, rates, run, signals
from ..config import TrainConfig
from ..events import Finished, OnEvent, Step
from ..files import write_text
from ..models import text
from . import cadence, learning, loop, memory, prepare, previews, sameness, schedules, state
from .description import PRECISIONS
from .feed import Feed, feeds
from .graph import Passes
from .held_out import HeldOut
from .loss import Loss
from .noise import Noise
from .ready import get_ready
from .saving import Best, Saver
from .state import Progress
from .voice import Voice
from .world import World

MOST_LEFT_OUT = 3  # steps in a row
SLOWER = 0.5  # factor on the learning rate after that


class Diverged(Exception):
    """The loss, its gradient or the weights are no numbers any more."""


class Trainer:
    """A run from its folder to its last file; `go` does it all."""

    def __init__(self, config: TrainConfig, folder: Path, tell: OnEvent, here: World, accept_changes: bool):
        self.config, self.folder, self.tell, self.world = config, folder, tell, here
        self.accept_changes = accept_changes
        self.total_before = run.read_state(folder).total  # steps; 0 where they were not counted yet
        self.voice = Voice(tell, self.asked_to_end)
        self.began = time.monotonic()
        self.before = Progress()  # this process
        self.done = 0  # steps
        self.left_out = 0  # steps that changed nothing
        self.left_out_in_a_row = 0
        self.rate_factor = 1.0
        self.rung = footprint.RUNGS[0]  # until it is known what fits
        self.passes: Passes | None = None

    @property
    def progress(self) -> Progress:
        best = self.saver.best or Best(None, 0)
        return Progress(self.done, self.seconds(), self.rate_factor, self.left_out, self.rung.name, *best)

    def seconds(self) -> float:
        """Of training, in all processes that the run had so far."""
        return self.before.seconds + time.monotonic() - self.began

    def go(self) -> Path:
        settings = self.config.optim
        if settings.batch_size * settings.accumulation < self.world.size:
            self.voice.note(
                f"A step has fewer pictures than the {self.world.size} processes; raise optim.batch_size."
            )
        saved = self.saved_state()
        ranks = {name: len(down) for name, (down, *_) in saved["adapters"].items()} if saved else {}
        rung = saved.get("rung", "") if saved else ""
        self.ready = get_ready(self.config, self.world, self.voice, ranks=ranks, rung=rung)
        self.total = self.ready.total
        self.rung = self.ready.rung
        self.held_out = HeldOut(self.ready, self.config.seed, self.world)
        self.set_up(saved)
        return self.teach()

    def saved_state(self) -> dict[str, Any] | None:
        """The run's newest whole state, in every process."""
        return self.world.agree(state.read(self.folder / "state") if self.world.first else None)

    def set_up(self, saved: dict[str, Any] | None) -> None:
        """Make the optimizer, and go on from the run's saved state if there is one."""
        settings = self.config.optim
        self.update = learning.make_update(
            settings, self.config.lora, self.config.embedding, self.ready, saved, self.voice.note
        )
        if saved:
            self.before = state.progress_of(saved)
        self.make_acts()
        if saved:
            self.restore(saved)
        if self.world.first:
            self.check_sameness()
            self.saver.check_room()
        self.world.wait()

    def make_acts(self) -> None:
        """What the run does again and again: it saves, shows and measures."""
        config, per_epoch = self.config, self.ready.epoch.steps
        steps_of = functools.partial(cadence.steps_of, total=self.total, per_epoch=per_epoch)
        act = functools.partial(cadence.Act, steps_of=steps_of, total=self.total, clock=self.seconds)
        self.previewing, self.measuring = act(config.preview.every), act(config.validate.every)
        self.warmup = steps_of(config.optim.warmup)
        self.saver = Saver(
            self.folder,
            config,
            self.ready,
            self.update,
            self.voice,
            warmup=self.warmup,
            total=self.total,
            files=act(config.save.every),
            states=act(config.save.state_every),
            best=None
            if self.before.best_loss is None
            else Best(self.before.best_loss, self.before.best_step),
        )

    def restore(self, saved: dict[str, Any]) -> None:
        if not state.fits(saved, self.update):
            self.voice.note(
                "The optimizer is another one, or has other groups; it begins without what the last one remembered."
            )
        progress = state.restore(saved, self.ready.models.parts(), self.update)
        self.done, self.rate_factor, self.left_out = progress.step, progress.rate_factor, progress.left_out
        self.left_out_in_a_row = 0
        self.saver.saved = progress.step

    def check_sameness(self) -> None:
        """Go on only with what the run began with, or with what was accepted; say what changes."""
        precision = PRECISIONS[self.ready.models.dtype]
        now = sameness.facts(self.config, self.ready.data, self.ready.base, precision)
        before = sameness.read(self.folder / "state")
        differences = sameness.differences(before, now) if before and self.done else []
        if differences and not self.accept_changes:
            raise sameness.Changed(differences)
        if differences:
            self.voice.note(f"Going on differently, as accepted: {'; '.join(differences)}.")
        self.take_over_settings()
        if now != before:
            sameness.write(self.folder / "state", now)

    def take_over_settings(self) -> None:
        """The run's folder has the settings that it goes on with, and its file of an earlier end gets a number."""
        path, total = self.folder / "config.toml", self.total
        settings = cfg.load(path).optim if path.exists() else self.config.optim
        before = settings.known_steps or self.total_before
        if total != before and self.done:
            decays = self.config.optim.schedule != "constant"
            plan = (
                f" The {self.config.optim.schedule} schedule goes on as one of {total} steps."
                if decays
                else ""
            )
            self.voice.note(f"This run was to have {before} steps and now has {total}.{plan}")
        settings = cfg.dumps(self.config)
        if not path.exists() or path.read_text(encoding="utf-8") != settings:
            write_text(path, settings)
        self.saver.number_earlier_end(self.done)

    def teach(self) -> Path:
        self.voice.say("training", "Training")
        if self.done == 0:
            self.say_what_to_expect()
            self.tell(Step(step=0, total=self.total, held_out=self.measure()))
            if self.previewing.ever:
                self.preview(0)
            if self.world.first:
                self.saver.save(self.progress, lora=False)
        try:
            return self.learn_on()
        except Exception:
            self.keep()
            raise

    def say_what_to_expect(self) -> None:
        """How long the run is, and which rates are far from the usual."""
        optim, starter = self.config.optim, self.config.model.base == "starter"
        self.voice.note(f"{length.sentence(optim, self.ready.epoch)}.")
        for note in rates.notes(optim, self.config.lora, starter=starter):
            self.voice.note(note)
        if note := rates.warmup_note(self.warmup, self.total):
            self.voice.note(note)

    def learn_on(self) -> Path:
        """Learn to the end, whatever can be got over on the way."""
        while True:
            try:
                return self.learn()
            except Diverged as problem:
                reason = str(problem)
            except RuntimeError as error:
                if not self.can_step_down(error):
                    raise
                reason = ""
            # out here, where nothing holds on to what did not fit
            self.go_back(reason) if reason else self.step_down()

    def keep(self) -> None:
        """An error ends the run: keep the steps that are done, if they can be."""
        sound = self.left_out_in_a_row == 0 and self.done > self.saver.saved
        if self.world.first and sound:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                self.saver.write_state(self.progress)

    def go_back(self, reason: str) -> None:
        """Go on from the last good state at half the learning rate; once, for then that was not what it needed."""
        saved = self.saved_state()
        if saved is None or self.rate_factor < 1:
            raise ArithmeticError(
                f"{reason} Going back to a good state at half the learning rate did not help, so the run has ended. "
                f"Lower optim.learning_rate ({self.config.optim.learning_rate:g}) in a new run, or look for a damaged picture."
            )
        left_out = self.left_out
        self.restore(saved)
        self.rate_factor, self.left_out = SLOWER, left_out
        self.voice.note(
            f"{reason} Going back to step {self.done}, with half the learning rate from there on."
        )

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
        self.passes = self.passes or self.ready_passes()
        acts = (self.saver.files, self.saver.states, self.previewing, self.measuring)

        def ends_bunch(step: int) -> bool:
            return any(act.ends_bunch(step) for act in acts)

        for bunch in self.bunches(ends_bunch):
            self.done = bunch[-1].step
            sound = not bunch[-1].left_out
            held_out = self.measure() if sound and self.due_everywhere(self.measuring) else None
            for step in [*bunch[:-1], replace(bunch[-1], held_out=held_out)]:
                self.tell(step)
            self.look_at(bunch)
            if self.world.first:
                self.saver.keep_best(self.progress, held_out)
            if self.asked("preview") or self.previewing.due(self.done):
                self.preview(self.done)
            ending = self.world.agree(self.asked_to_end())
            if self.done == self.total:
                break
            if ending:
                return self.end(ending)
            self.save(lora=self.saver.files.due(self.done) or self.asked("save"))
        return self.end()

    def due_everywhere(self, act: cadence.Act) -> bool:
        """Whether an act is due in which all processes take part: by the clock, that of the first says."""
        due = act.due(self.done)
        return self.world.agree(due) if act.seconds else due

    def save(self, *, lora: bool) -> None:
        """What is due after the step that is done."""
        sound = self.left_out_in_a_row == 0  # else the state before is the good one
        if self.world.first and sound and (lora or self.saver.states.due(self.done)):
            self.saver.save(self.progress, lora=lora)

    def ready_passes(self) -> Passes:
        work = functools.partial(
            loop.forward_backward,
            self.ready.models,
            self.ready.text,
            self.ready.vector,
            self.update.scale,
            Loss(**dict(self.config.loss)),
        )
        if dropout := self.ready.dropout:
            work = dropout.acting(work)
        wanted = self.config.machine.cuda_graph
        passes = Passes(work, self.ready.vector.sums, graphs=wanted, on_note=self.voice.note)
        if passes.graphed:
            self.voice.say("training", "Recording a step for the card")
            passes.prepare(self.shapes())
            self.voice.say("training", "Training")
        return passes

    def shapes(self) -> Iterator[Feed]:
        """A feed of every shape that an epoch has."""
        batch_size = self.config.optim.batch_size
        texts = self.ready.data.texts(1, batch_size)
        num_chunks = dict(zip(texts, text.num_chunks(self.ready.models, texts), strict=True))
        for part in self.ready.data.shapes(self.config.seed, batch_size, self.world, num_chunks):
            yield from self.feeds([part], step=0)

    def feeds(self, parts: Iterable[prepare.Part], step: int) -> Iterator[Feed]:
        return feeds(
            parts,
            self.ready.text,
            seed=self.config.seed,
            step=step,
            num_timesteps=len(self.ready.models.alpha_bar),
            how=Noise(**dict(self.config.noise)),
        )

    def bunches(self, ends_bunch: loop.EndsBunch) -> Iterator[list[Step]]:
        settings = self.config.optim
        self.ready.vector.sums.zero_()
        dropout = self.ready.dropout
        return loop.steps(
            dropout.renewing(self.passes) if dropout else self.passes,
            self.update,
            self.feeds,
            self.ready.data.endless(
                self.config.seed, settings.batch_size, self.done * settings.accumulation, self.world
            ),
            first=self.done + 1,
            last=self.total,
            accumulation=settings.accumulation,
            learning_rate=self.learning_rate,
            seed=self.config.seed,
            ends_bunch=ends_bunch,
            world=self.world,
        )

    def learning_rate(self, done: int) -> float:
        settings = self.config.optim
        schedule = schedules.named(settings.schedule, cycles=settings.cycles, power=settings.power)
        planned = schedules.rate(schedule, done, self.total, self.warmup)
        return settings.learning_rate * planned * self.rate_factor

    def look_at(self, bunch: list[Step]) -> None:
        """Count and say which steps were left out; too many in a row are no accident."""
        for step in bunch:
            self.left_out += bool(step.left_out)
            self.left_out_in_a_row = self.left_out_in_a_row + 1 if step.left_out else 0
            if step.left_out:
                self.voice.note(f"Step {step.step} was left out: its loss or gradient was not a number.")
            if self.left_out_in_a_row == MOST_LEFT_OUT:
                raise Diverged(
                    f"The loss was not a number {MOST_LEFT_OUT} times in a row, up to step {step.step}."
                )
        if not self.ready.vector.values.isfinite().all():
            raise Diverged(f"The weights after step {self.done} are not all numbers.")

    def asked(self, name: run.Command) -> bool:
        return self.world.first and run.take(self.folder, name)

    def asked_to_end(self) -> str:
        """How: "stop" or "pause"; "" if nobody did."""
        if self.world.first and signals.asked_to_stop():
            return "stop"
        return next((word for word in ("stop", "pause") if self.asked(word)), "")

    def end(self, ending: str = "") -> Path:
        path = self.saver.path(self.done)
        if self.world.first:
            path = self.saver.save_last(self.progress)
            run.forget_commands(self.folder)
        relative = path.relative_to(self.folder).as_posix()
        self.tell(Finished(step=self.done, path=relative, stopped=bool(ending), left_out=self.left_out))
        if ending == "pause":
            self.voice.say("paused", f"Paused at step {self.done}")
        return path

    def measure(self) -> float | None:
        """The held-out loss after the step that is done."""
        with self.update.averaged():
            loss = self.held_out.measure()
        self.measuring.done()
        if warning := self.held_out.warning(self.done, loss):
            self.voice.note(warning)
        return loss

    def preview(self, step: int) -> None:
        if self.world.first:
            self.voice.say("training", f"Drawing previews of step {step}")
            settings = self.config.preview
            prompts = previews.prompts(settings, self.ready.data.captions())
            with self.update.averaged():
                for event in previews.draw(
                    self.ready.models, self.folder, step, prompts, settings, self.ready.device
                ):
                    self.tell(event)
            self.voice.say("training", "Training")
        self.previewing.done()
