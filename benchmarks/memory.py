"""Peak memory of training, predicted beside measured: `python benchmarks/memory.py --model DIR --resolution 512`.

Every row is a few steps of the real trainer in a fresh process, rank 16 on the `transformer` layers, the U-Net only.
Without a card there are only the predictions. `--count` prints the rows of lora_sd/footprint.py; it takes minutes and no card.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import make_images
import train_speed
from train_speed import RANK, aligned

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

import lora_sd  # noqa: E402
from lora_sd import config  # noqa: E402
from lora_sd.events import Step  # noqa: E402
from lora_sd.footprint import RUNGS, Needs, Rung, predict  # noqa: E402
from lora_sd.models import find  # noqa: E402

GB = 2**30
STEPS = 4
TARGETS = "transformer"
TITLES = ["rung", "batch", "predicted GiB", "measured GiB", "predicted : measured"]


class Run(NamedTuple):
    model: str
    images: str
    resolution: int
    batch: int
    rung: str

    def config(self) -> config.TrainConfig:
        settings = {
            "model.base": self.model,
            "data.images": self.images,
            "data.resolution": self.resolution,
            "lora.rank": RANK,
            "lora.targets": TARGETS,
            "optim.batch_size": self.batch,
            "optim.steps": STEPS,
            "machine.memory": self.rung,
            "save.every": 0,
            "preview.every": 0,
        }
        return config.changed(config.TrainConfig(), settings)


def measured(run: Run) -> int:
    """Bytes that the trainer had reserved at most; a run that ends in an error raises it."""
    seen: list[int] = []

    def note(event: object) -> None:
        if isinstance(event, Step) and event.memory:
            seen.append(event.memory)

    lora_sd.train(run.config(), note)
    return max(seen)


def in_a_fresh_process(run: Run) -> int | str:
    """What was measured, or the first line of why it wasn't."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measured, run).result()
        except Exception as error:
            return f"{type(error).__name__}: {error}".splitlines()[0]


def rows(runs: list[Run], family: str) -> Iterator[list[str]]:
    for run in runs:
        rung = next(rung for rung in RUNGS if rung.name == run.rung)
        prediction = predicted(family, run.resolution, run.batch, rung)
        found = in_a_fresh_process(run) if torch.cuda.is_available() else "–"
        figures = (
            [f"{found / GB:.2f}", f"{prediction / found:.2f}"] if isinstance(found, int) else [found, "–"]
        )
        yield [run.rung, str(run.batch), f"{prediction / GB:.2f}", *figures]


def predicted(family: str, resolution: int, batch: int, rung: Rung) -> int:
    needs = Needs(family, resolution**2, batch, RANK, TARGETS, text_encoders=False)
    return predict(needs, rung)


def compare(asked: argparse.Namespace, folder: str) -> None:
    found = find.describe(asked.model)
    resolution = asked.resolution or train_speed.resolution_of(found.path)
    make_images.write(Path(folder) / "images", 2 * max(asked.batch), resolution)
    runs = [
        Run(str(found.path), f"{folder}/images", resolution, batch, rung)
        for batch in asked.batch
        for rung in asked.memory
    ]
    if not torch.cuda.is_available():
        print("There is no card here: these are predictions, nothing is measured.")
    table = [TITLES]
    for row in rows(runs, found.family):
        print(*row, flush=True)  # at once: what follows may take long
        table.append(row)
    print(f"\n{found.title}, {resolution}², rank {RANK} on the {TARGETS} layers\n{aligned(table)}")
    for peer in train_speed.published(found.family, resolution, asked.batch):
        print(f"{peer['label']}, batch {peer['batch']}: {peer['reserved_gib']} GiB")


def count() -> None:
    import footprint

    for name, family in footprint.FAMILIES.items():
        print(footprint.as_python(name, footprint.footprint(family)), flush=True)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="starter", help="a diffusers folder, as make_model.py writes it")
    parser.add_argument("--resolution", type=int, help="the model's own unless given")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--memory", nargs="+", default=[rung.name for rung in RUNGS], help="rungs")
    parser.add_argument("--count", action="store_true", help="print the rows of lora_sd/footprint.py")
    asked = parser.parse_args(arguments)
    if asked.count:
        count()
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("LORA_SD_HOME", f"{folder}/home")
        compare(asked, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
