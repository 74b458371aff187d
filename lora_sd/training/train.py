"""`train`: a config in, a LoRA file out. Here settings turn into plain values; everything below takes those.

The order is the program's one line: pictures → latents → adapters → steps → file, with previews and held-out loss on the way.
"""

import contextlib
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from .. import errors, hardware, run, sample
from ..config import TrainConfig
from ..data.folder import Example, find_examples
from ..events import Event, Failed, Finished, Note, OnEvent, Phase, Preview, Saved, Step
from ..lora import formats, layers, metadata, targets
from ..models import text
from ..models.family import Conditioning
from ..models.load import load
from . import cadence, loop, optim, prepare, state
from .loop import Condition
from .loss import held_out_loss

DEFAULT_PROMPTS = 3  # how many of the captions become preview prompts where none are given
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
PRECISIONS = {dtype: name for name, dtype in DTYPES.items()}


class Stopped(Exception):
    """Someone asked the run to stop before there was anything to save."""


def train(config: TrainConfig, on_event: OnEvent | None = None, *, folder: Path | None = None) -> Path:
    """Train a LoRA and give its file; everything on the way lies in the run's folder.

    `folder` is a run folder to continue; without it a new one is made. Raises ValueError, with a sentence that says how,
    for what a person can mend, and Stopped where the run was stopped before its first step.
    """
    folder = folder or run.create(config)
    recorder = run.Recorder(folder, config.optim.steps)

    def tell(event: Event) -> None:
        recorder(event)
        if on_event:
            on_event(event)

    try:
        return _Training(config, folder, tell).run()
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

    def __init__(self, config: TrainConfig, folder: Path, tell: OnEvent):
        self.config, self.folder, self.tell = config, folder, tell
        self.started = time.time()
        self.seconds = 0.0  # of training before this process
        self.modules: dict[str, int] = {}

    def run(self) -> Path:
        config = self.config
        train_on, held_out = self.find()
        self.say("starting", f"Loading {Path(config.model.base).name}")
        device, dtype = hardware.choose(config.machine.device, config.machine.precision)
        self.models = load(
            config.model.base,
            dtype=dtype,
            device=device,
            prediction=config.model.prediction,
            clip_skip=config.model.clip_skip,
        )
        hashing = ThreadPoolExecutor(1)  # takes seconds for a big file, and is wanted at the first save
        self.base_hashes = hashing.submit(metadata.base_hashes, self.models.path)
        self.data = self.encoded(train_on, "Preparing picture")
        self.held_out = self.encoded(held_out, "Preparing held-out picture") if held_out else None
        self.inject()
        self.condition = self.text()
        return self.loop()

    # -- what the run works on ---------------------------------------------------------------------------------------

    def find(self) -> tuple[list[Example], list[Example]]:
        """The pictures to train on and those to hold out."""
        self.say("starting", "Looking at the pictures")
        settings = self.config.data
        if not settings.images:
            raise ValueError("data.images is not set; give the folder of pictures to learn from.")
        found = self.find_in(settings.images)
        if self.config.validate.images:
            return found, self.find_in(self.config.validate.images)
        return prepare.split(found, self.config.validate.split, self.config.seed)

    def find_in(self, images: str) -> list[Example]:
        settings = self.config.data
        found = find_examples(
            images, trigger=settings.trigger, captions=settings.captions, on_bad_image=settings.on_bad_image
        )
        for path, why in found.skipped:
            self.tell(Note(f"Training without {path.name}: {why}"))
        for note in found.notes:
            self.tell(Note(note))
        return found.examples

    def encoded(self, examples: list[Example], words: str) -> prepare.Dataset:
        resolution = self.config.data.resolution or self.models.resolution
        progress = self.progress("caching", words)
        dataset = prepare.prepare(
            examples, self.models, resolution, run.home() / "cache", on_progress=progress
        )
        for note in dataset.notes():
            self.tell(Note(note))
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
        parameters = layers.inject(parts, ranks, alpha / settings.rank, seed=self.config.seed)
        for part in parts:
            count = sum(name.startswith(f"{part}.") for name in ranks)
            self.modules |= {part: count} if count else {}
        for part in parts.values():
            part.train()  # dropout acts, and checkpointing where it is on
        self.optimizer = optim.adamw(
            parameters,
            learning_rate=self.config.optim.learning_rate,
            weight_decay=self.config.optim.weight_decay,
        )
        self.scaler = torch.amp.GradScaler(enabled=self.models.dtype == torch.float16)

    def text(self) -> Condition:
        """captions → text states: encoded anew at each step while the encoders learn, else once."""
        if any(part != "unet" for part in self.modules):
            return self.encode
        captions = self.data.captions() + (self.held_out.captions() if self.held_out else [])
        progress = self.progress("caching", "Reading caption")
        return prepare.cached_text(
            self.models, captions, run.home() / "cache", self.encode, on_progress=progress
        )

    def encode(self, captions: list[str]) -> Conditioning:
        with self.models.autocast():
            return text.encode(self.models, captions)

    # -- the run -----------------------------------------------------------------------------------------------------

    def loop(self) -> Path:
        settings, total = self.config.optim, self.config.optim.steps
        done, self.seconds = state.restore(
            self.folder / "state", self.models.parts(), self.optimizer, self.scaler
        )
        per_epoch = max(1, self.data.batches_per_epoch(settings.batch_size) // settings.accumulation)

        def every(value: int | str) -> int:
            return cadence.steps_of(value, total=total, per_epoch=per_epoch)

        saves, previews, checks = map(
            every, (self.config.save.every, self.config.preview.every, self.config.validate.every)
        )
        self.warmup = every(settings.warmup)
        self.say("training", "Training")
        if done == 0:
            self.tell(Step(step=0, total=total, held_out=self.measure()))
            if previews:
                self.preview(0)
        for step in loop.steps(
            self.models,
            self.optimizer,
            self.data.endless(self.config.seed, settings.batch_size, start=done * settings.accumulation),
            self.condition,
            first=done + 1,
            last=total,
            accumulation=settings.accumulation,
            learning_rate=lambda n: (
                settings.learning_rate * optim.rate(settings.schedule, n, total, self.warmup)
            ),
            seed=self.config.seed,
            min_snr=self.config.loss.min_snr,
            max_grad_norm=settings.max_grad_norm,
            scaler=self.scaler,
        ):
            done = step.step
            held_out = self.measure() if cadence.due(done, checks, total) else None
            self.tell(replace(step, held_out=held_out))
            if cadence.due(done, previews, total) or run.take(self.folder, "preview"):
                self.preview(done)
            ending = self.asked_to_end()
            if done == total:
                break
            if ending or cadence.due(done, saves, total) or run.take(self.folder, "save"):
                path = self.save(done)
            if ending:
                return self.end(path, done, ending)
        return self.end(self.save(total), total)

    def asked_to_end(self) -> str:
        return next((word for word in ("stop", "pause") if run.take(self.folder, word)), "")

    def end(self, path: Path, step: int, ending: str = "") -> Path:
        run.forget_commands(self.folder)
        self.tell(Finished(step=step, path=self.relative(path), stopped=bool(ending)))
        if ending == "pause":
            self.say("paused", f"Paused at step {step}")
        return path

    def measure(self) -> float | None:
        """The held-out loss as the LoRA is now; None where nothing is held out."""
        if self.held_out is None:
            return None
        pictures = prepare.held_out_inputs(self.held_out, self.models, self.condition)
        return held_out_loss(self.models, pictures, seed=self.config.seed)

    def preview(self, step: int) -> None:
        settings = self.config.preview
        self.say("training", f"Drawing previews of step {step}")
        for index, prompt in enumerate(self.prompts()):
            [picture] = sample.generate(
                self.models,
                prompt,
                negative=settings.negative,
                seeds=[settings.seed],
                steps=settings.steps,
                guidance=settings.guidance,
                sampler=settings.sampler,
            )
            path = self.folder / "previews" / f"{step:06d}-{index}.png"
            temporary = path.with_suffix(".tmp")
            picture.save(temporary, format="PNG")
            run.put_in_place(temporary, path)
            self.tell(Preview(step=step, prompt=prompt, index=index, path=self.relative(path)))
        self.say("training", "Training")

    def prompts(self) -> list[str]:
        """The preview prompts: as set, else captions from over the whole set."""
        captions = self.data.captions()
        apart = max(1, len(captions) // DEFAULT_PROMPTS)
        return self.config.preview.prompts or captions[::apart][:DEFAULT_PROMPTS]

    def save(self, step: int) -> Path:
        """The LoRA of `step` as a file, and the state to go on from; told once both are complete."""
        final = step == self.config.optim.steps
        name = run.safe_name(self.config.output.name)
        stem = name if final else f"{name}-{step:06d}"
        path = self.folder / "checkpoints" / f"{stem}.safetensors"
        parts = self.models.parts()
        formats.save(
            path,
            layers.adapters(parts),
            self.models.family,
            metadata=self.describe(step),
            layout=self.config.save.layout,
            dtype=DTYPES[self.config.save.dtype],
        )
        state.save(
            self.folder / "state",
            step=step,
            seconds=self.seconds + time.time() - self.started,
            parts=parts,
            optimizer=self.optimizer,
            scaler=self.scaler,
        )
        self.tell(Saved(step=step, path=self.relative(path), modules=self.modules))
        return path

    def describe(self, step: int) -> dict[str, str]:
        """The header of the file: how it was trained, as far as output.metadata lets it tell."""
        config, models, data = self.config, self.models, self.data
        told = metadata.Training(
            base=config.model.base,
            base_hashes=self.base_hashes.result(),
            output_name=run.safe_name(config.output.name),
            trigger=config.data.trigger,
            resolution=config.data.resolution or models.resolution,
            clip_skip=models.clip_skip,
            zero_snr=bool(models.scheduler_config.get("rescale_betas_zero_snr")),
            seed=config.seed,
            started_at=self.started - self.seconds,
            finished_at=time.time(),
            step=step,
            steps=config.optim.steps,
            batches_per_epoch=data.batches_per_epoch(config.optim.batch_size),
            batch_size=config.optim.batch_size,
            accumulation=config.optim.accumulation,
            learning_rate=config.optim.learning_rate,
            optimizer=f"torch.optim.adamw.AdamW(weight_decay={config.optim.weight_decay})",
            schedule=config.optim.schedule,
            warmup_steps=self.warmup,
            max_grad_norm=config.optim.max_grad_norm,
            min_snr=config.loss.min_snr,
            precision=PRECISIONS[models.dtype],
            examples=[(e.path.parent.name, e.repeats, e.caption) for e in data.examples],
            held_out=len(self.held_out.examples) if self.held_out else 0,
            buckets=data.bucket_counts(),
        )
        pairs = layers.adapters(models.parts())
        return metadata.build(models.family, models.prediction, pairs, told, level=config.output.metadata)

    # -- words -------------------------------------------------------------------------------------------------------

    def say(self, status: str, words: str) -> None:
        self.tell(Phase(status, words))

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
