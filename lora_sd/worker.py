"""The process that makes pictures for the page: `python -m lora_sd.worker` reads JSON lines and answers with JSON lines.

in    {"id", "do": "generate", "base", "loras": [[path, strength], …], "prompt", "negative", "seed", "steps", "guidance",
       "sampler", "size": [w, h] or null, "device": "auto" or "cpu", "out": folder, "rank": of the first LoRA, where it is cut}
      {"id", "do": "load", "base", "loras", "device"}      {"do": "cancel", "id"}      {"do": "free"}
out   {"id", "kind": "progress", "done", "total"}   {"id", "kind": "picture", "path"}   {"id", "kind": "done", "counts"}
      {"id", "kind": "failed", "text", "details"}   {"id", "kind": "cancelled"}

A strength is a number, or the fields of a `Strength` with parts. The model, the LoRAs on it and the states of prompts stay
between pictures, so that another strength loads nothing; `counts` says how often each was loaded or encoded so far, and how
many milliseconds the parts of this picture took. `Client` is the other end; it has no torch.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from . import errors, infotext
from .lora.strength import Strength
from .run import beside, home

Message = dict[str, Any]
LAST = ("done", "failed", "cancelled")  # the kinds that end a job


class Client:
    """The worker as its user sees it: started when first needed, and again after it ended. One picture at a time."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.turn = threading.Lock()
        self.number = 0
        self.job: Message | None = None  # what is being made
        self.ready = False  # whether it has a model loaded

    def generate(self, **job: Any) -> Iterator[Message]:
        """Events of one picture, the last of kind done, failed or cancelled. Leaving early cancels it."""
        return self._ask("generate", job)

    def load(self, **job: Any) -> Message:
        """Have a model and its LoRAs loaded before a picture is asked for; how that ended."""
        *_, last = self._ask("load", job)
        return last

    def _ask(self, do: str, job: Message) -> Iterator[Message]:
        with self.turn:
            process = self._running()
            self.job = job
            self.number += 1
            number, ended = self.number, False
            try:
                self._tell({"id": number, "do": do, **job})
                for message in _messages(process.stdout):
                    if message.get("id") == number:
                        ended = message["kind"] in LAST
                        self.ready |= message["kind"] == "done"
                        yield message
                        if ended:
                            return
                ended = True
                yield {"id": number, "kind": "failed", "text": _last_words(process)}
            finally:
                self.job = None
                if not ended:
                    self.cancel()

    def cancel(self) -> None:
        """Give up the picture that is being made."""
        if self.alive:
            self._tell({"do": "cancel", "id": self.number})

    def free(self) -> None:
        """Give all memory back, the card's too, by ending the process; the next picture starts it again."""
        process, self.process = self.process, None
        if process:
            process.terminate()
            process.wait()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def _running(self) -> subprocess.Popen[str]:
        if not self.alive:
            self.ready = False
            home().mkdir(parents=True, exist_ok=True)
            with open(home() / "worker.log", "w", encoding="utf-8") as log:
                self.process = beside(["lora_sd.worker"], log)
        return self.process

    def _tell(self, message: Message) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has just ended: reading its answer tells
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()


def _messages(lines: IO[str]) -> Iterator[Message]:
    """The JSON objects among the lines."""
    for line in lines:
        with contextlib.suppress(ValueError):
            message = json.loads(line)
            if isinstance(message, dict):
                yield message


def _last_words(process: subprocess.Popen[str]) -> str:
    code = process.wait()
    if code < 0:
        return "The picture was given up: its program was ended to free memory, or by the system. Try again."
    return (
        f"The program that makes pictures ended unexpectedly (code {code}); worker.log tells more. Try again."
    )


class Cancelled(Exception):
    pass


