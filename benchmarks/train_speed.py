"""Speed of training, ours beside other programs: `python benchmarks/train_speed.py --model DIR --batch 1 4 8`.

Every row is a fresh process under steptime.py: our command line with rank 16 on the `transformer` layers, the U-Net only,
no previews and no saves; and each `--peer "label=path/to/script.py args…"`, in which {model}, {images}, {out},
{resolution}, {batch} and {steps} are filled in. `--starter` compares with peft_loop.py on the processor instead.
"""

import argparse
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import make_images

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lora_sd.models import find  # noqa: E402

BENCHMARKS = Path(__file__).parent
STREAMLINE = ROOT / "lora_sd" / "starter" / "sets" / "streamline" / "train"
RANK = 16
PER_EPOCH = 4  # batches: what a program does between epochs then is not the median
Result = dict[str, Any]  # what steptime.py prints


class Published(NamedTuple):
    """What another program took, measured once with these shapes and rank, bf16, 34 to 64 steps counted."""

    label: str
    family: str
    resolution: int
    batch: int
    ms_step: float
    images_s: float
    reserved_gib: float


# kohya's train_network.py, and diffusers' train_text_to_image_lora.py (attention layers only; it encodes in every step).
MARK = "¹"
NOTE = f"{MARK} published, one H100, torch 2.11"
PUBLISHED = (
    Published("sd-scripts", "sd15", 512, 1, 221, 4.5, 3.3),
    Published("sd-scripts", "sd15", 512, 4, 219, 18.3, 7.1),
    Published("sd-scripts", "sd15", 512, 8, 214, 37.4, 12.1),
    Published("sd-scripts, checkpointing", "sd15", 512, 4, 399, 10.0, 3.0),
    Published("diffusers", "sd15", 512, 1, 161, 6.2, 4.6),
    Published("diffusers", "sd15", 512, 4, 175, 22.9, 6.5),
    Published("sd-scripts", "sdxl", 1024, 1, 600, 1.67, 14.1),
    Published("sd-scripts, checkpointing", "sdxl", 1024, 4, 904, 4.4, 10.1),
)


def published(family: str, resolution: int, batches: list[int]) -> list[Result]:
    """The published figures at these settings, as results."""
    return [
        p._asdict() | {"label": f"{p.label} {MARK}"}
        for p in PUBLISHED
        if (p.family, p.resolution) == (family, resolution) and p.batch in batches
    ]


# What is run


class Workload(NamedTuple):
    model: str
    images: str
    resolution: int
    batch: int
    steps: int
    skip: int


def ours(work: Workload, *, memory: str = "auto", graph: str = "true") -> list[str]:
    """Our command line; what is at its default is left to the default."""
    words = f"-m lora_sd train --lora.rank {RANK} --lora.targets transformer --preview.every 0 --save.every 0".split()
    words += ["--model.base", work.model, "--data.images", work.images, "--data.resolution", work.resolution]
    words += ["--optim.batch_size", work.batch, "--optim.steps", work.steps]
    words += ["--machine.memory", memory] if memory != "auto" else []
    words += ["--machine.cuda_graph", graph] if graph != "true" else []
    return [str(word) for word in words]


def peer(template: str, work: Workload, out: str) -> list[str]:
    """The command of a peer, its placeholders filled in."""
    return [word.format(**work._asdict(), out=out) for word in shlex.split(template)]


def start(label: str, work: Workload, command: list[str], **options: Any) -> subprocess.Popen:
    """The command under steptime.py, in a process of its own."""
    words = [sys.executable, BENCHMARKS / "steptime.py", label, str(work.batch), str(work.skip), *command]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **options
    )


def finish(process: subprocess.Popen, label: str, work: Workload) -> Result:
    """Its figures, printed at once, for what follows may take long; without any, the end of what it said."""
    lines = process.communicate()[0].splitlines()
    found = [json.loads(line.removeprefix("RESULT ")) for line in lines if line.startswith("RESULT ")]
    result = found[0] if found else {"label": label, "batch": work.batch, "n": 0}
    if not result["n"]:
        print("\n".join([f"{label} at batch {work.batch} counted no steps:", *lines[-20:]]))
    print(json.dumps(result), flush=True)
    return result


def measure(label: str, work: Workload, command: list[str]) -> Result:
    return finish(start(label, work, command), label, work)


def in_turns(sides: dict[str, list[str]], work: Workload, environment: dict[str, str]) -> dict[str, Result]:
    """Two commands that take their steps in turns: the load of a busy machine falls on both alike."""
    (read_1, write_1), (read_2, write_2) = pipes = os.pipe(), os.pipe()
    os.write(write_1, b".")
    ends = ((read_1, write_2), (read_2, write_1))
    started = {
        label: start(
            label,
            work,
            command,
            pass_fds=mine,
            env={**os.environ, **environment, "TURN": ",".join(map(str, mine))},
        )
        for (label, command), mine in zip(sides.items(), ends, strict=True)
    }
    for end in (*pipes[0], *pipes[1]):
        os.close(end)  # so that each notices when the other has ended
    return {label: finish(process, label, work) for label, process in started.items()}


# What is printed

COLUMNS = {
    "": "label",
    "batch": "batch",
    "ms/step": "ms_step",
    "p10": "p10",
    "p90": "p90",
    "images/s": "images_s",
    "CPU ms": "cpu_ms",
    "peak GiB": "reserved_gib",
    "whole run": "run_reserved_gib",
    "in RAM": "resident_gib",
    "first step s": "first_step_s",
}


