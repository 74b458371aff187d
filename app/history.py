"""What was changed in a project's pictures, one line an edit, so that each can be undone and done again after a restart, too.

history.jsonl   {"changes": [["a.png", "caption", before, after], …]}, {"undo": true}, {"redo": true}; lines are only added
"""

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from . import captions
from .project import Project
from .words import say

MOST = 200  # edits that can be undone
KINDS = {"caption": str, "on": bool, "times": int}  # what can be changed of a picture


class Change(NamedTuple):
    name: str  # of the picture, below the project's folder of pictures
    what: str
    before: Any
    after: Any

    @property
    def back(self) -> "Change":
        return self._replace(before=self.after, after=self.before)


@dataclass
class History:
    """The edits of one project: those that can be undone, and those that were."""

    done: list[list[Change]] = field(default_factory=list)
    undone: list[list[Change]] = field(default_factory=list)
    offset: int = 0  # bytes of the file that are read
    lock: threading.RLock = field(default_factory=threading.RLock)

    def tell(self, line: bytes) -> None:
        match _line(line):
            case {"changes": list(changes)}:
                self.done = [*self.done, _changes(changes)][-MOST:]
                self.undone = []
            case {"undo": True} if self.done:
                self.undone.append(self.done.pop())
            case {"redo": True} if self.undone:
                self.done.append(self.undone.pop())


class Left(NamedTuple):
    """What an undo has done."""

    changed: int
    left: list[str]  # pictures that were changed elsewhere since, and stay as they are


_known: dict[Path, History] = {}


def of(project: Project) -> History:
    """Its history as it is on disk; reading goes on where it stopped."""
    file = project.folder / "history.jsonl"
    history = _known.setdefault(file, History())
    with history.lock:
        if not file.exists():
            history.done, history.undone, history.offset = [], [], 0
            return history
        with open(file, "rb") as lines:
            lines.seek(history.offset)
            for line in lines.read().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    history.tell(line)
                    history.offset += len(line)
    return history


def make(project: Project, changes: Iterable[Change]) -> Left:
    """Change pictures, as one edit. Those that are not as `before` says any more stay as they are."""
    with of(project).lock:
        made, left = _apply(project, changes)
        if made:
            _add(project, {"changes": made})
        return Left(len(made), left)


def undo(project: Project) -> Left:
    history = of(project)
    with history.lock:
        if not history.done:
            raise ValueError(say("There is nothing to undo."))
        made, left = _apply(project, [change.back for change in history.done[-1]])
        _add(project, {"undo": True})
        return Left(len(made), left)


def redo(project: Project) -> Left:
    history = of(project)
    with history.lock:
        if not history.undone:
            raise ValueError(say("There is nothing to do again."))
        made, left = _apply(project, history.undone[-1])
        _add(project, {"redo": True})
        return Left(len(made), left)


def _apply(project: Project, changes: Iterable[Change]) -> tuple[list[Change], list[str]]:
    """What could be changed, and the names of what could not."""
    changes = list(changes)
    names = {change.name for change in changes}
    pictures = {name: path for path in project.pictures() if (name := project.name_of(path)) in names}
    texts = captions.read(project, list(pictures.values()))
    uses = project.uses()
    made: list[Change] = []
    left: list[str] = []
    for change in changes:
        path = pictures.get(change.name)
        now = uses.get(change.name, {"on": True, "times": 1}) | {"caption": texts.get(path, "")}
        if path is None or now[change.what] != change.before:
            left.append(change.name)
        else:
            made.append(change)
    written: list[Change] = []
    try:
        for change in made:
            if change.what == "caption":
                captions.write(pictures[change.name], change.after)
            written.append(change)
    except OSError:  # what is written can be undone
        _add(project, {"changes": [change for change in written if change.what == "caption"]})
        raise
    project.use({change.name: {change.what: change.after} for change in made if change.what != "caption"})
    return made, left


def _add(project: Project, entry: dict[str, Any]) -> None:
    """One more line; what a crash left of another before it is ended first."""
    project.folder.mkdir(parents=True, exist_ok=True)
    file = project.folder / "history.jsonl"
    with open(file, "a+b") as lines:
        if lines.tell():
            lines.seek(-1, 2)
            torn = lines.read(1) != b"\n"
            lines.write(b"\n" if torn else b"")
        lines.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
    of(project)


def _line(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _changes(told: list[Any]) -> list[Change]:
    """Those of a line that are whole; a person may have written in the file."""
    changes = [Change(*one) for one in told if isinstance(one, list) and len(one) == 4]
    return [
        change
        for change in changes
        if isinstance(change.name, str)
        and isinstance(change.what, str)
        and change.what in KINDS
        and type(change.before) is type(change.after) is KINDS[change.what]
    ]
