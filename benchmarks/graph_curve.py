"""Does the recorded step learn what the plain one does? `python benchmarks/graph_curve.py --model DIR --images DIR`.

The same run three times: plain, plain again, recorded. Half-precision sums on a card are not bitwise the same twice, so the
difference of the two plain runs is the measure for the third. Prints the curves as means over tenths of the run.
"""

import argparse
import os
import statistics
import sys
import tempfile

from train_speed import RANK, ROOT, aligned

sys.path.insert(0, str(ROOT))

from lora_sd import config as cfg
from lora_sd.events import Event, Step

ROWS = 10


def losses(config: cfg.TrainConfig) -> list[float]:
    """The loss of every step of a training run."""
    from lora_sd import train

    found: list[float] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Step) and event.loss is not None:
            found.append(event.loss)

    train(config, on_event)
    return found


def differences(curve: list[float], reference: list[float]) -> list[float]:
    """Of each step, relative to the reference's loss."""
    return [abs(a - b) / abs(b) for a, b in zip(curve, reference, strict=True)]


def table(curves: dict[str, list[float]]) -> str:
    """Mean losses over stretches of the run; below, how far each curve is from the first, in percent of its loss."""
    length = len(next(iter(curves.values())))
    stretch = max(1, length // ROWS)
    rows = [["steps", *curves]]
    for start in range(0, length, stretch):
        means = [statistics.mean(curve[start : start + stretch]) for curve in curves.values()]
        rows.append([f"{start + 1}–{min(start + stretch, length)}", *(f"{mean:.5f}" for mean in means)])
    first, *others = curves.values()
    apart = [differences(curve, first) for curve in others]
    for name, summary in (("mean apart", statistics.mean), ("most apart", max)):
        rows.append([name, "", *(f"{summary(found):.3%}" for found in apart)])
    return aligned(rows)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--images", default="starter:streamline")
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=200)
    asked = parser.parse_args(arguments)
    plain = cfg.changed(
        cfg.TrainConfig(),
        {
            "model.base": asked.model,
            "data.images": asked.images,
            "data.resolution": asked.resolution,
            "lora.rank": RANK,
            "lora.targets": "transformer",
            "optim.batch_size": asked.batch,
            "optim.steps": asked.steps,
            "preview.every": 0,
            "save.every": 0,
            "machine.cuda_graph": False,
        },
    )
    recorded = cfg.changed(plain, {"machine.cuda_graph": True})
    with tempfile.TemporaryDirectory() as home:
        os.environ.setdefault("LORA_SD_HOME", home)
        runs = {"plain": plain, "plain again": plain, "recorded": recorded}
        curves = {name: losses(config) for name, config in runs.items()}
    print(f"{asked.model}, {asked.steps} steps at batch {asked.batch}, rank {RANK}: loss")
    print(table(curves))


if __name__ == "__main__":
    main(sys.argv[1:])
