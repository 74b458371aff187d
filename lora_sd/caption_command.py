"""`python -m lora_sd caption`: captions for a folder of pictures, written by a model."""

import argparse
from pathlib import Path

from . import run, signals
from .captioning import folder as captioning
from .captioning.folder import Made
from .models import captioners
from .terminal import Progress

DONE, STOPPED = 0, 3


def main(arguments: list[str]) -> int:
    asked = _parser().parse_args(arguments)
    existing = "replace" if asked.replace else "append" if asked.append else "skip"
    progress = Progress(Path(asked.folder))
    if asked.device != "cpu" and (training := _training()):
        progress.line(f"{training} is training; both get slower, and may run out of a card's memory.")

    def show(made: Made) -> None:
        for text in made.skipped.values():
            progress.line(f"Left out: {text}")
        progress.bar(f"{made.done} of {made.total} pictures", last=made.done == made.total)

    with signals.heard(then_raise=False):
        written = captioning.caption(
            asked.folder,
            asked.model,
            existing=existing,
            trigger=asked.trigger,
            threshold=asked.threshold,
            character_threshold=asked.character_threshold,
            without=asked.without.split(","),
            max_tokens=asked.max_tokens,
            device=asked.device,
            on_made=show,
            should_stop=signals.asked_to_stop,
        )
        stopped = signals.asked_to_stop()
    progress.end()
    print(f"{len(written)} captions written." if len(written) != 1 else "1 caption written.")
    return STOPPED if stopped else DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lora_sd caption",
        description="Write a caption beside each picture of a folder: a .txt with a sentence (BLIP) or tags (WD tagger).",
    )
    parser.add_argument("folder", metavar="FOLDER", help="your pictures; they are only read")
    parser.add_argument(
        "--model",
        required=True,
        metavar="NAME_OR_FOLDER",
        help=f"on this computer already; python -m lora_sd download NAME gets one, like {', '.join(captioners.OFFERS)}",
    )
    have = parser.add_mutually_exclusive_group()
    have.add_argument("--replace", action="store_true", help="also pictures that have a caption: a new one")
    have.add_argument("--append", action="store_true", help="also pictures that have a caption: add to it")
    parser.add_argument(
        "--trigger", default="", metavar="WORD", help="the word that each caption begins with"
    )
    parser.add_argument("--max-tokens", type=int, default=40, help="the length of a sentence (BLIP)")
    parser.add_argument("--threshold", type=float, default=0.35, help="how probable a tag is, at least")
    parser.add_argument(
        "--character-threshold",
        type=float,
        default=0.85,
        help="how probable the name of a character is, at least",
    )
    parser.add_argument("--without", default="", metavar="TAG,TAG", help="tags that are never written")
    parser.add_argument("--device", choices=["auto", "cuda", "mps", "cpu"], default="auto")
    return parser


def _training() -> str:
    """The name of the run that trains now."""
    return next((found.name for found in run.list_runs() if found.state.active), "")
