"""Where a step's time goes: `python benchmarks/profile_step.py 20 -m lora_sd train …`, a table of the longest kernels.

Takes the command as steptime.py does, lets so many steps go by and profiles the next few; kernels that a replayed graph
starts are seen too.
"""

import contextlib
import sys

import torch
from steptime import after_each_step, run
from torch.profiler import ProfilerActivity, profile

STEPS = 3
ROWS = 40


class Window:
    """Profiles STEPS steps after the first `skip`; called after each."""

    def __init__(self, skip: int):
        self.skip = skip
        self.done = 0
        on_card = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        self.profile = profile(activities=[ProfilerActivity.CPU, *on_card])

    def __call__(self) -> None:
        self.done += 1
        if self.done in (self.skip, self.skip + STEPS) and torch.cuda.is_available():
            torch.cuda.synchronize()
        if self.done == self.skip:
            self.profile.start()
        if self.done == self.skip + STEPS:
            self.profile.stop()

    def table(self) -> str:
        where = "device" if torch.cuda.is_available() else "cpu"
        return self.profile.key_averages().table(
            sort_by=f"self_{where}_time_total", row_limit=ROWS, max_name_column_width=90
        )


def main(arguments: list[str]) -> None:
    if len(arguments) < 2:
        sys.exit(__doc__)
    window = Window(int(arguments[0]))
    after_each_step(window)
    with contextlib.suppress(SystemExit):  # as our command line ends
        run(arguments[1:])
    if window.done < window.skip + STEPS:
        sys.exit(f"There were {window.done} steps; the profile needs {window.skip + STEPS}.")
    print(f"{STEPS} steps after the first {window.skip}")
    print(window.table())


if __name__ == "__main__":
    main(sys.argv[1:])
