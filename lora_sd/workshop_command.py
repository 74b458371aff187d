"""The workshop on the command line: one command for each thing that can be done with LoRA files."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .flags import strength_of
from .telling import Telling, add_option

EDITED = {
    "title": "its name for people",
    "author": "who made it",
    "trigger": "the words that call it",
    "licence": "such as CC-BY-4.0",
    "tags": "separated by commas",
    "description": "what it is for",
    "usage": "how to use it, such as at which strength",
    "thumbnail": "a picture's file",
}


class _Parser(argparse.ArgumentParser):
    """argparse, whose errors are sentences like all others."""

    def error(self, message: str) -> Any:
        raise ValueError(f"{self.prog.removeprefix('python -m ')}: {message}; see {self.prog} --help.")


def _parser(command: str, what: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=f"python -m lora_sd {command}", description=what)
    add_option(parser)
    return parser


def _family(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--family", help="sd15, sd2 or sdxl, for a file that does not tell what it was made for"
    )


def _in_and_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the LoRA, of any layout")
    parser.add_argument("out", type=Path, help="the new file")


def _format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--layout", choices=["kohya", "peft"], help="of the new file")
    parser.add_argument(
        "--dtype", choices=["fp16", "bf16", "fp32"], help="of the new file; that of the old one else"
    )
    _family(parser)


def _chosen(asked: argparse.Namespace) -> dict[str, Any]:
    """layout and dtype, as the workshop takes them."""
    from .lora.formats import DTYPES

    return {"layout": asked.layout, "dtype": DTYPES.get(asked.dtype)}


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
    tell = Telling(events=asked.events)
    if asked.directions < 1:
        raise ValueError(f"--directions is {asked.directions}; it must be at least 1.")
    from .workshop import similarity
    from .workshop.analysis import analyse_file
    from .workshop.checkpoint import open_checkpoint
    from .workshop.lora_file import open_lora, same_family

    file = open_lora(asked.file, asked.family)
    other = same_family(file, open_lora(asked.other, asked.family)) if asked.other else None
    base = open_checkpoint(asked.base) if asked.base else None
    report = analyse_file(asked.file, family=asked.family, on_progress=tell.bar("Analysed"))
    lines, table = report.lines(layers=asked.layers), report.table()
    facts: dict[str, Any] = {"report": table}
    if other:
        compared = similarity.compare(file, other, file.family, of=asked.of, on_progress=tell.bar("Compared"))
        lines += ["", f"  Beside {other.name}:", *compared.lines()]
        facts["compared"] = {"name": other.name, **compared.facts()}
    if base:
        found = similarity.amplifications(file, base, asked.directions, tell.bar("Measured against the base"))
        lines += ["", f"  Against {base.title}, {asked.directions} directions of each layer:"]
        lines += similarity.amplification_lines(found, file.family)
        facts["amplified"] = {"name": base.title, "blocks": similarity.by_block(found, file.family)}
    if asked.json:
        table |= {"compared": compared.table()} if other else {}
        table |= (
            {"amplification": {n: {**a._asdict(), "factor": a.factor} for n, a in found.items()}}
            if base
            else {}
        )
        lines = [json.dumps(table)]
    return tell.done(lines, **facts)


def resize(arguments: list[str]) -> int:
    """A LoRA at another rank, energy or file size: FILE OUT --rank 8 | --energy 0.95 | --size MB."""
    parser = _parser("resize", "Cut a LoRA to its strongest directions, or give it room to learn more.")
    _in_and_out(parser)
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--rank", type=int, help="for every layer; where that is more than it has, the rest can learn"
    )
    target.add_argument("--energy", type=float, help="the part of each layer's energy to keep, such as 0.95")
    target.add_argument(
        "--size", type=float, metavar="MB", help="the file's size; layers that gain most get most"
    )
    _format(parser)
    asked = parser.parse_args(arguments)
    tell = Telling(events=asked.events)
    from .workshop.resize import resize as do

    done = do(
        asked.file,
        asked.out,
        rank=asked.rank,
        energy=asked.energy,
        size=asked.size and asked.size * 1e6,
        family=asked.family,
        on_progress=tell.bar("Resized"),
        **_chosen(asked),
    )
    return tell.done(done.lines(), **done.facts())


def combine(arguments: list[str]) -> int:
    """Several LoRAs as one, or the difference of two: OUT FILE[:WEIGHT] … [--method average]."""
    parser = _parser(
        "combine", "One LoRA that does what several do together; exact unless it is cut to a rank."
    )
    parser.add_argument("out", type=Path, help="the new file")
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE[:WEIGHT]",
        help="LoRAs of any ranks and layouts; cat.safetensors:-1 takes away",
    )
    parser.add_argument(
        "--method",
        choices=["sum", "average", "ties", "dare"],
        default="sum",
        help="ties and dare choose single numbers of the updates, then cut the result to a rank",
    )
    parser.add_argument(
        "--blocks",
        action="append",
        default=[],
        metavar="[NUMBER:]BLOCK=FACTOR",
        help="of all LoRAs, or of the first with 1:, such as 1:OUT*=0.5; blocks are those that analyse names",
    )
    cut = parser.add_mutually_exclusive_group()
    cut.add_argument("--rank", type=int, help="cut the result to this rank")
    cut.add_argument("--energy", type=float, help="cut the result, keeping this part of each layer's energy")
    parser.add_argument(
        "--density", type=float, default=0.5, help="what ties and dare keep of each update's numbers"
    )
    parser.add_argument("--seed", type=int, default=0, help="of dare")
    _format(parser)
    asked = parser.parse_args(arguments)
    tell = Telling(events=asked.events)
    from .workshop.combine import combine as do

    done = do(
        _sources(asked.files, asked.blocks),
        asked.out,
        method=asked.method,
        rank=asked.rank,
        energy=asked.energy,
        density=asked.density,
        seed=asked.seed,
        family=asked.family,
        on_progress=tell.bar("Combined"),
        **_chosen(asked),
    )
    return tell.done(done.lines(), **done.facts())


def merge(arguments: list[str]) -> int:
    """LoRAs folded into a base model, or taken out: BASE OUT FILE[:WEIGHT] …"""
    parser = _parser("merge", "A model with LoRAs in its weights; a weight of -1 takes one out again.")
    parser.add_argument("base", help="a .safetensors checkpoint, a diffusers folder, or a model's name")
    parser.add_argument("out", type=Path, help="the new file or folder")
    parser.add_argument("files", nargs="+", metavar="FILE[:WEIGHT]")
    parser.add_argument(
        "--blocks", action="append", default=[], metavar="[NUMBER:]BLOCK=FACTOR", help="as in combine"
    )
    _family(parser)
    asked = parser.parse_args(arguments)
    tell = Telling(events=asked.events)
    from .workshop.merge import merge as do

    sources = _sources(asked.files, asked.blocks)
    done = do(asked.base, sources, asked.out, family=asked.family, on_progress=tell.bar("Merged"))
    return tell.done(done.lines(), **done.facts())


def extract(arguments: list[str]) -> int:
    """A LoRA from a fine-tuned model and its base: TUNED BASE OUT [--rank 32]."""
    parser = _parser(
        "extract", "The LoRA that makes a base model nearly a fine-tuned one, with the error of each layer."
    )
    parser.add_argument("tuned", help="a .safetensors checkpoint, a diffusers folder, or a model's name")
    parser.add_argument("base", help="the model it was made from, in either form")
    parser.add_argument("out", type=Path, help="the new LoRA")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument(
        "--energy", type=float, help="less rank where that keeps this part of a layer's energy"
    )
    parser.add_argument(
        "--targets",
        default="full",
        help="which layers: attention-qv, attention, transformer, full (with convolutions) or everything",
    )
    parser.add_argument("--layout", choices=["kohya", "peft"], default="kohya")
    parser.add_argument("--dtype", choices=["fp16", "bf16", "fp32"], default="fp16")
    parser.add_argument("--layers", action="store_true", help="the error of each layer, too")
    asked = parser.parse_args(arguments)
    tell = Telling(events=asked.events)
    from .workshop.extract import extract as do

    done = do(
        asked.tuned,
        asked.base,
        asked.out,
        rank=asked.rank,
        energy=asked.energy,
        targets=asked.targets,
        on_progress=tell.bar("Extracted"),
        **_chosen(asked),
    )
    by_error = sorted(done.made.losses.items(), key=lambda item: -item[1].part)
    each = [f"  {loss.part:>8.3%}  {name}" for name, loss in by_error] if asked.layers else []
    return tell.done([*done.lines(), *each], **done.facts())


def convert(arguments: list[str]) -> int:
    """A LoRA in another layout: FILE OUT --layout peft."""
    parser = _parser(
        "convert", "The same LoRA under the names of another program; other kinds than plain LoRA, too."
    )
    _in_and_out(parser)
    parser.add_argument(
        "--layout",
        required=True,
        help="kohya, kohya-diffusers (diffusers' numbers of SDXL's blocks), comfyui, peft or diffusers (its old one)",
    )
    parser.add_argument(
        "--projections",
        choices=["linear", "conv"],
        help="of SD 2.x: proj_in and proj_out as matrices or convolutions",
    )
    _family(parser)
    asked = parser.parse_args(arguments)
    tell = Telling(events=asked.events)
    from .workshop.convert import convert as do

    done = do(asked.file, asked.out, asked.layout, projections=asked.projections, family=asked.family)
    return tell.done(done.lines(), **done.facts())


def check(arguments: list[str]) -> int:
    """Which programs use all of a LoRA, and what each leaves out: FILE."""
    parser = _parser(
        "check", "What diffusers, A1111, Forge, ComfyUI, InvokeAI and sd-scripts make of a LoRA file."
    )
    parser.add_argument("file", type=Path)
    _family(parser)
    asked = parser.parse_args(arguments)
    tell = Telling(events=asked.events)
    from .workshop.programs import check as do

    done = do(asked.file, family=asked.family)
    return tell.done(done.lines(), **done.facts())


def edit(arguments: list[str]) -> int:
    """Title, author, trigger words, licence, tags and thumbnail of a LoRA: FILE --title TEXT …"""
    parser = _parser(
        "edit", "Change what a LoRA file tells; its numbers are not touched. An empty text takes one away."
    )
    parser.add_argument("file", type=Path, help="a LoRA of any kind")
    parser.add_argument("--out", type=Path, help="a new file, instead of changing this one")
    for field, words in EDITED.items():
        parser.add_argument(f"--{field}", help=words)
    asked = parser.parse_args(arguments)
    tell = Telling(events=asked.events)
    from .workshop.edit import edit as do

    given = {field: getattr(asked, field) for field in EDITED}
    saved = do(asked.file, {field: text for field, text in given.items() if text is not None}, asked.out)
    return tell.done([f"{saved.path}: saved."], path=str(saved.path), size=saved.size)


def _sources(files: list[str], blocks: list[str]) -> list[Any]:
    from .workshop.combine import Source

    return [Source(*strength_of(text), _blocks(blocks, number)) for number, text in enumerate(files, 1)]


def _blocks(words: list[str], number: int) -> dict[str, float]:
    """The factors that are for all LoRAs or for this one."""
    found = {}
    for word in words:
        which, _, rest = word.rpartition(":")
        pattern, _, factor = rest.rpartition("=")
        try:
            whose, value = int(which or number), float(factor)
        except ValueError:
            raise ValueError(
                f"--blocks is {word!r}; write it as OUT*=0.5, or 1:OUT*=0.5 for the first LoRA."
            ) from None
        found |= {pattern: value} if whose == number else {}
    return found


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "analyse": analyse,
    "resize": resize,
    "combine": combine,
    "merge": merge,
    "extract": extract,
    "convert": convert,
    "check": check,
    "edit": edit,
}
