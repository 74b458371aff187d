"""The line of runs that wait their turn: on disk, so that it outlives every program, and in an order that can be changed.

HOME/queue/   queue.json: {"waiting": [{"run": folder, "options": ["--extend", "500"], "before": "finished"}, …], "last": folder}
              .lock: held by whoever changes the line or takes a run out of it

A run that waits has the status "queued"; the file holds only the order. Who wants to train puts a run in (`add`) and asks for
the next one (`start_next`): the page does, the command line, and every trainer that comes to its end.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from . import config as cfg
from . import lock, run
from .files import write_text

SETTLED = 10.0  # seconds after which a queued run is not about to be put in line any more
BUSY = "The line of waiting runs is being changed by another program; try again in a moment."


@dataclass(frozen=True)
class Place:
    """One run in the line."""

    run: str  # its folder
    options: tuple[str, ...] = ()  # of `lora_sd resume`
    before: str = "stopped"  # the status it goes back to when it is taken out

    @property
    def folder(self) -> Path:
        return Path(self.run)

    @property
    def waits(self) -> bool:
        """Whether it is to be trained still: queued, or no trainer began because who started one was ended meanwhile."""
        state = run.read_state(self.folder)
        cut_short = state.status in ("starting", "interrupted") and not state.pid
        return (state.status == "queued" or cut_short) and (self.folder / "config.toml").is_file()


def places() -> list[Place]:
    """Who waits, the next one first."""
    return [place for place in _read()[0] if place.waits]


def waiting() -> list[Path]:
    """The runs in line, the next one first."""
    return [place.folder for place in places()]


def find(wanted: str) -> Path:
    """The waiting run of that place in line (1 is the next), id or folder. Raises ValueError if there is none."""
    found = waiting()
    if wanted.isdecimal() and 1 <= int(wanted) <= len(found):
        return found[int(wanted) - 1]
    for folder in found:
        if wanted in (folder.name, str(folder)) or folder == Path(wanted).resolve():
            return folder
    count = f"{len(found)} wait" if len(found) > 1 else "one waits" if found else "none waits"
    raise ValueError(f"No run {wanted!r} waits in line ({count}); see them with: lora_sd queue.")


def add(folder: Path, *options: str) -> int:
    """Put a run at the end of the line and give its place; one that is in it already stays where it is.

    `options` are those of `lora_sd resume`: `--extend 500`, `--accept-changes`.
    """
    folder = folder.resolve()
    cfg.load(folder / "config.toml")
    with _line() as line:
        state = run.read_state(folder)
        if state.active:
            raise ValueError(f"{folder.name} is training already.")
        if state.status == "finished" and not options:
            raise ValueError(
                f"{folder.name} is finished; to train it longer, say how many steps: --extend 500."
            )
        known = [place.folder for place in line]
        if folder in known:
            number = known.index(folder)
            line[number] = Place(str(folder), options or line[number].options, line[number].before)
        else:
            number = len(line)
            line.append(Place(str(folder), options, _before(state)))
            _write(line)  # first: a queued run in no line would not know its options
        state.status, state.phase = "queued", "Waiting"
        run.write_state(folder, state)
    return number + 1


def remove(folder: Path) -> None:
    """Take a run out of the line. It is as it was before; one that never began can be started from its folder."""
    with _line() as line:
        for place in [place for place in line if place.folder == folder.resolve()]:
            state = run.read_state(folder)
            state.status, state.phase = place.before, ""
            run.write_state(folder, state)
            line.remove(place)


def move(folder: Path, number: int) -> None:
    """Put a waiting run at another place in line, 1 for the next."""
    with _line() as line:
        if not 1 <= number <= len(line):
            raise ValueError(f"There is no place {number} in line; it goes from 1 to {len(line)}.")
        for place in [place for place in line if place.folder == folder.resolve()]:
            line.remove(place)
            line.insert(number - 1, place)


def put_back(runs: Iterable[Path]) -> None:
    """Runs that are queued but in no line, because a program was ended or the file was lost, wait at its end.

    One that has just been made is about to be put in by its maker.
    """
    with _line() as line:
        known = {place.folder for place in line}
        for folder in (folder.resolve() for folder in runs):
            state = run.read_state(folder)
            if folder not in known and state.status == "queued" and time.time() - state.t > SETTLED:
                line.append(Place(str(folder), before=_before(state)))


def start_next(get_ready: Callable[[], object] = lambda: None) -> Path | None:
    """Train the first run in line that can be, unless one is training already; give its folder.

    However many ask at once, it is started once. `get_ready` is called before. A run that can't be started has failed
    and says why; the next one gets its turn.
    """
    with _line() as line:
        if active(place.folder.parent for place in line):
            return None
        while line:
            place = line[0]
            try:
                cfg.load(place.folder / "config.toml")
                get_ready()
                run.start(place.folder, *place.options)
            except (ValueError, OSError) as error:
                _fail(place.folder, f"It could not be started: {error}")
            else:
                _write(line[1:], last=place.folder)
                return place.folder
            finally:
                del line[0]
    return None


def active(roots: Iterable[Path] = ()) -> Path | None:
    """A run that is training now, in our home, in `roots`, or beside the last one that came out of the line."""
    last = _read()[1]
    folders = {run.home() / "runs", *roots, *([last.parent] if last else [])}
    found = (each.folder for folder in folders for each in run.list_runs(folder) if each.state.active)
    return next((folder.resolve() for folder in found), None)


def go_on(ended: Path) -> None:
    """What the trainer of `ended` does last: start the next run, so that the line goes on with every program closed."""
    if run.CHILD not in os.environ:  # a person's own, who wants the terminal back
        return
    try:
        state = run.read_state(ended)
        if state.status == "starting" and not state.pid:  # it never came to writing down why
            _fail(ended, "It could not be started; the log says why.")
        put_back(found.folder for found in run.list_runs())
        start_next()
    except Exception as error:  # the run that ends here has its result, whatever happens to others
        print(f"The next run in line could not be started: {error}", file=sys.stderr)


# -- the file --------------------------------------------------------------------------------------------------------


def _folder() -> Path:
    return run.home() / "queue"


@contextmanager
def _line() -> Iterator[list[Place]]:
    """The places of those who wait, to be changed by nobody else meanwhile; written down at the end."""
    _folder().mkdir(parents=True, exist_ok=True)
    with lock.hold(_folder(), BUSY):
        before, _ = _read()
        places = [place for place in before if place.waits]
        yield places
        if places != _read()[0]:
            _write(places)


def _read() -> tuple[list[Place], Path | None]:
    """Who stands in line, and which run came out of it last. A file that is damaged holds nobody: see `put_back`."""
    try:
        values = json.loads((_folder() / "queue.json").read_text(encoding="utf-8"))
        places = [Place(p["run"], tuple(p["options"]), p["before"]) for p in values["waiting"]]
        return places, Path(values["last"]) if values["last"] else None
    except (OSError, ValueError, TypeError, KeyError):
        return [], None


def _write(places: list[Place], last: Path | None = None) -> None:
    last = last or _read()[1]
    values = {"waiting": [asdict(place) for place in places], "last": str(last) if last else ""}
    write_text(_folder() / "queue.json", json.dumps(values, ensure_ascii=False, indent=1))


def _before(state: run.State) -> str:
    """What a run is that does not wait any more."""
    if state.status != "queued":
        return state.status
    return "finished" if 0 < state.total <= state.step else "stopped"


def _fail(folder: Path, sentence: str) -> None:
    """A run whose folder is gone has nothing to say."""
    if folder.is_dir():
        state = run.read_state(folder)
        state.status, state.error = "failed", sentence
        run.write_state(folder, state)
