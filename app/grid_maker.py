"""The grid that is being drawn: one for the program, by the one drawing process; every tab shows the same."""

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from lora_sd import errors, grid, grid_sheet
from lora_sd.grid import ALONE, Axis, Cell, Job

from . import drawing, gallery, places
from .uploads import thumbnail
from .words import say

SMALL = 256  # pixels of a picture in the table


@dataclass
class Grid:
    """A grid on its way, and what is there of it."""

    job: Job
    x: Axis
    y: Axis
    cells: list[Cell]
    pictures: dict[tuple[int, int], Path] = field(default_factory=dict)  # (column, row) -> picture
    small: dict[tuple[int, int], Path] = field(default_factory=dict)
    status: str = "drawing"  # drawing done cancelled failed
    text: str = ""  # why it failed
    share: float = 0.0  # of the picture that is being drawn
    sheet: Path | None = None


class Maker:
    def __init__(self) -> None:
        self.grid: Grid | None = None
        self.thread: threading.Thread | None = None
        self.cancelling = False
        self.paces: dict[
            tuple[str, str, str], float
        ] = {}  # (base, size, device) -> seconds of a sampling step

    @property
    def running(self) -> bool:
        return self.thread is not None and self.thread.is_alive()

    def start(self, job: Job, x: Axis, y: Axis = ALONE) -> None:
        """Draw it beside everything else. ValueError for what can't be drawn, and while another is."""
        cells = grid.plan(job, x, y)
        if self.running:
            raise ValueError(say("A grid is being drawn already; cancel it, or wait until it is done."))
        self.grid, self.cancelling = Grid(job, x, y, cells), False
        self.thread = threading.Thread(target=self._draw, args=(self.grid,), daemon=True)
        self.thread.start()

    def cancel(self) -> None:
        """Stop after the sampling step that is being done; the pictures that are there stay."""
        self.cancelling = True

    def seconds(self, cells: list[Cell]) -> float | None:
        """How long those of them take that are not kept; None where no picture of the kind was timed yet."""
        jobs = {json.dumps(cell.job): cell.job for cell in cells}  # equal ones are drawn once
        new = [job for job in jobs.values() if gallery.known(job) is None]
        each = [(self.paces.get(_kind(job)), job["steps"]) for job in new]
        if any(pace is None for pace, _ in each):
            return None
        return sum(pace * steps for pace, steps in each)

    def _draw(self, made: Grid) -> None:
        try:
            for cell in made.cells:
                place = cell.column, cell.row
                made.share = 0.0
                picture = self._picture(made, cell.job)
                if picture is None:
                    break
                made.small[place] = thumbnail(picture, places.thumbs() / "grid", SMALL)
                made.pictures[place] = picture
            self._save(made)
            made.status = "done" if len(made.pictures) == len(made.cells) else "cancelled"
        except Exception as error:
            made.text = errors.sentence(error)
            made.status = "failed"

    def _picture(self, made: Grid, job: Job) -> Path | None:
        """The picture of a job, its time noted; None where it was cancelled."""
        while not self.cancelling:
            began: tuple[float, int] | None = None
            try:
                for news in drawing.draw(job):
                    if isinstance(news, Path):
                        return news
                    if self.cancelling:
                        return None
                    done, total = news
                    made.share = done / total
                    began = began or (time.monotonic(), done)
                    if done > began[1]:
                        self.paces[_kind(job)] = (time.monotonic() - began[0]) / (done - began[1])
            except drawing.Cancelled:  # by someone who wants another picture first
                continue
        return None

    def _save(self, made: Grid) -> None:
        """The sheet, of the pictures that are there."""
        if made.pictures:
            pictures = {}
            for place, path in made.pictures.items():
                with Image.open(path) as picture:
                    pictures[place] = picture.convert("RGB")
            path = places.pictures() / f"grid-{time.time_ns()}.png"
            grid_sheet.save(grid_sheet.sheet(pictures, made.x, made.y), path, made.job, made.x, made.y)
            made.sheet = path


def _kind(job: Job) -> tuple[str, str, str]:
    return str(job["base"]), str(job["size"]), str(job["device"])


maker = Maker()
