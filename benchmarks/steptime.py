"""Any PyTorch training script, unchanged, timed: `python benchmarks/steptime.py LABEL BATCH SKIP script.py …`.

`-m module …` runs a module, ours too: `steptime.py ours 4 15 -m lora_sd train …`. The clock is read after every optimizer
step, when the card has finished; SKIP steps are left out. One line of JSON is printed, and added to the file $RESULTS.
"""

import contextlib
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


class Turn:
    """A token that goes round: who has it takes the next step, so that other programs' load falls on all alike.

    $TURN is "READ,WRITE", two open ends of pipes: from the process before and to the process after.
    """

    def __init__(self, read: int, write: int):
        self.read, self.write = read, write
        self.mine = False

    def pass_on(self) -> None:
        """Give the token away, where it is ours, and wait for it to come back."""
        if self.mine:
            with contextlib.suppress(BrokenPipeError):  # the other has ended
                os.write(self.write, b".")
        os.read(self.read, 1)  # comes back empty when the other has ended
        self.mine = True


class Steps:
    """What each optimizer step took, and the peaks of memory before and after the first `skip`; called after each."""

    def __init__(self, skip: int, turn: Turn | None = None):
        self.skip = skip
        self.turn = turn
        self.seconds: list[float] = []  # by the clock; of the first step, from the start of the process
        self.processor: list[float] = []  # of work of all threads: on a busy machine steadier than the clock
        self.reserved = 0  # bytes at most in the first `skip`
        self.began, self.worked = STARTED, 0.0

    def __call__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.began)
        self.processor.append(time.process_time() - self.worked)
        if len(self.seconds) == self.skip and torch.cuda.is_available():
            self.reserved = torch.cuda.max_memory_reserved()
            torch.cuda.reset_peak_memory_stats()
        if self.turn:
            self.turn.pass_on()
        self.began, self.worked = time.perf_counter(), time.process_time()

    def figures(self, batch: int) -> dict[str, float]:
        """Milliseconds of a step (median, tenth and ninetieth percentile) and images a second, after the skipped ones.

        `cpu_ms` is what the processor worked for a step. `n` alone where none is left.
        """
        counted = sorted(self.seconds[self.skip :])
        if not counted:
            return {"n": 0}
        return {
            "n": len(counted),
            "ms_step": round(statistics.median(counted) * 1e3, 2),
            "p10": round(counted[len(counted) // 10] * 1e3, 2),
            "p90": round(counted[len(counted) * 9 // 10] * 1e3, 2),
            "images_s": round(batch / statistics.median(counted), 2),
            "cpu_ms": round(statistics.median(self.processor[self.skip :]) * 1e3, 2),
            "first_step_s": round(self.seconds[0], 1),
        }

    def memory(self) -> dict[str, float]:
        """Peaks in GiB: on the card in the steps that count and in the whole run, or resident on the CPU now."""
        if not torch.cuda.is_available():
            return {"resident_gib": _gib(psutil.Process().memory_info().rss)}
        reserved = torch.cuda.max_memory_reserved()
        return {
            "allocated_gib": _gib(torch.cuda.max_memory_allocated()),
            "reserved_gib": _gib(reserved),
            "run_reserved_gib": _gib(max(reserved, self.reserved)),
        }


def _gib(size: int) -> float:
    return round(size / 2**30, 2)


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
    turn = Turn(*map(int, os.environ["TURN"].split(","))) if "TURN" in os.environ else None
    steps = Steps(int(skip), turn)
    after_each_step(steps)
    try:
        run(command)
    finally:  # scripts end with sys.exit, and one that fails late has been timed all the same
        report({"label": label, "batch": int(batch), **steps.figures(int(batch)), **steps.memory()})


if __name__ == "__main__":
    main(sys.argv[1:])
