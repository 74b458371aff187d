"""Grids and the best checkpoint on the command line."""

import argparse
from pathlib import Path
from typing import Any

from . import flags, grid, run
from .best import Found
from .grid import ALONE, Axis
from .terminal import Progress

DONE, STOPPED = 0, 3


class _Parser(argparse.ArgumentParser):
    """argparse, whose errors are sentences like all others."""

    def error(self, message: str) -> Any:
        raise ValueError(f"{self.prog.removeprefix('python -m ')}: {message}; see {self.prog} --help.")


def draw(arguments: list[str]) -> int:
    """One sheet of pictures along two axes: PROMPT --lora FILE --x strength=0,0.5,1 --y seed=1,2,3."""
    parser = _Parser(
        prog="python -m lora_sd grid",
        description="Pictures side by side: strength, checkpoint, rank, prompt, seed, steps or guidance along each axis.",
    )
    parser.add_argument("prompt", help="what to draw")
    parser.add_argument(
        "--x", required=True, metavar="WHAT=VALUES", help="along the columns: seed=1-4, strength=0-1 by 0.25"
    )
    parser.add_argument(
        "--y",
        metavar="WHAT=VALUES",
        help="along the rows; prompts are separated by |, checkpoint takes files or a run",
    )
    parser.add_argument("--model", default="starter", help="as in generate")
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:STRENGTH]",
        help="may be given several times; the axes are about the first",
    )
    parser.add_argument("--negative", default="")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--sampler", default="dpmpp_2m_karras")
    parser.add_argument("--size", type=int, nargs=2, metavar=("W", "H"))
    parser.add_argument("--device", choices=["auto", "cuda", "mps", "cpu"], default="auto")
    parser.add_argument("--out", type=Path, default=Path("grid.png"), help="the sheet, a PNG file")
    asked = parser.parse_args(arguments)
    from .grid_drawing import draw_grid

    if asked.out.suffix.lower() != ".png":
        raise ValueError(f"--out is {asked.out}; a sheet is a PNG file, so end its name in .png.")
    if asked.out.exists():
        raise ValueError(f"{asked.out} is there already; choose another name for --out.")
    x, y = axis(asked.x, "--x"), axis(asked.y, "--y") if asked.y else ALONE
    loras = dict(flags.strength_of(text) for text in asked.lora)
    for one in (x, y):
        if one.kind == "checkpoint" and not loras:  # the axis names its files itself
            loras = {one.values[0]: 1.0}
    progress = Progress(Path("."))
    draw_grid(
        asked.prompt,
        loras=loras,
        x=x,
        y=y,
        base=asked.model,
        out=asked.out,
        on_progress=lambda done, total: progress.bar(f"Picture {done} of {total}", last=done == total),
        negative=asked.negative,
        seed=asked.seed,
        steps=asked.steps,
        guidance=asked.guidance,
        sampler=asked.sampler,
        size=tuple(asked.size) if asked.size else None,
        device=asked.device,
    )
    print(asked.out)
    return DONE


def best(arguments: list[str]) -> int:
    """Which checkpoint of a run to take, and why: RUN."""
    parser = _Parser(
        prog="python -m lora_sd best",
        description="Draws the preview prompts with every checkpoint, compares with the training pictures, and suggests one.",
    )
    parser.add_argument("run", help="the run's folder, or its name")
    parser.add_argument("--device", choices=["auto", "cuda", "mps", "cpu"], default="auto")
    asked = parser.parse_args(arguments)
    folder = run.folder_of(asked.run)
    from .best_search import find_best

    progress = Progress(Path("."))

    def tell(found: Found) -> None:
        if found.total:
            progress.bar(f"Picture {found.done} of {found.total}", last=found.done == found.total)

    found = find_best(folder, tell, device=asked.device)
    print("\n".join(lines(found)))
    return DONE if found.status == "done" else STOPPED


def lines(found: Found) -> list[str]:
    """The table, and the suggestion in words."""
    table = [f"{'checkpoint':>12} {'held-out loss':>14} {'distance':>9} {'copies':>7}"]
    for row in found.rows:
        name = f"step {row.step:,}" if row.file else "without"
        loss = "-" if row.held_out is None else f"{'' if row.measured else '≈'}{row.held_out:.4f}"
        look = "-" if row.look is None else f"{row.look:.2f}"
        table.append(f"{name:>12} {loss:>14} {look:>9} {row.copies:>7}")
    said = [found.text] if found.text else []
    return [*table, *said, *([found.suggested.reason()] if found.suggested else [])]


def axis(text: str, flag: str) -> Axis:
    """The axis of `strength=0,0.5,1`; a run's folder or name stands for all its checkpoints."""
    kind, equals, values = text.partition("=")
    if not equals:
        raise ValueError(f"{flag} is {text!r}; write what changes and its values, such as strength=0,0.5,1.")
    if kind == "prompt":
        values = values.replace("|", "\n")
    if kind == "checkpoint":
        if not values.lower().endswith(".safetensors"):
            return grid.of_run(run.folder_of(values))
    return grid.read(kind, values)
