"""The line of waiting runs as the page uses it: everything that is to be trained goes through it, so that one run trains at a time.

A thread goes on with it while the program is open, with a browser or without.
"""

import contextlib
import sys
import threading
import time
from pathlib import Path

from lora_sd import queue

from . import drawing, story
from .words import say

LOOK = 1.0  # seconds between two looks
MOST_STEPS = 1_000_000


def begin(folder: Path, *options: str) -> None:
    """Train that run, now or when those before it are done. Raises ValueError where it can't be."""
    queue.add(folder, *options)
    with contextlib.suppress(ValueError):  # another program changes the line right now: `look` starts it
        queue.start_next(drawing.free)


def steps(text: str) -> str:
    """How much longer a run is to be trained. Raises ValueError for what is no number of steps."""
    number = text.strip().replace(",", "")
    if not (number.isascii() and number.isdecimal() and len(number) < 9 and 1 <= int(number) <= MOST_STEPS):
        raise ValueError(
            say("Write how many steps more, a number from 1 to {most}, like 500.", most=f"{MOST_STEPS:,}")
        )
    return str(int(number))


def change(act: str, run_id: str) -> None:
    """Move a waiting run one place "up" or "down", or take it out: "leave". One that does not wait any more stays as it is."""
    waiting = queue.waiting()
    for number, folder in enumerate(waiting, 1):
        if folder.name == run_id:
            new = number + {"up": -1, "down": 1, "leave": 0}[act]
            if act == "leave":
                queue.remove(folder)
            elif 1 <= new <= len(waiting):
                queue.move(folder, new)


def look(busy: str | None) -> str | None:
    """Start the next run if none is training; the id of the run that is, so that another one can be told from it next time.

    A trainer or the command line may have started it: then the card's memory is given back here.
    """
    runs = story.runs()
    training = next((found.folder.name for found in runs if found.state.active), None)
    if training:
        if training != busy:
            drawing.free()
        return training
    known = {folder.name for folder in queue.waiting()}
    queued = [found.folder for found in runs if found.state.status == "queued"]
    if {folder.name for folder in queued} - known:
        queue.put_back(queued)
    started = queue.start_next(drawing.free) if queued or known else None
    return started.name if started else None


def go_on() -> None:
    """Look again and again; whatever goes wrong once, like a disk that is away, is tried again."""
    busy, told = None, ""
    while True:
        try:
            busy = look(busy)
        except Exception as error:
            if str(error) != told:
                told = str(error)
                print(f"The line of waiting runs stands still: {told}", file=sys.stderr)
        time.sleep(LOOK)


def keep_going() -> None:
    """Begin to look, beside everything else."""
    threading.Thread(target=go_on, name="line", daemon=True).start()
