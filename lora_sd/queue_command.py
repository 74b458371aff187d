"""`python -m lora_sd queue`: the line of waiting runs on the command line."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from . import config as cfg
from . import flags, queue, run

DONE, FAILED = 0, 1
LOOK = 0.5  # seconds between two looks at a run
Read = Callable[[list[str]], cfg.TrainConfig]  # [FILE.toml] and flags, as `train` takes them

USAGE = """usage: python -m lora_sd queue              the runs in line, with their numbers
       … queue add FILE.toml [--SETTING VALUE …]   a new run waits, with the settings that train would take
       … queue add RUN [--extend STEPS]            a run that ended waits to be resumed, or to be trained longer
       … queue remove NUMBER|RUN                   out of the line; its folder stays
       … queue move NUMBER|RUN PLACE               to another place, 1 is the next
       … queue run                                 train one after the other here, until none waits"""


def main(words: list[str], read: Read) -> int:
    queue.put_back(found.folder for found in run.list_runs())
    match words:
        case []:
            show()
        case ["-h" | "--help"]:
            print(USAGE)
        case ["add", *rest] if rest:
            add(rest, read)
        case ["remove", wanted]:
            folder = queue.find(wanted)
            queue.remove(folder)
            print(f"{folder.name} does not wait any more; its folder stays: {folder}")
        case ["move", wanted, place] if place.isdecimal():
            queue.move(queue.find(wanted), int(place))
            show()
        case ["run"]:
            return work_through()
        case _:
            raise ValueError(f"queue {' '.join(words)} is not a way to use it.\n{USAGE}")
    return DONE


def show() -> None:
    """The run that trains, and those that wait."""
    if busy := queue.active():
        print(f"   now  {described(busy)}")
    waiting = queue.waiting()
    for number, folder in enumerate(waiting, 1):
        print(f"{number:>6}  {described(folder)}")
    if not waiting:
        print("No run waits in line.")
    elif not busy:
        print("Nothing is training: the line goes on in the program, or with: python -m lora_sd queue run")


def described(folder: Path) -> str:
    state = run.read_state(folder)
    return f"{folder.name}  {state.place}  {folder}"


def add(words: list[str], read: Read) -> None:
    """Put a run of ours, or a new one of these settings, at the end."""
    folder = existing(words[0])
    if folder:
        options = words[1:]
        check(options, folder)
    else:
        folder, options = run.create(read(words), status="queued"), []
    place = queue.add(folder, *options)
    print(f"{folder.name} waits at place {place}: {folder}")


def existing(text: str) -> Path | None:
    """The run of that folder or id."""
    folder = Path(text).expanduser()
    return folder.resolve() if (folder / "config.toml").is_file() else run.find(text)


def check(options: list[str], folder: Path) -> None:
    """Raise the sentence now that `resume` would raise when the run's turn comes."""
    rest = [word for word in options if word != "--accept-changes"]
    if "--extend" in rest:
        place = rest.index("--extend")
        if not "".join(rest[place + 1 : place + 2]).isdecimal():
            raise ValueError("--extend takes a number of steps, such as --extend 500.")
        del rest[place : place + 2]
    flags.parse(rest, cfg.load(folder / "config.toml"))


def work_through() -> int:
    """Train what waits, one run after the other, and tell how each ended. FAILED if one failed."""
    outcome, busy, ahead = DONE, None, queue.waiting()
    try:
        while True:
            before, busy = busy, look()
            here = [*([busy] if busy else []), *queue.waiting()]
            for folder in (folder for folder in ahead if folder not in here):
                outcome |= told(folder)
            if busy and busy != before:
                print(f"Training {described(busy)}", flush=True)
            if not here:
                return outcome
            ahead = here
            time.sleep(LOOK)
    except KeyboardInterrupt:
        if busy:
            print(f"\n{busy.name} goes on, and the line after it; end it with: python -m lora_sd stop {busy}")
        raise


def look() -> Path | None:
    """The run that trains now, begun if none was."""
    with contextlib.suppress(ValueError):  # another program is just changing the line
        queue.start_next()
    return queue.active()


def told(folder: Path) -> int:
    """Say how a run ended."""
    state = run.read_state(folder)
    print(f"{folder.name}: {state.status} at step {state.step:,}. {state.error}".rstrip(), flush=True)
    return FAILED if state.status in ("failed", "interrupted") else DONE
