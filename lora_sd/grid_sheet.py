"""A grid as one picture: headings above and at the left, what all have in common in the file's text."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from . import files
from .grid import Axis, Job

LARGEST = 8192  # pixels of a side of the sheet
GAP = 8
INK, PAPER, EMPTY = "#26231f", "#ffffff", "#e4e0d8"
LINES = 4  # of a heading
# Pillow's own font is Latin only; these are what systems come with for the rest.
FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSans-Regular.ttf",
    "msyh.ttc",
    "YuGothM.ttc",
    "msgothic.ttc",
    "Hiragino Sans GB.ttc",
    "PingFang.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
    "wqy-zenhei.ttc",
    "DejaVuSans.ttf",
)
NOWHERE = "\U0010fffd"  # a sign that no font has

Font = ImageFont.FreeTypeFont


def sheet(pictures: Mapping[tuple[int, int], Image.Image], x: Axis, y: Axis) -> Image.Image:
    """The pictures by (column, row) with their headings; a cell without one stays grey."""
    w, h = _cell(list(pictures.values()), x, y)
    size = max(11, min(28, w // 14))
    columns = [wrapped(text, size, w) for text in readable(x)]
    left = 0 if not y.kind else min(max(90, w // 2), 320)
    rows = [wrapped(text, size, left - GAP) for text in readable(y)] if left else [[]] * len(y.values)
    line = round(size * 1.3)
    top = line * max(map(len, columns)) + 2 * GAP
    height = max(h, line * max(map(len, rows)))
    page = Image.new(
        "RGB",
        (left + (w + GAP) * len(columns) + GAP, top + (height + GAP) * len(rows) + GAP),
        PAPER,
    )
    pen = ImageDraw.Draw(page)
    for column, words in enumerate(columns):
        _write(pen, left + GAP + column * (w + GAP), GAP, words, size, line)
    for row, words in enumerate(rows):
        y_at = top + row * (height + GAP)
        _write(pen, GAP, y_at + max(0, (h - line * len(words)) // 2), words, size, line)
        for column in range(len(columns)):
            x_at = left + GAP + column * (w + GAP)
            picture = pictures.get((column, row))
            if picture is None:
                pen.rectangle((x_at, y_at, x_at + w - 1, y_at + h - 1), fill=EMPTY)
            else:
                page.paste(_fitted(picture, w, h), (x_at, y_at))
    return page


def save(page: Image.Image, path: Path, job: Job, x: Axis, y: Axis) -> None:
    """The sheet as a PNG file that tells what is in it, also what no font here can write."""
    told = PngInfo()
    told.add_itxt("parameters", text(job, x, y))
    with files.written(path, durable=False) as file:
        page.save(file, "PNG", pnginfo=told)


def text(job: Job, x: Axis, y: Axis) -> str:
    """What a sheet was drawn with, in the form that A1111 reads: prompt, negative prompt, settings; then the axes."""
    settings = {
        "Steps": job["steps"],
        "Sampler": job["sampler"],
        "CFG scale": f"{job['guidance']:g}",
        "Seed": job["seed"],
    }
    for name, axis in (("X", x), ("Y", y)):
        if axis.kind:
            values = "; ".join(label.replace('"', "'") for label in axis.labels())
            settings |= {f"{name} Type": axis.kind, f"{name} Values": f'"{values}"'}
    lines = [job["prompt"], f"Negative prompt: {job['negative']}" if job["negative"] else ""]
    return "\n".join([*filter(None, lines), ", ".join(f"{key}: {value}" for key, value in settings.items())])


def readable(axis: Axis) -> list[str]:
    """The headings; those that no font here can write are numbered, and the file's text has them."""
    return [
        label if font(label, 12) else f"{axis.kind} {number}" for number, label in enumerate(axis.labels(), 1)
    ]


def wrapped(words: str, size: int, width: int) -> list[str]:
    """Lines of at most `width` pixels, LINES of them; what is cut off ends in …"""
    face, lines, line = font(words, size), [], ""
    for piece in _pieces(words):
        if line and face.getlength(line + piece) > width:
            lines.append(line.strip())
            line = ""
        line += piece
    lines.append(line.strip())
    if len(lines) <= LINES:
        return lines
    last = lines[LINES - 1]
    while last and face.getlength(f"{last}…") > width:
        last = last[:-1]
    return [*lines[: LINES - 1], f"{last}…"]


def _pieces(words: str) -> list[str]:
    """Where a line may break: after a space, and between signs of scripts that have none, or of a word that is too long."""
    pieces = []
    for word in words.split():
        together = len(word) <= 20 and max(word) < "\u2e80"  # where CJK begins
        pieces += [word] if together else list(word)
        pieces[-1] += " "
    return pieces or [""]


def _cell(pictures: list[Image.Image], x: Axis, y: Axis) -> tuple[int, int]:
    """(w, h) of a cell: the largest picture's, smaller where the sheet would be larger than LARGEST."""
    w, h = (max((picture.size[i] for picture in pictures), default=64) for i in (0, 1))
    scale = min(1, LARGEST / ((w + GAP) * len(x.values) + 320), LARGEST / ((h + GAP) * len(y.values) + 160))
    return max(16, int(w * scale)), max(16, int(h * scale))


def _fitted(picture: Image.Image, w: int, h: int) -> Image.Image:
    scale = min(w / picture.width, h / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    fitted = picture.convert("RGB")
    return fitted if size == fitted.size else fitted.resize(size, Image.Resampling.LANCZOS)


def _write(pen: ImageDraw.ImageDraw, x: int, y: int, lines: list[str], size: int, line: int) -> None:
    for number, words in enumerate(lines):
        pen.text((x, y + number * line), words, fill=INK, font=font(words, size))


@lru_cache(maxsize=512)
def font(words: str, size: int) -> Font | None:
    """A font that has every sign of the words; None where there is none here."""
    return next((face for name in ("", *FONTS) if (face := _face(name, size)) and has(face, words)), None)


@lru_cache(maxsize=64)
def _face(name: str, size: int) -> Font | None:
    if not name:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(name, size)
    except OSError:  # not on this system
        return None


def has(face: Font, words: str) -> bool:
    """Whether it draws none of the signs as the box for what it has not."""
    box = bytes(face.getmask(NOWHERE))
    return all(sign.isspace() or bytes(face.getmask(sign)) != box for sign in set(words))