class Studio:
    """What stays loaded between pictures: one base model, and the LoRAs that the last picture had on it."""

    def __init__(self) -> None:
        self.key: tuple[str, str] | None = None  # base, device
        self.models: Any = None
        self.attached: dict[tuple[str, int, Path | None], str] = {}  # (file, its time, its word's) -> name
        self.encoded: Any = None  # text states
        self.counts = {"models": 0, "loras": 0, "prompts": 0}
        self.took: dict[str, int] = {}  # milliseconds of the parts of the last picture

    def prepare(self, job: Message) -> None:
        """Load the model of a job and have its LoRAs on it."""
        with self._timed("load"):
            self._load(job["base"], job.get("device", "auto"))
            loras = _cut(job["loras"], job.get("rank"))
            self._put_on({path: _strength(given) for path, given in loras})

    def picture(self, job: Message, on_step: Callable[[int, int], None]) -> Path:
        """Make the picture of a job and give its file."""
        self.took = {}
        self.prepare(job)
        with self._timed("draw"):
            picture = self._draw(job, on_step)
        path = Path(job["out"]) / f"{time.time_ns()}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._timed("write"):
            infotext.save(picture, path, durable=False)
        self.counts["prompts"] = self.encoded.count
        return path

    def _draw(self, job: Message, on_step: Callable[[int, int], None]) -> Any:
        from . import sample

        [picture] = sample.generate(
            self.models,
            job["prompt"],
            negative=job["negative"],
            seeds=[job["seed"]],
            steps=job["steps"],
            guidance=job["guidance"],
            sampler=job["sampler"],
            size=tuple(job["size"]) if job["size"] else None,
            on_step=on_step,
            encode=self.encoded,
        )
        return picture

    @contextlib.contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.took[part] = round(1000 * (time.perf_counter() - began))

    def _load(self, base: str, device: str) -> None:
        if self.key == (base, device):
            return
        from .encoded import Encoded
        from .hardware import choose
        from .models.load import load

        self.free()
        where, dtype = choose(device, "auto")
        if where.type == "cpu":
            leave_a_core()
        self.models, self.encoded = load(base, dtype=dtype, device=where), Encoded()
        self.key = (base, device)
        self.counts["models"] += 1
        threading.Thread(target=_hash, args=(self.models,), daemon=True).start()

    def _put_on(self, loras: dict[str, Strength]) -> None:
        """Have exactly these LoRAs on the model: those that are on it stay, and only their strength changes."""
        from . import sample
        from .lora import beside

        wanted = {
            (path, os.stat(path).st_mtime_ns, beside.of(Path(path))): strength
            for path, strength in loras.items()
        }
        if self.attached.keys() != wanted.keys():
            self.encoded.forget()
        for key in self.attached.keys() - wanted.keys():
            sample.unload(self.models, self.attached.pop(key))
        for key, strength in wanted.items():
            if key in self.attached:
                sample.set_strength(self.models, self.attached[key], strength)
            else:
                self.attached[key] = sample.load_lora(self.models, key[0], strength)
                self.counts["loras"] += 1

    def free(self) -> None:
        """Let go of the model and its memory."""
        if self.models is None:
            return
        import gc

        import torch

        self.models, self.encoded, self.key, self.attached = None, None, None, {}
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def leave_a_core() -> None:
    """Work on all cores but one: page and browser need it, and threads that wait for each other lose four times as much to it."""
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))


def _cut(loras: list[list[Any]], rank: int | None) -> list[list[Any]]:
    """The LoRAs of a job, the first cut to `rank` where one is given."""
    if rank is None:
        return loras
    from .workshop.cut import cut

    (path, strength), *others = loras
    return [[str(cut(Path(path), rank, home() / "cache" / "ranks")), strength], *others]


def _strength(given: float | dict[str, Any]) -> Strength:
    return Strength(**given) if isinstance(given, dict) else Strength(given)


def _hash(models: Any) -> None:
    """Let a model know the hash of its file, which takes seconds the first time."""
    from .lora.metadata import file_hash

    with contextlib.suppress(OSError):
        models.sha256 = file_hash(models.path, home() / "cache" / "hashes.json")


class Desk:
    """Takes messages in on one thread, so that a cancel is heard while a picture is made on another."""

    def __init__(self, lines: IO[str], answers: IO[str]) -> None:
        self.jobs: queue.Queue[Message | None] = queue.Queue()
        self.cancelled = 0  # every job up to this number is given up
        self.lines, self.answers = lines, answers
        self.studio = Studio()

    def listen(self) -> None:
        for message in _messages(self.lines):
            if message["do"] == "cancel":
                self.cancelled = message["id"]
            else:
                self.jobs.put(message)
        self.cancelled = sys.maxsize  # nobody listens any more
        self.jobs.put(None)

    def work(self) -> None:
        threading.Thread(target=self.listen, daemon=True).start()
        while (job := self.jobs.get()) is not None:
            if job["do"] == "free":
                self.studio.free()
            else:
                self.answer(job["id"], **self.outcome(job))

    def outcome(self, job: Message) -> Message:
        """Do a job, and say how it ended."""
        try:
            if job["do"] == "load":
                self.studio.prepare(job)
                return {"kind": "done", "counts": self.studio.counts | self.studio.took}
            self.check(job["id"])
            path = self.studio.picture(job, lambda done, total: self.progress(job["id"], done, total))
        except Cancelled:
            return {"kind": "cancelled"}
        except Exception as error:
            return {"kind": "failed", "text": errors.sentence(error), "details": traceback.format_exc()}
        self.answer(job["id"], kind="picture", path=str(path))
        return {"kind": "done", "counts": self.studio.counts | self.studio.took}

    def check(self, number: int) -> None:
        if number <= self.cancelled:
            raise Cancelled

    def progress(self, number: int, done: int, total: int) -> None:
        self.check(number)
        self.answer(number, kind="progress", done=done, total=total)

    def answer(self, number: int, **message: Any) -> None:
        self.answers.write(json.dumps({"id": number, **message}) + "\n")
        self.answers.flush()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints goes to the log, not between the answers
    sys.stdin.reconfigure(encoding="utf-8")
    Desk(sys.stdin, answers).work()


if __name__ == "__main__":
    main()
