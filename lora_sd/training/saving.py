"""What a run leaves on the disk on its way: LoRA files, and states to go on from. A disk that is full or away costs no step.

The state comes after the LoRA file of its step: a run that is killed between the two makes that file again.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from .. import errors, run
from ..events import Saved
from ..lora import beside, embedding, formats, layers, metadata
from ..lora.inspection import read_header
from ..settings import MINUTES, TrainConfig
from . import cadence, state
from .description import DTYPES, describe
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
T = TypeVar("T")


@dataclass
class Saver:
    folder: Path  # of the run
    config: TrainConfig
    ready: Ready
    update: Update
    voice: Voice
    warmup: int  # steps
    steps_of: Callable[[int | str], int]
    saved: int = -1  # step of the last state
    saved_at: float = field(default_factory=time.monotonic)

    def state_due(self, step: int) -> bool:
        """Whether a state is to be saved for its own sake after `step`."""
        every = self.config.save.state_every
        if minutes := MINUTES.match(str(every)):
            return time.monotonic() - self.saved_at >= 60 * float(minutes[1])
        return cadence.due(step, self.steps_of(every), self.config.optim.steps)

    def ends_bunch(self, step: int) -> bool:
        """Whether a state is due after `step`, as far as steps tell."""
        every = self.config.save.state_every
        return not MINUTES.match(str(every)) and self.state_due(step)

    def path(self, step: int) -> Path:
        """The LoRA file of `step`, or of a run without layers that of its word; the final one has no number."""
        if not self.ready.modules:
            return self.folder / "checkpoints" / self.name(self.word, step)
        return self.folder / "checkpoints" / self.name(run.safe_name(self.config.output.name), step)

    def word_path(self, step: int) -> Path:
        """The file of the word's vectors, which other programs call by its name."""
        path = self.path(step)
        return path.parent / beside.FOLDER / self.name(self.word, step) if self.ready.modules else path

    def name(self, stem: str, step: int) -> str:
        return f"{stem}.safetensors" if step == self.config.optim.steps else f"{stem}-{step:06d}.safetensors"

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
        count, total = self.update.vector.values.numel(), self.config.optim.steps
        every = self.steps_of(self.config.save.every)
        files = (total // every if every else 0) + 1
        of_file = DTYPES[self.config.save.dtype].itemsize
        return count * ((state.KEPT + 1) * STATE_BYTES + files * of_file)

    def number_earlier_end(self, done: int) -> None:
        """Before a run is trained longer, the file it ended with is named by its step, so that it stays."""
        path = self.path(self.config.optim.steps)
        if path.exists():
            step = int(read_header(path).metadata.get("ss_steps", done))
            if step < self.config.optim.steps:
                word_path = self.word_path(self.config.optim.steps)
                if word_path != path and word_path.exists():
                    word_path.rename(self.word_path(step))
                path.rename(self.path(step))

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
            with self.update.averaged():
                self.write_result(path, progress)
        self.write_state(progress)
        if lora:
            relative = path.relative_to(self.folder).as_posix()
            self.voice.tell(Saved(step=progress.step, path=relative, modules=self.ready.modules))
        return path

    def write_state(self, progress: Progress) -> None:
        state.save(self.folder / "state", progress, self.ready.models.parts(), self.update)
        self.saved, self.saved_at = progress.step, time.monotonic()

    def write_result(self, path: Path, progress: Progress) -> None:
        """The word's vectors, if it learns, and then the LoRA, whose header names them."""
        header = self.header(progress)
        if rows := self.ready.word:
            word_path, family = self.word_path(progress.step), self.ready.models.family
            vectors = {part: one.vectors for part, one in rows.items()}
            embedding.save(word_path, vectors, family, metadata=metadata.of_embedding(header, self.word))
            named = beside.Named(
                word_path.name, self.word, self.config.embedding.tokens, beside.body_hash(word_path)
            )
            header[beside.KEY] = str(named)
        if self.ready.modules:
            self.write_lora(path, header)

    def write_lora(self, path: Path, header: dict[str, str]) -> None:
        """In the format of the settings; in fp32 where that is too narrow for the weights."""
        pairs, family = layers.adapters(self.ready.models.parts()), self.ready.models.family
        layout, dtype = self.config.save.layout, self.config.save.dtype
        try:
            formats.save(path, pairs, family, metadata=header, layout=layout, dtype=DTYPES[dtype])
        except formats.TooLarge:
            formats.save(path, pairs, family, metadata=header, layout=layout, dtype=DTYPES["fp32"])
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
            started_at=time.time() - progress.seconds,
            step=progress.step,
        )

    def base_hashes(self) -> tuple[str, str]:
        try:
            return self.ready.base_hashes.result()
        except OSError:  # the base model's file was taken away under us; what was learned needs it no more
            return metadata.NO_FILE
