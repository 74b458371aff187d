"""Kills the real trainer again and again, and compares what it comes to with a run that nothing happened to.

    python tests/faults/kills.py [--kills 40] [--seed 0]        about 10 seconds a kill on two cores

Half of the kills come at a random moment, half at a random file operation: between opening, writing, syncing and renaming.
Now and then a cache file is cut short or the cache is gone, so that caching happens, and is killed, again.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import harness  # noqa: E402

from lora_sd import config as cfg  # noqa: E402
from lora_sd import run  # noqa: E402

SETTINGS = {
    "data.images": "starter:streamline",
    "validate.images": "starter:streamline/heldout",
    "validate.every": 9,
    "lora.rank": 4,
    "optim.steps": 24,
    "optim.schedule": "cosine",
    "optim.learning_rate": 1e-3,
    "save.every": 8,
    "save.state_every": 2,
    "preview.every": 6,
    "preview.steps": 2,
    "preview.prompts": ["a cat face", "an apple"],
}
WHERE = {
    "/cache/": "caching",
    "/state/": "saving",
    "/checkpoints/": "saving",
    "/previews/": "preview",
    "preview": "preview",
    "Preparing": "caching",
    "caption": "caching",
    "Training": "training",
}
LONGEST = 12.0  # seconds that a trainer may live


class Campaign:
    """One undisturbed run as the measure, and disturbed ones until there were enough kills."""

    def __init__(self, settings: dict[str, Any], seed: int, say: Callable[[str], None] = print):
        self.config = cfg.changed(cfg.TrainConfig(), settings)
        self.rng = random.Random(seed)
        self.say = say
        self.phases: Counter[str] = Counter()  # where the kills hit
        self.seconds, self.operations, self.expected = self.undisturbed()

    def undisturbed(self) -> tuple[float, int, dict[str, Any]]:
        folder, counter = run.create(self.config), run.home() / "operations"
        began = time.monotonic()
        code = harness.wait(harness.start(folder, harness.counting(counter)))
        assert code == 0, (folder / "log.txt").read_text()
        return time.monotonic() - began, counter.stat().st_size, harness.outcome(folder)

    def disturbed(self, kills: int) -> int:
        """Kill until there were `kills`; every run that comes to its end is compared. Gives the number of ends."""
        ends = 0
        while self.phases.total() < kills or not ends:
            folder = run.create(self.config)
            for _ in self.attempts(folder, kills):
                pass
            assert harness.outcome(folder) == self.expected, f"{folder} came to something else"
            ends += 1
            self.say(f"The end of {folder.name} is the undisturbed one, byte for byte")
            shutil.rmtree(folder)
        return ends

    def attempts(self, folder: Path, kills: int) -> Iterator[None]:
        """Start the trainer and kill it, until it ends by itself."""
        while True:
            self.disturb_cache()
            alive = self.phases.total() >= kills
            code = self.undisturbed_attempt(folder) if alive else self.killed(folder)
            if code == 0:
                return
            assert code == -9, f"exit code {code}: {(folder / 'log.txt').read_text()[-3000:]}"
            state = run.read_state(folder)
            unreported = state.status == "starting" and not state.pid  # killed before it said a word
            assert state.status in ("interrupted", "finished") or unreported, state
            self.phases[self.where(state)] += 1
            operation = self.last_words.read_text().replace(str(run.home()), "")
            self.say(f"kill {self.phases.total():3}  step {state.step:3}  {self.where(state):10} {operation}")
            if state.status == "finished":  # killed on its way out
                return
            yield

    def undisturbed_attempt(self, folder: Path) -> int:
        return harness.wait(harness.start(folder))

    def killed(self, folder: Path) -> int:
        """An attempt that is killed unless it ends before."""
        self.last_words.write_text("")
        if self.rng.random() < 0.5:
            # like the operations of a whole run: many in caching, and in states, files and previews
            number = self.rng.randrange(self.operations)
            return harness.wait(harness.start(folder, harness.dying_at(number, self.last_words)))
        pid = harness.start(folder)
        code = harness.wait(pid, self.rng.uniform(0, min(LONGEST, self.seconds)))
        return harness.kill(pid) if code is None else code

    def where(self, state: run.State) -> str:
        """What the trainer was at: by the file it had to do with, else by what it said last."""
        words = f"{self.last_words.read_text().replace(str(run.home()), '')} {state.phase}"
        return next((name for word, name in WHERE.items() if word in words), "starting")

    @property
    def last_words(self) -> Path:
        return run.home() / "last_words"

    def disturb_cache(self) -> None:
        """In half of the cases; it must come to nothing but work."""
        files = sorted((run.home() / "cache").rglob("*.bin"))
        chance = self.rng.random()
        if chance < 0.3:
            shutil.rmtree(run.home() / "cache")
        elif chance < 0.5:
            for path in self.rng.sample(files, min(5, len(files))):
                os.truncate(path, self.rng.randrange(path.stat().st_size))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--settings", type=json.loads, default=SETTINGS, help="other ones, as JSON by dotted name"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["LORA_SD_HOME"] = home
        began = time.monotonic()
        campaign = Campaign(asked.settings, asked.seed)
        ends = campaign.disturbed(asked.kills)
        hits = ", ".join(f"{count} while {phase}" for phase, count in campaign.phases.most_common())
        print(
            f"{campaign.phases.total()} kills ({hits}) in {time.monotonic() - began:.0f} s; {ends} runs came to their end, "
            "each with the bytes of the undisturbed one"
        )


if __name__ == "__main__":
    main()
