"""The workshop's command that the page has begun: one at a time, in a process of its own, whatever tab is open.

It is the command that the page shows, with `--events` (lora_sd/telling.py); here its lines are read and kept.
"""

import contextlib
import json
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from lora_sd import run
from lora_sd.telling import CANCEL

from . import loras, models
from .tools_act import Act
from .words import say

LOG = "workshop.log"


@dataclass
class Desk:
    tool: str = ""
    act: Act | None = None
    text: str = ""  # of the progress
    done: int = 0
    total: int = 0
    outcome: str = ""  # what the command told at its end, as JSON
    error: str = ""
    running: bool = False
    stop: bool = False
    finished: int = 0  # how many have ended: a change tells the menus to look again
    offer: Path | None = None  # a copy of the new LoRA that the page may hand out
    process: subprocess.Popen[str] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, tool: str, act: Act) -> None:
        """ValueError while another command is at work."""
        with self.lock:
            if self.running:
                raise ValueError(say("Something is being made already; wait for it, or cancel it."))
            self.tool, self.act, self.text, self.done, self.total = tool, act, "", 0, 0
            self.outcome, self.error, self.offer, self.stop, self.running = "", "", None, False, True
        threading.Thread(target=self._work, args=(act,), daemon=True).start()

    def cancel(self) -> None:
        self.stop = True
        if self.process:
            with contextlib.suppress(OSError):  # it has just ended
                self.process.stdin.write(f"{CANCEL}\n")
                self.process.stdin.flush()

    def _work(self, act: Act) -> None:
        try:
            self._follow(act)
            if act.out and self.outcome:
                models.refresh()
                if act.out.is_file() and act.out.parent == loras.folder().absolute():
                    self.offer = loras.offered(act.out)
        except OSError as error:
            self.error = str(error)
        finally:
            self.finished += 1
            self.running, self.process = False, None

    def _follow(self, act: Act) -> None:
        run.home().mkdir(parents=True, exist_ok=True)
        with open(run.home() / LOG, "w+", encoding="utf-8", errors="replace") as log:
            self.process = run.beside(["lora_sd", *act.words, "--events"], log)
            if self.stop:
                self.cancel()
            with self.process as process:
                for message in _messages(process.stdout):
                    self._hear(message)
            if process.returncode and not self.stop:
                log.seek(0)
                self.error = _last_words(log.read(), process.returncode)

    def _hear(self, message: dict[str, Any]) -> None:
        if message["kind"] == "progress":
            self.text, self.done, self.total = message["text"], message["done"], message["total"]
        elif message["kind"] == "done":
            self.outcome = json.dumps(message)

    def signature(self) -> tuple[Any, ...]:
        """Changes when something else is to be seen."""
        share = self.done * 50 // self.total if self.total else 0
        return self.finished, self.running, self.text, share, self.stop


def _messages(lines: IO[str]) -> Any:
    for line in lines:
        with contextlib.suppress(ValueError):
            message = json.loads(line)
            if isinstance(message, dict) and "kind" in message:
                yield message


BAD_INPUT = 2


def _last_words(log: str, code: int) -> str:
    """The sentence that the command ended with."""
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "")
    if code == BAD_INPUT and last:
        return last
    if code < 0:
        return say(
            "The work was ended by the system, perhaps to free memory; close other programs and try again."
        )
    return say("Something unexpected happened: {error}", error=last or code)


current = Desk()