def table(results: list[Result], against: Iterable[str]) -> str:
    """A row for each result; the last columns are its images/s over those of each label of `against` at its batch."""
    shown = {title: key for title, key in COLUMNS.items() if any(key in result for result in results)}
    speed = {(result["label"], result["batch"]): result.get("images_s") for result in results}
    rows = [[*shown, *(f"× {label}" for label in against)]]
    for result in results:
        others = [speed.get((label, result["batch"])) for label in against]
        rows.append(
            [
                *(str(result.get(key, "–")) for key in shown.values()),
                *(_ratio(result.get("images_s"), other) for other in others),
            ]
        )
    return aligned(rows)


def _ratio(speed: float | None, other: float | None) -> str:
    return f"{speed / other:.2f}" if speed and other else "–"


def aligned(rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    )


# The two comparisons


def compare(asked: argparse.Namespace, folder: str) -> None:
    """Ours at each batch, rung and with or without the graph; peers at each batch; published figures below."""
    found = find.describe(asked.model)
    resolution = asked.resolution or resolution_of(found.path)
    peers = dict(given.split("=", 1) for given in asked.peer)
    results = []
    for batch, shapes in itertools.product(asked.batch, asked.shapes):
        images = asked.images or f"{folder}/{shapes}"
        if not asked.images:
            make_images.write(Path(images), PER_EPOCH * max(asked.batch) * shapes, resolution, shapes=shapes)
        work = Workload(str(found.path), images, resolution, batch, asked.steps, asked.skip)
        for label, command in commands(work, asked.memory, asked.graph, peers, folder):
            results.append(measure(label + f", {shapes} shapes" * (shapes > 1), work, command))
    reference = published(found.family, resolution, asked.batch)
    against = dict.fromkeys([*peers, *(result["label"] for result in reference)])
    print(f"\n{found.title}, {resolution}², rank {RANK} on the transformer layers")
    print(table(results + reference, against))
    if reference:
        print(NOTE)


def commands(
    work: Workload, memory: list[str], graph: list[str], peers: dict[str, str], out: str
) -> Iterator[tuple[str, list[str]]]:
    for rung in memory:
        for captured in graph:
            label = ", ".join(["ours", *[rung] * (rung != "auto"), *["eager"] * (captured == "false")])
            yield label, ours(work, memory=rung, graph=captured)
    for label, template in peers.items():
        yield label, peer(template, work, f"{out}/{label}")


def resolution_of(model: Path) -> int:
    return json.loads((model / "unet" / "config.json").read_text())["sample_size"] * 8


def starter(*, batch: int, steps: int, skip: int, repeats: int, threads: int) -> None:
    """Ours beside the PEFT loop on the processor, step by step in turns."""
    work = Workload(str(find.STARTER), str(STREAMLINE), resolution_of(find.STARTER), batch, steps, skip)
    loop = f"{BENCHMARKS / 'peft_loop.py'} --model {{model}} --images {{images}} --resolution {{resolution}} "
    sides = {
        "ours": [*ours(work), *"--machine.device cpu --loss.min_snr 0".split()],
        "PEFT loop": peer(loop + f"--batch {{batch}} --steps {{steps}} --rank {RANK}", work, ""),
    }
    environment = {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    rounds = [in_turns(sides, work, environment) for _ in range(repeats)]
    print(f"\nstarter, {work.resolution}², batch {batch}, rank {RANK}, {threads} threads, fp32")
    print(rounds_table(rounds))


def rounds_table(rounds: list[dict[str, Result]]) -> str:
    """Each round's medians by the clock and of processor time, with the ratios; the last row is the median of rounds."""
    numbers = [
        [one[side][key] for key in ("ms_step", "cpu_ms") for side in ("ours", "PEFT loop")] for one in rounds
    ]
    lines = [[*line, line[1] / line[0], line[3] / line[2]] for line in numbers]
    medians = [statistics.median(column) for column in zip(*lines, strict=True)]
    rows = [["round", "ours ms", "PEFT ms", "ours CPU ms", "PEFT CPU ms", "PEFT : ours", "by CPU time"]]
    for name, line in zip([*map(str, range(1, len(lines) + 1)), "median"], [*lines, medians], strict=True):
        rows.append([name, *(f"{ms:.0f}" for ms in line[:4]), *(f"{ratio:.2f}" for ratio in line[4:])])
    return aligned(rows)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="starter", help="a diffusers folder, as make_model.py writes it")
    parser.add_argument("--images", help="pictures with captions; made for it unless given")
    parser.add_argument("--resolution", type=int, help="the model's own unless given")
    parser.add_argument("--batch", type=int, nargs="+", default=[4])
    parser.add_argument("--memory", nargs="+", default=["auto"], help="rungs: auto fast low lowest")
    parser.add_argument("--graph", nargs="+", default=["true"], choices=["true", "false"])
    parser.add_argument(
        "--shapes", type=int, nargs="+", default=[1], help="sizes of the pictures that are made"
    )
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--skip", type=int, default=15, help="steps that don't count")
    parser.add_argument("--peer", action="append", default=[], metavar="LABEL=COMMAND")
    parser.add_argument("--starter", action="store_true", help="ours : PEFT loop, on the processor")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of --starter")
    parser.add_argument("--threads", type=int, default=2, help="of both sides of --starter")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("LORA_SD_HOME", f"{folder}/home")
        if asked.starter:
            for batch in asked.batch:
                starter(
                    batch=batch,
                    steps=asked.steps,
                    skip=asked.skip,
                    repeats=asked.repeats,
                    threads=asked.threads,
                )
        else:
            compare(asked, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
