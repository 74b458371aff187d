"""A whole grid in this process: for Python and the command line. The page draws the same cells by its worker."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from . import grid, grid_sheet
from .grid import ALONE, Axis, Job
from .worker import Studio

OnProgress = Callable[[int, int], None]  # pictures done, of how many


def draw_grid(
    prompt: str,
    *,
    loras: Mapping[str | Path, float] | None = None,
    x: Axis,
    y: Axis = ALONE,
    base: str = "starter",
    out: str | Path | None = None,
    on_progress: OnProgress | None = None,
    **how: Any,
) -> Image.Image:
    """The labelled sheet, also saved as the PNG file `out`.

    `x` and `y` are what changes along the columns and rows: `grid.read("strength", "0-1 by 0.5")`. `loras` are files with
    their strengths, the first of which an axis of a LoRA is about. `how` are negative, seed, steps, guidance, sampler,
    size (w, h) and device. Raises ValueError for what can't be drawn.
    """
    job = job_of(prompt, dict(loras or {}), base, **how)
    cells = grid.plan(job, x, y)
    studio = Studio()
    with tempfile.TemporaryDirectory() as folder:
        pictures = {}
        drawn = grid.draw(cells, lambda job: studio.picture({**job, "out": folder}, lambda done, total: None))
        for number, (cell, path) in enumerate(drawn, 1):
            with Image.open(path) as picture:
                pictures[cell.column, cell.row] = picture.convert("RGB")
            if on_progress:
                on_progress(number, len(cells))
    page = grid_sheet.sheet(pictures, x, y)
    if out:
        grid_sheet.save(page, Path(out), job, x, y)
    return page


def job_of(
    prompt: str,
    loras: Mapping[str | Path, float],
    base: str,
    *,
    negative: str = "",
    seed: int = 42,
    steps: int = 25,
    guidance: float = 5.0,
    sampler: str = "dpmpp_2m_karras",
    size: tuple[int, int] | None = None,
    device: str = "auto",
) -> Job:
    """What all pictures have in common, as `worker` takes it."""
    return {
        "base": base,
        "loras": [[str(path), strength] for path, strength in loras.items()],
        "prompt": prompt,
        "negative": negative,
        "seed": seed,
        "steps": steps,
        "guidance": guidance,
        "sampler": sampler,
        "size": size,
        "device": device,
    }
