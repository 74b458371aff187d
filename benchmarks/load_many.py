"""A data set of many small pictures, each with its own caption: listed, encoded and trained; seconds and memory of each phase.

The model has the structure of SD 1.5, few channels and random weights, so that what is measured is what grows with the
number of pictures. Every run is a fresh process: one with an empty cache, one that finds all in it, one that resumes,
and one whose latents and text states may take 32 MiB of memory.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from train_speed import aligned

ROOT = Path(__file__).parents[1]
PIXELS = 64  # what is trained on; the pictures are a little larger, in three shapes
SIZES = ((72, 72), (96, 64), (64, 96))
PHASES = {  # as a run tells them -> as the table does
    "Looking": "listed",
    "Loading": "model loaded",
    "Preparing": "latents",
    "Reading": "captions",
    "Training": "until the first step",
}
STEPS = {"first": 100, "again": 10, "resumed": 110, "32 MiB kept": 210}  # the step at which a run is stopped
LONGEST = 900  # seconds of a run, on a busy machine
MIB = 2**20


def write(folder: Path, count: int) -> None:
    """`count` pictures with captions; the same ones every time."""
    folder.mkdir()
    colours = ("red", "green", "blue", "black", "white", "grey")
    shapes = ("square", "disk", "star", "ring", "wave", "house", "tree")
    words = list(itertools.islice(itertools.cycle(itertools.product(colours, shapes)), count))

    def one(number: int) -> None:
        coarse = np.random.default_rng(number).integers(0, 255, (6, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(SIZES[number % len(SIZES)], Image.Resampling.BILINEAR)
        picture.save(folder / f"{number:06d}.jpg", quality=85)
        (folder / f"{number:06d}.txt").write_text(f"a {' '.join(words[number])}, number {number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(count)))


class Phases:
    """Seconds and peak memory of each phase of a run; also the listener of its events, which stops it."""

    def __init__(self, last: int, stop: Callable[[], None]):
        self.last, self.stop = last, stop
        self.process = psutil.Process()
        self.began = {"imports": self.process.create_time()}
        self.peaks: dict[str, int] = {}
        self.steps = 0
        threading.Thread(target=self.sample, daemon=True).start()

    def sample(self) -> None:
        while True:
            self.look()
            time.sleep(0.02)

    def look(self) -> None:
        name = list(self.began)[-1]
        self.peaks[name] = max(self.peaks.get(name, 0), self.process.memory_info().rss)

    def __call__(self, event: object) -> None:
        from lora_sd import events

        match event:
            case events.Phase(text=text):
                self.enter(next((told for word, told in PHASES.items() if text.startswith(word)), None))
            case events.Step(step=step) if step:
                self.enter("steps")
                self.steps += 1
                if step == self.last:
                    self.stop()

    def enter(self, phase: str | None) -> None:
        if phase and phase not in self.began:
            self.look()
            self.began[phase] = time.time()

    def figures(self) -> dict[str, tuple[float, int]]:
        """Seconds and peak MiB of each phase, `steps` in milliseconds a step."""
        ends = [*list(self.began.values())[1:], time.time()]
        took = {name: end - began for (name, began), end in zip(self.began.items(), ends, strict=True)}
        took["steps"] *= 1000 / self.steps
        return {name: (seconds, self.peaks.get(name, 0) // MIB) for name, seconds in took.items()}


def child(kind: str, model: str, pictures: str) -> None:
    """One run in this process, as the command line starts it."""
    sys.path.insert(0, str(ROOT))
    from lora_sd import config as cfg
    from lora_sd import run
    from lora_sd.data import store

    if kind == "32 MiB kept":
        store.MOST = 16 * MIB  # for latents, and for text states
    folders = sorted((run.home() / "runs").glob("*"))
    if kind in ("first", "again"):
        settings = {
            "model.base": model,
            "data.images": pictures,
            "data.resolution": PIXELS,
            "optim.steps": 1000,
            "optim.batch_size": 4,
            "preview.every": 0,
            "save.every": 0,
            "output.name": kind,
        }
        folder = run.create(cfg.changed(cfg.TrainConfig(), settings))
    else:
        folder = next(found for found in folders if found.name.endswith("first"))
    phases = Phases(STEPS[kind], lambda: run.command(folder, "stop"))
    from lora_sd import train

    train(cfg.load(folder / "config.toml"), phases, folder=folder)
    print(json.dumps(phases.figures()))


def runs(home: Path, model: Path, count: int) -> dict[str, dict[str, tuple[float, int]]]:
    pictures = home / "pictures"
    began = time.perf_counter()
    write(pictures, count)
    print(f"{count:,} pictures made in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    found = {}
    for kind in STEPS:
        done = subprocess.run(
            [sys.executable, __file__, kind, str(model), str(pictures)],
            env={**os.environ, "LORA_SD_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=LONGEST,
        )
        found[kind] = json.loads(done.stdout.splitlines()[-1])
        print(kind, found[kind], file=sys.stderr, flush=True)
    return found


def measure(counts: list[int]) -> str:
    import make_model
    import torch

    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model"
        make_model.write("tiny", model, torch.float32)
        found = {}
        for count in counts:
            home = Path(name) / str(count)
            home.mkdir()
            found[count] = runs(home, model, count)
    return table(found)


def table(found: dict[int, dict[str, dict[str, tuple[float, int]]]]) -> str:
    """A row for each phase of each run: seconds and peak MiB at each number of pictures."""
    rows = [["", *(f"{count:,}: {unit}" for count in found for unit in ("s", "peak MiB"))]]
    for kind in STEPS:
        for phase in next(iter(found.values()))[kind]:
            cells = [found[count][kind].get(phase, (0, 0)) for count in found]
            label = f"{kind}: {'ms a step' if phase == 'steps' else phase}"
            shown = [f"{seconds:.0f}" if phase == "steps" else f"{seconds:.1f}" for seconds, _ in cells]
            rows.append(
                [label, *(cell for s, (_, mib) in zip(shown, cells, strict=True) for cell in (s, str(mib)))]
            )
    return aligned(rows)


if __name__ == "__main__":
    child(*sys.argv[1:])
