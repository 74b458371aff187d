"""The workshop on the command line: one command for each thing that can be done with LoRA files."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .terminal import Progress

DONE = 0


class _Parser(argparse.ArgumentParser):
    """argparse, whose errors are sentences like all others."""

    def error(self, message: str) -> Any:
        raise ValueError(f"{self.prog.removeprefix('python -m ')}: {message}; see {self.prog} --help.")


def _parser(command: str, what: str) -> argparse.ArgumentParser:
    return _Parser(prog=f"python -m lora_sd {command}", description=what)


def _family(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--family", help="sd15, sd2 or sdxl, for a file that does not tell what it was made for"
    )


def _bar(words: str) -> Callable[[int, int], None]:
    progress = Progress(Path("."))
    return lambda done, total: progress.bar(f"{words}: {done} of {total} layers", last=done == total)


def analyse(arguments: list[str]) -> int:
    """How much of its rank a LoRA uses, and how two relate: FILE [FILE2] [--base MODEL]."""
    parser = _parser("analyse", "The singular values of every layer, and what follows from them.")
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "other", type=Path, nargs="?", help="a second LoRA: how much of their directions is shared"
    )
    parser.add_argument(
        "--base", help="the base model, for the amplification factor (arXiv:2106.09685, section 7.3)"
    )
    parser.add_argument("--directions", type=int, default=4, help="of each layer, for that factor")
    parser.add_argument(
        "--of",
        choices=["delta", "down", "up"],
        default="delta",
        help="compare the directions of the update (default), or those of one matrix as the paper does",
    )
    parser.add_argument("--layers", action="store_true", help="a line for each layer, too")
    parser.add_argument("--json", action="store_true", help="everything as JSON, to standard output")
    _family(parser)
    asked = parser.parse_args(arguments)
    if asked.directions < 1:
        raise ValueError(f"--directions is {asked.directions}; it must be at least 1.")
    from .workshop import similarity
    from .workshop.analysis import analyse_file
    from .workshop.checkpoint import open_checkpoint
    from .workshop.lora_file import open_lora, same_family

    file = open_lora(asked.file, asked.family)
    other = same_family(file, open_lora(asked.other, asked.family)) if asked.other else None
    base = open_checkpoint(asked.base) if asked.base else None
    report = analyse_file(asked.file, family=asked.family, on_progress=_bar("Analysed"))
    lines, table = report.lines(layers=asked.layers), report.table()
    if other:
        compared = similarity.compare(file, other, file.family, of=asked.of, on_progress=_bar("Compared"))
        lines += ["", f"  Beside {other.name}:", *compared.lines()]
        table["compared"] = compared.table()
    if base:
        found = similarity.amplifications(file, base, asked.directions, _bar("Measured against the base"))
        lines += ["", f"  Against {base.path.name}, {asked.directions} directions of each layer:"]
        lines += similarity.amplification_lines(found, file.family)
        table["amplification"] = {n: {**a._asdict(), "factor": a.factor} for n, a in found.items()}
    sys.stdout.write((json.dumps(table) if asked.json else "\n".join(lines)) + "\n")
    return DONE


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "analyse": analyse,
}
