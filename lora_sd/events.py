"""What a run tells, while it runs: small records, one JSON line each in `events.jsonl`.

`Phase` is the exception: it says where the run is right now (preparing picture 5 of 24) and only `state.json` keeps it.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields

WITHOUT = "Training without"  # begins the note about a picture that is left out


@dataclass(frozen=True, kw_only=True)
class Event:
    t: float = field(default_factory=time.time)  # seconds since 1970

    @property
    def kind(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Phase(Event):
    """`status` is one word of the protocol (starting, caching, training …), `text` what a person reads."""

    status: str
    text: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Step(Event):
    """An optimizer step that is done. Step 0 has no loss: it carries the held-out loss of the base model."""

    step: int
    total: int
    loss: float | None = None  # mean over the global batch, after loss weights
    held_out: float | None = None  # mean denoising loss on pictures that are not trained on, where measured
    learning_rate: float | None = None
    gradient_norm: float | None = None  # before it was clipped
    seconds: float | None = None  # of this step
    memory: int | None = None  # bytes: peak on the card, or resident on the CPU
    left_out: bool | None = None  # True: loss or gradient were not finite, so nothing was changed


@dataclass(frozen=True)
class Preview(Event):
    step: int
    prompt: str
    index: int  # which of preview.prompts
    path: str  # relative to the run folder
    strength: float = 1.0


@dataclass(frozen=True)
class Saved(Event):
    step: int
    path: str  # relative to the run folder
    modules: dict[str, int] = field(default_factory=dict)  # {"unet": 192, "text_encoder": 72}
    best: float | None = None  # of the best file: its held-out loss, the lowest so far


@dataclass(frozen=True)
class Note(Event):
    """Something worth knowing; nothing has stopped."""

    text: str


@dataclass(frozen=True)
class Failed(Event):
    """The run ended early. `text` is for people; `details` is the traceback.

    `code` is that of errors.py, for which remedies.py says how to go on; `rung` is how memory was saved (footprint.RUNGS).
    """

    text: str
    details: str = ""
    code: str = ""
    rung: str = ""


@dataclass(frozen=True)
class Finished(Event):
    """The run ended as asked: at its last step, or earlier because someone stopped it."""

    step: int
    path: str  # the final LoRA, relative to the run folder
    stopped: bool = False
    left_out: int = 0  # steps that changed nothing, for their loss or gradient was not a number


KINDS: dict[str, type[Event]] = {
    c.__name__.lower(): c for c in (Phase, Step, Preview, Saved, Note, Failed, Finished)
}
OnEvent = Callable[[Event], None]


def to_line(event: Event) -> str:
    """One line of JSON without a newline; fields that are None are left out."""
    values = {name: value for name, value in asdict(event).items() if value is not None}
    return json.dumps(
        {"kind": event.kind, **values}
    )  # in ASCII: a caption may hold another sign for a line's end


def from_line(line: str) -> Event:
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError(f"an event is a table, and this is {line[:40]!r}")
    kind = KINDS[values.pop("kind")]
    known = {f.name for f in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in known})
