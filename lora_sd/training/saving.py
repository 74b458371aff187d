"""What a run leaves on the disk on its way: LoRA files, and states to go on from. A disk that is full or away costs no step.

The state comes after the LoRA file of its step: a run that is killed between the two makes that file again.
"""

import contextlib
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .. import errors, run
from ..events import Finished, Saved
from ..lora import beside, embedding, formats, layers, metadata
from ..lora.inspection import read_header
from ..settings import TrainConfig
from . import state
from .cadence import Act
from .description import describe
from .ready import Ready
from .state import Progress
from .update import Update
from .voice import Voice

GB = 2**30
STATE_BYTES = (
    16  # of a state for each number that learns: adapters, vector's two moments in fp32, and some to spare
)
PATIENCE = 600.0  # seconds that the last save of a run waits for room on the disk
PAUSE = 5.0  # seconds between two tries


class Best(NamedTuple):
    """The step whose held-out loss was the lowest so far."""

    loss: float
    step: int


@dataclass
class Saver:
    folder: Path  # of the run
    config: TrainConfig
    ready: Ready
    update: Update
    voice: Voice
    warmup: int  # steps
    total: int  # steps of the run
    files: Act  # to write a LoRA file
    states: Act  # to save a state for its own sake
    best: Best | None = None
    saved: int = -1  # step of the last state
    ends: set[int] = field(default_factory=set)  # steps that the run ended with before it was made longer

    def path(self, step: int) -> Path:
        """The LoRA file of `step`, or of a run without layers that of its word; the final one has no number."""
        return self.named(self.ending(step))

    def ending(self, step: int) -> str:
        return "" if step == self.total else f"-{step:06d}"

    def named(self, ending: str) -> Path:
        name = run.safe_name(self.config.output.name) if self.ready.modules else self.word
        return self.folder / "checkpoints" / f"{name}{ending}.safetensors"

    def word_named(self, ending: str) -> Path:
        """The file of the word's vectors, which other programs call by its name."""
        if not self.ready.modules:
            return self.named(ending)
        return self.folder / "checkpoints" / beside.FOLDER / f"{self.word}{ending}.safetensors"

    @property
    def word(self) -> str:
        return self.config.data.trigger.strip()

    def check_room(self) -> None:
        """Say at once if the disk has no room for what the run will leave on it."""
        needed, free = self.bytes_needed(), shutil.disk_usage(self.folder).free
        if free < needed:
            self.voice.note(
                f"This run will write about {needed / GB:.1f} GB, and {free / GB:.1f} GB are free on the disk of "
                f"{self.folder}: free some space, or set save.every higher."
            )

    def bytes_needed(self) -> int:
        """States, one more than are kept, and every LoRA file; previews are small beside them."""
        count, keep = self.update.vector.values.numel(), self.config.save.keep_last
        on_the_way = max(0, self.files.times - 1)
        files = (min(on_the_way, keep + 1) if keep else on_the_way) + 1 + self.config.save.keep_best
        of_file = formats.DTYPES[self.config.save.dtype].itemsize
        of_state = STATE_BYTES + (self.update.average.values.itemsize if self.update.average else 0)
        return count * ((state.KEPT + 1) * of_state + files * of_file)

    def number_earlier_end(self, done: int) -> None:
        """Before a run is trained longer, the file it ended with is named by its step, so that it stays."""
        path = self.path(self.total)
        if path.exists():
            step = int(read_header(path).metadata.get("ss_steps", done))
            if step < self.total:
                word_path = self.word_named("")
                if word_path != path and word_path.exists():
                    word_path.rename(self.word_named(self.ending(step)))
                path.rename(self.path(step))
        self.ends = earlier_ends(self.folder)

    def save(self, progress: Progress, *, lora: bool) -> None:
        """On the way: what can't be written now is said, and left for the next time."""
        try:
            self.write(progress, lora=lora)
        except OSError as error:
            self.voice.note(
                f"{errors.sentence(error)} Training goes on, and tries again when the next save is due."
            )

    def save_last(self, progress: Progress) -> Path:
        """At the end, when nothing else holds what was learned: tries for PATIENCE until there is room."""
        until = time.monotonic() + PATIENCE
        told = False
        while True:
            try:
                return self.write(progress, lora=True)
            except OSError as error:
                if time.monotonic() > until or (told and self.voice.asked_to_end()):
                    raise
                if not told:
                    self.voice.note(
                        f"{errors.sentence(error)} The run waits {PATIENCE / 60:.0f} minutes for that; stop it once more to give up."
                    )
                told = True
            time.sleep(min(PAUSE, PATIENCE))

    def write(self, progress: Progress, *, lora: bool) -> Path:
        """The state of a step, and with `lora` its LoRA file; told once both are complete."""
        path = self.path(progress.step)
        if lora:
            self.write_result(self.ending(progress.step), progress)
            self.files.done()
        self.write_state(progress)
        if lora:
            self.tell(path, progress.step)
            self.tidy()
        return path

    def tell(self, path: Path, step: int, best: float | None = None) -> None:
        relative = path.relative_to(self.folder).as_posix()
        self.voice.tell(Saved(step=step, path=relative, modules=self.ready.modules, best=best))

    def keep_best(self, progress: Progress, held_out: float | None) -> None:
        """The LoRA file of a step whose held-out loss is the lowest so far, beside the others; where settings want it."""
        if not self.config.save.keep_best or held_out is None or (self.best and held_out >= self.best.loss):
            return
        path = self.named(run.BEST)
        try:
            self.write_result(run.BEST, progress)
        except OSError as error:
            self.voice.note(f"{errors.sentence(error)} The best file stays that of an earlier step.")
            return
        self.best = Best(held_out, progress.step)
        self.tell(path, progress.step, held_out)

    def tidy(self) -> None:
        """Remove the oldest files of steps on the way, where more are there than are to be kept; not what a run ended with."""
        if keep := self.config.save.keep_last:
            numbered = [path for path in run.checkpoints(self.folder) if run.step_of(path) is not None]
            for step in {run.step_of(path) for path in numbered[:-keep]} - self.ends:
                for path in {self.path(step), self.word_named(self.ending(step))}:
                    # on Windows a program may have it open; next time, then
                    with contextlib.suppress(OSError):
                        path.unlink(missing_ok=True)

    def write_state(self, progress: Progress) -> None:
        state.save(self.folder / "state", progress, self.ready.models.parts(), self.update)
        self.saved = progress.step
        self.states.done()

    def write_result(self, ending: str, progress: Progress) -> None:
        """The word's vectors, if it learns, and then the LoRA, whose header names them."""
        with self.update.averaged():
            self._write_result(ending, self.header(progress))

    def _write_result(self, ending: str, header: dict[str, str]) -> None:
        if rows := self.ready.word:
            word_path, family = self.word_named(ending), self.ready.models.family
            vectors = {part: one.vectors for part, one in rows.items()}
            embedding.save(word_path, vectors, family, metadata=metadata.of_embedding(header, self.word))
            named = beside.Named(
                word_path.name, self.word, self.config.embedding.tokens, beside.body_hash(word_path)
            )
            header[beside.KEY] = str(named)
        if self.ready.modules:
            self.write_lora(self.named(ending), header)

    def write_lora(self, path: Path, header: dict[str, str]) -> None:
        """In the format of the settings; in fp32 where that is too narrow for the weights."""
        pairs, family = layers.adapters(self.ready.models.parts()), self.ready.models.family
        layout, dtype = self.config.save.layout, self.config.save.dtype
        try:
            formats.save(path, pairs, family, metadata=header, layout=layout, dtype=formats.DTYPES[dtype])
        except formats.TooLarge:
            formats.save(path, pairs, family, metadata=header, layout=layout, dtype=formats.DTYPES["fp32"])
            self.voice.note(
                f"{path.name} is in fp32: its weights are too large for {dtype}, so it is probably burnt. "
                "Try an earlier one, or train at a lower optim.learning_rate."
            )

    def header(self, progress: Progress) -> dict[str, str]:
        return describe(
            self.config,
            self.ready.models,
            self.ready.data,
            held_out=len(self.ready.held_out.examples) if self.ready.held_out else 0,
            base_hashes=self.base_hashes(),
            optimizer=self.update.optimizer,
            warmup=self.warmup,
            total=self.total,
            started_at=time.time() - progress.seconds,
            step=progress.step,
        )

    def base_hashes(self) -> tuple[str, str]:
        try:
            return self.ready.base_hashes.result()
        except OSError:  # the base model's file was taken away under us; what was learned needs it no more
            return metadata.NO_FILE


def earlier_ends(folder: Path) -> set[int]:
    """The steps of files that a run ended with before it was made longer: by their headers, or its diary where those are minimal."""
    found = {
        event.step
        for event in run.read_events(folder)[0]
        if isinstance(event, Finished) and not event.stopped
    }
    for path in run.checkpoints(folder):
        with contextlib.suppress(ValueError, OSError):
            header = read_header(path).metadata
            if header.get("ss_steps") == header.get("ss_max_train_steps", ""):
                found.add(int(header["ss_steps"]))
    return found
