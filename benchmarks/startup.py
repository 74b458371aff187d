"""Seconds from the command to the first step: `python benchmarks/startup.py --model DIR`, without one the starter model.

`lora_sd train` in a fresh process, for one step: cold with an empty home, so that pictures and captions are encoded, and
warm with the caches of the run before. Files are in the system's memory after the first run of all, which is not
counted. Beside it `import diffusers` alone, which every program of this kind pays before it loads a model.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import make_images
from train_speed import aligned

ROOT = Path(__file__).parents[1]
PHASES = ("imports", "pictures and load", "caches", "first step")


def child(arguments: list[str]) -> None:
    """The command line with a clock on what it tells; prints when each phase was over, in seconds of unix time."""
    sys.path.insert(0, str(ROOT))
    from lora_sd import __main__ as program
    from lora_sd.events import Phase, Step

    ends: dict[str, float] = {}

    class Clocked(program.Progress):
        def __call__(self, event: object) -> None:
            match event:
                case Phase(status="starting"):
                    ends.setdefault("imports", time.time())
                case Phase(status="caching"):
                    ends.setdefault("pictures and load", time.time())
                case Phase(status="training"):
                    ends.setdefault("caches", time.time())
                case Step(step=1):
                    ends.setdefault("first step", time.time())
                    print(json.dumps(ends), flush=True)

    program.Progress = Clocked
    sys.argv = ["lora_sd", "train", *arguments]
    sys.exit(program.main())


def start(home: Path, arguments: list[str]) -> dict[str, float]:
    """Seconds of each phase of a fresh process."""
    began = time.time()
    done = subprocess.run(
        [sys.executable, __file__, "--child", *arguments],
        env={**os.environ, "LORA_SD_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    ends = json.loads(done.stdout.splitlines()[0])
    times = [began, *(ends[phase] for phase in PHASES)]
    return {phase: after - before for phase, before, after in zip(PHASES, times, times[1:], strict=False)}


def importing(what: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {what}"], check=True)
    return time.perf_counter() - began


def measure(arguments: list[str], repeats: int) -> tuple[dict[str, dict[str, float]], float]:
    """Median seconds of each phase, cold and warm; and those of `import diffusers`."""
    rounds: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    imports = []
    with tempfile.TemporaryDirectory() as home:
        start(Path(home), arguments)
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as home:
            for found in rounds.values():
                found.append(start(Path(home), arguments))
        imports.append(importing("diffusers"))
    medians = {
        name: {phase: statistics.median(one[phase] for one in found) for phase in PHASES}
        for name, found in rounds.items()
    }
    return medians, statistics.median(imports)


def table(medians: dict[str, dict[str, float]], diffusers: float) -> str:
    """Seconds, and how many times `import diffusers` they are."""
    rows = [["seconds", *(title for name in medians for title in (name, "× import diffusers"))]]
    for phase in (*PHASES, "together"):
        cells = [sum(found.values()) if phase == "together" else found[phase] for found in medians.values()]
        rows.append([phase, *(cell for s in cells for cell in (f"{s:.2f}", f"{s / diffusers:.2f}"))])
    rows.append(["import diffusers", f"{diffusers:.2f}", "1.00", *["–"] * (2 * len(medians) - 2)])
    return aligned(rows)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument(
        "--resolution", type=int, default=0, help="side in pixels; the model's own unless given"
    )
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        make_images.write(Path(folder), asked.pictures, asked.resolution or 512)
        settings = {
            "model.base": asked.model,
            "data.images": folder,
            "optim.steps": 1,
            "optim.batch_size": 1,
            "preview.every": 0,
        } | ({"data.resolution": asked.resolution} if asked.resolution else {})
        flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        print(f"{Path(asked.model).name}, {asked.pictures} pictures, one step at batch 1")
        print(table(*measure(flags, asked.repeats)))


if __name__ == "__main__":
    child(sys.argv[2:]) if sys.argv[1:2] == ["--child"] else main(sys.argv[1:])
