"""Any PyTorch training script, unchanged, timed: `python benchmarks/steptime.py LABEL BATCH SKIP script.py …`.

`-m module …` runs a module, ours too: `steptime.py ours 4 15 -m lora_sd train …`. The clock is read after every optimizer
step, when the card has finished; SKIP steps are left out. One line of JSON is printed, and added to the file $RESULTS.
"""

import itertools
import json
import os
import runpy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()  # before torch is imported: that is a part of the time to the first step
os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # read when torch loads; ours sets it, so everyone gets it

import psutil  # noqa: E402
import torch  # noqa: E402
from torch.optim.optimizer import register_optimizer_step_post_hook  # noqa: E402

ROOT = Path(__file__).parents[1]


class Stamps:
    """When each optimizer step was done, in seconds, and the peaks of memory before and after `skip` of them."""

    def __init__(self, skip: int):
        self.skip = skip
        self.times: list[float] = []
        self.processor: list[
            float
        ] = []  # seconds of all threads: beside other programs, steadier than the clock
        self.before = 0  # bytes reserved at most until the steps that count

    def __call__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())
        self.processor.append(time.process_time())
        if len(self.times) == self.skip and torch.cuda.is_available():
            self.before = torch.cuda.max_memory_reserved()
            torch.cuda.reset_peak_memory_stats()

    def memory(self) -> dict[str, float]:
        """Peaks in GiB: on the card in the steps that count and in the whole run, or resident on the CPU now."""
        if not torch.cuda.is_available():
            return {"resident_gib": _gib(psutil.Process().memory_info().rss)}
        reserved = torch.cuda.max_memory_reserved()
        return {
            "allocated_gib": _gib(torch.cuda.max_memory_allocated()),
            "reserved_gib": _gib(reserved),
            "run_reserved_gib": _gib(max(reserved, self.before)),
        }


def _gib(size: int) -> float:
    return round(size / 2**30, 2)


def figures(stamps: Stamps, *, batch: int, started: float) -> dict[str, float]:
    """Milliseconds of a step (median, tenth and ninetieth percentile) and images a second, without the skipped steps.

    `cpu_ms` is what the processor worked for a step. `n` alone where fewer than two steps are left.
    """
    steps = durations(stamps.times, stamps.skip)
    if not steps:
        return {"n": 0}
    return {
        "n": len(steps),
        "ms_step": round(statistics.median(steps) * 1e3, 2),
        "p10": round(steps[len(steps) // 10] * 1e3, 2),
        "p90": round(steps[len(steps) * 9 // 10] * 1e3, 2),
        "images_s": round(batch / statistics.median(steps), 2),
        "cpu_ms": round(statistics.median(durations(stamps.processor, stamps.skip)) * 1e3, 2),
        "first_step_s": round(stamps.times[0] - started, 1),
    }


def durations(times: list[float], skip: int) -> list[float]:
    """From each step to the next, shortest first; the clock starts when `skip` steps are done."""
    return sorted(after - before for before, after in itertools.pairwise(times[max(skip - 1, 0) :]))


def after_each_step(act: Callable[[], None]) -> None:
    """Call `act` after every step of every optimizer from now on."""
    register_optimizer_step_post_hook(lambda optimizer, args, kwargs: act())


def run(command: list[str]) -> None:
    """`script.py args…` or `-m module args…` as the main program of this process."""
    if command[0] == "-m":
        sys.argv = command[1:]
        sys.path.insert(0, str(ROOT))
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        sys.path.insert(0, str(Path(command[0]).resolve().parent))
        runpy.run_path(command[0], run_name="__main__")


def report(result: dict[str, Any]) -> None:
    line = json.dumps(result)
    print("RESULT", line, flush=True)
    if "RESULTS" in os.environ:
        with open(os.environ["RESULTS"], "a") as file:
            file.write(line + "\n")


def main(arguments: list[str]) -> None:
    if len(arguments) < 4:
        sys.exit(__doc__)
    label, batch, skip, *command = arguments
    stamps = Stamps(int(skip))
    after_each_step(stamps)
    try:
        run(command)
    finally:  # scripts end with sys.exit, and one that fails late has been timed all the same
        timed = figures(stamps, batch=int(batch), started=STARTED)
        report({"label": label, "batch": int(batch), **timed, **stamps.memory()})


if __name__ == "__main__":
    main(sys.argv[1:])
