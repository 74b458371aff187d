"""Captions for the page: `python -m lora_sd.captioning.process` reads one job as JSON and answers with JSON lines.

in    {"pictures": [path, …], "model": name or folder, "device", "threshold", "character_threshold", "without", "max_tokens"}
out   {"kind": "loaded"}   {"kind": "made", "captions": {path: text}, "skipped": {path: sentence}, "done", "total"}
      {"kind": "done"}   {"kind": "failed", "text", "details"}

Nothing is written to a picture's folder here, and ending it costs no more than the batch it is at.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import IO, Any

from .. import errors
from ..models import captioners
from . import folder


def work(job: dict[str, Any], answers: IO[str]) -> None:
    def answer(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        pictures = [Path(path) for path in job.pop("pictures")]
        model = folder.load(captioners.describe(job.pop("model")), **job)
        answer(kind="loaded")
        for made in folder.over(pictures, model):
            captions, skipped = (
                {str(path): text for path, text in part.items()} for part in (made.captions, made.skipped)
            )
            answer(kind="made", captions=captions, skipped=skipped, done=made.done, total=made.total)
        answer(kind="done")
    except BrokenPipeError:  # nobody listens any more
        return
    except Exception as error:
        answer(kind="failed", text=errors.sentence(error), details=traceback.format_exc())


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints goes to the log, not between the answers
    sys.stdin.reconfigure(encoding="utf-8")
    work(json.loads(sys.stdin.readline()), answers)


if __name__ == "__main__":
    main()
