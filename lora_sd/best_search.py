"""The search for a run's best checkpoint: draw the preview prompts with each, measure how near the pictures are, suggest one."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from . import best, errors, files, hardware, lock, nearness, run, sample
from . import config as cfg
from .best import Found, Row
from .config import TrainConfig
from .data import images
from .models.family import Models
from .models.load import load
from .nearness import Usual
from .training import examples, previews

PICTURES = 6  # of each checkpoint, at least: with fewer a distance is mostly chance
MOST_TRAINING = 200  # pictures that are compared with
OnFound = Callable[[Found], None]


class Cancelled(Exception):
    pass


def find_best(folder: Path | str, on_found: OnFound | None = None, *, device: str = "auto") -> Found:
    """Search a run's best checkpoint; all that is found lies in its folder `best`, and a search that was cancelled goes on.

    `on_found` hears of every picture. Raises ValueError where there is nothing to search.
    """
    folder = Path(folder)
    checkpoints = best.checkpoints(folder)
    place = folder / best.FOLDER
    place.mkdir(exist_ok=True)
    with lock.hold(place, f"The best checkpoint of {folder.name} is being looked for already."):
        best.forget_cancel(folder)
        search = Search(folder, checkpoints, on_found or (lambda found: None), device)
        try:
            search.go()
        except Cancelled:
            search.tell(status="cancelled")
        except Exception as error:
            search.tell(status="failed", text=errors.sentence(error))
            raise
        return search.found


class Search:
    def __init__(self, folder: Path, checkpoints: list[best.Checkpoint], on_found: OnFound, device: str):
        self.folder, self.on_found, self.device = folder, on_found, device
        self.config = cfg.load(folder / "config.toml")
        self.checkpoints = [best.Checkpoint(best.WITHOUT, 0), *checkpoints]
        self.losses = best.losses(run.read_events(folder)[0])
        self.before = best.read(folder)
        self.found = Found()
        self.tell()

    def tell(self, **news: object) -> None:
        self.found = replace(self.found, **news)
        best.write(self.folder, self.found)
        self.on_found(self.found)

    def go(self) -> None:
        config = self.config
        paths, captions = training_pictures(config)
        prompts = previews.prompts(config.preview, captions)
        seeds = [config.preview.seed + i for i in range(-(-PICTURES // len(prompts)))]
        wishes = [(prompt, seed) for prompt in prompts for seed in seeds]
        self._begin(prompts, wishes)
        where, dtype = hardware.choose(self.device, config.machine.precision)
        models = loaded(config, where, dtype)
        known, why = self._usual(models, paths)
        self.tell(text=why)
        for number, checkpoint in enumerate(self.checkpoints):
            self._row(models, checkpoint, wishes, known, number)
        self.tell(status="done", suggested=best.suggest(self.found.rows))

    def _begin(self, prompts: list[str], wishes: list[tuple[str, int]]) -> None:
        preview = self.config.preview
        how = json.dumps([wishes, preview.negative, preview.steps, preview.guidance, preview.sampler])
        if self.before and self.before.how != how:  # other pictures than those that are kept
            for path in (self.folder / best.FOLDER).glob("*.png"):
                path.unlink()
        self.tell(prompts=prompts, how=how, total=len(self.checkpoints) * len(wishes))

    def _usual(self, models: Models, paths: list[Path]) -> tuple[Usual | None, str]:
        """What distances are measured in, or why there are none."""
        try:
            seen = []
            for path in paths:
                self._look_up()
                seen.append(nearness.see(models, [images.rgb(path)]))
            whole = nearness.Seen(*(torch.cat(parts) for parts in zip(*seen, strict=True)))
            return nearness.usual(whole), ""
        except ValueError as error:
            return None, str(error)

    def _row(
        self,
        models: Models,
        checkpoint: best.Checkpoint,
        wishes: list[tuple[str, int]],
        known: Usual | None,
        number: int,
    ) -> None:
        """Draw and measure one checkpoint."""
        file = self.folder / "checkpoints" / checkpoint.file
        stem = Path(checkpoint.file).stem if checkpoint.file else "without"
        paths = [self.folder / best.FOLDER / f"{stem}-{i}.png" for i in range(len(wishes))]
        name = None
        try:
            for i, (path, (prompt, seed)) in enumerate(zip(paths, wishes, strict=True)):
                self._look_up()
                if not fresh(path, file):
                    name = name or (sample.load_lora(models, file) if checkpoint.file else None)
                    self._draw(models, prompt, seed, path)
                self.tell(done=number * len(wishes) + i + 1)
        finally:
            if name:
                sample.unload(models, name)
        loss, measured = best.held_out(checkpoint.step, self.losses)
        row = Row(checkpoint.file, checkpoint.step, loss, measured)
        row = replace(row, pictures=tuple(path.relative_to(self.folder).as_posix() for path in paths))
        if known:
            seen = nearness.see(models, [images.rgb(path) for path in paths])
            row = replace(
                row,
                looks=tuple(nearness.looks(seen, known)),
                places=tuple(nearness.places(seen, known)),
            )
        rows = [*self.found.rows, row]
        self.tell(rows=rows, suggested=best.suggest(rows))

    def _draw(self, models: Models, prompt: str, seed: int, path: Path) -> None:
        preview = self.config.preview
        [drawn] = sample.generate(
            models,
            prompt,
            negative=preview.negative,
            seeds=[seed],
            steps=preview.steps,
            guidance=preview.guidance,
            sampler=preview.sampler,
            rescale=preview.rescale,
            on_step=lambda done, total: self._look_up(),
        )
        _save(drawn, path)

    def _look_up(self) -> None:
        if best.cancelled(self.folder):
            raise Cancelled


def fresh(picture: Path, file: Path) -> bool:
    """Whether a picture is there, and drawn with the file as it is now."""
    return picture.exists() and files.changed(picture) >= (files.changed(file) if file.is_file() else 0)


def _save(drawn: Image.Image, path: Path) -> None:
    with files.written(path, durable=False) as file:
        drawn.save(file, "PNG")


def training_pictures(config: TrainConfig) -> tuple[list[Path], list[str]]:
    """The pictures that the run learned from, and their captions, evenly over the set."""
    memory = run.home() / "cache" / "good.json"
    alone = cfg.changed(config, {"data.regularisation": "", "data.regularisation_draw": 0}).data
    found, _ = examples.find(
        alone, config.captions, config.validate, config.seed, on_note=lambda note: None, memory=memory
    )
    kept = found[:: -(-len(found) // MOST_TRAINING)]
    return [example.path for example in kept], [example.caption for example in found]


def loaded(config: TrainConfig, device: torch.device, dtype: torch.dtype) -> Models:
    """The base model as the run had it."""
    return load(
        config.model.base,
        dtype=dtype,
        device=device,
        prediction=config.model.prediction,
        zero_snr=config.model.zero_snr,
        clip_skip=config.model.clip_skip,
        weighted=config.captions.weights,
    )
