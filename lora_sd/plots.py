"""Heat maps and curves as SVG text, for the page and the docs: no library, and light or dark as the reader's page is."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

TONES = 12
LIGHT = ("#eef5f1", "#1d4535")  # of a heat map, from least to most
DARK = ("#29322d", "#c4e0d2")
DECADES = 4  # of a curve's values
LINES = ("", "7 4", "2 4", "9 3 2 3")  # dashes, so that lines differ by more than colour
COLOURS = (
    ("#2f7d5f", "#7fc0a2"),
    ("#b5623b", "#e0a07a"),
    ("#4b74b0", "#93b5e8"),
    ("#8a6bb0", "#c0a5e2"),
)  # of lines
SIZE = 11  # of text, pixels


class Curve(NamedTuple):
    name: str
    values: Sequence[float]  # at x = 1, 2, 3 …
    kind: str = ""  # lines of a kind have one colour, and are named by it; the one without is the main one


# -- heat maps ---------------------------------------------------------------------------------------------------------


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Mapping[tuple[int, int], float],
    *,
    cell: tuple[int, int] = (56, 20),
) -> str:
    """Cells at (row, column), each with its number, darker where that is larger; what is missing stays empty."""
    (w, h), left, top = cell, 58, 58
    most = max(values.values(), default=0) or 1
    tones = {place: _tone(value / most) for place, value in values.items()}
    parts = [_cells(tones, f"translate({left} {top}) scale({w} {h})")]
    parts += [_text(left - 8, top + h * r + h / 2 + 4, name, "end") for r, name in enumerate(rows)]
    parts += [_text(left + w * c + w / 2, top - 8, name, "middle") for c, name in enumerate(columns)]
    parts += [
        _text(left + w * c + w / 2, top + h * r + h / 2 + 4, _short(value), "middle", _on(tones[r, c]))
        for (r, c), value in values.items()
    ]
    return _svg(title, left + w * len(columns) + 10, top + h * len(rows) + 10, parts)


def similarity_map(
    title: str, phi: Sequence[Sequence[float]], *, first: str, second: str, side: int = 300
) -> str:
    """φ(i, j), 0 to 1: i downwards, of `first`, and j to the right, of `second`; with the scale beside it."""
    left, top, rows, columns = 58, 58, len(phi), len(phi[0])
    tones = {(i, j): _tone(value) for i, row in enumerate(phi) for j, value in enumerate(row)}
    parts = [_cells(tones, f"translate({left} {top}) scale({side / columns:.4f} {side / rows:.4f})")]
    parts += [
        _text(left + side / 2, top - 24, f"j, of {second}", "middle"),
        _text(
            14,
            top + side / 2,
            f"i, of {first}",
            "middle",
            more=f'transform="rotate(-90 14 {top + side / 2})"',
        ),
    ]
    for n in _ends(columns):
        parts.append(_text(left + side * (n - 0.5) / columns, top - 8, str(n), "middle"))
    for n in _ends(rows):
        parts.append(_text(left - 8, top + side * (n - 0.5) / rows + 4, str(n), "end"))
    scale, tall = left + side + 26, side / TONES
    parts.append(
        _cells(
            {(TONES - 1 - t, 0): t for t in range(TONES)}, f"translate({scale} {top}) scale(14 {tall:.4f})"
        )
    )
    parts += [_text(scale + 20, top + 9, "1", "start"), _text(scale + 20, top + side, "0", "start")]
    return _svg(title, scale + 44, top + side + 12, parts)


def _short(value: float) -> str:
    """
    >>> _short(0.2), _short(12.3)
    ('0.20', '12')
    """
    return f"{value:.0f}" if value == 0 or value >= 9.95 else f"{value:#.2g}"


def _ends(count: int) -> list[int]:
    """1, the middle and the last; only those that are apart."""
    return sorted({1, (count + 1) // 2, count}) if count > 3 else list(range(1, count + 1))


def _tone(share: float) -> int:
    return max(0, min(TONES - 1, int(share * TONES)))


def _on(tone: int) -> str:
    """The class of text on a cell."""
    return "on" if tone >= TONES / 2 else ""


def _cells(tones: Mapping[tuple[int, int], int], transform: str) -> str:
    """One path for each tone, neighbours in a row as one rectangle."""
    paths: dict[int, list[str]] = {}
    done = set()
    for (r, c), tone in sorted(tones.items()):
        if (r, c) in done:
            continue
        long = 1
        while tones.get((r, c + long)) == tone:
            long += 1
        done |= {(r, c + n) for n in range(long)}
        paths.setdefault(tone, []).append(f"M{c} {r}h{long}v1h-{long}z")
    drawn = "".join(f'<path class="t{tone}" d="{"".join(d)}"/>' for tone, d in sorted(paths.items()))
    return f'<g transform="{transform}" shape-rendering="crispEdges">{drawn}</g>'


# -- curves ------------------------------------------------------------------------------------------------------------


def curves(title: str, lines: Sequence[Curve], *, x: str, y: str, decades: int = 4) -> str:
    """Falling values on a logarithmic scale, at most `decades` below the largest. Beside it what each kind of line is."""
    left, top, width, height = 58, 40, 420, 240
    most = max((max(line.values, default=0) for line in lines), default=0) or 1
    least = min((v for line in lines for v in line.values if v > most / 10**DECADES), default=most)
    high, low = math.ceil(math.log10(most)), math.floor(math.log10(least))
    decades = max(1, high - low)
    long = max((len(line.values) for line in lines), default=1)

    def place(n: int, value: float) -> str:
        across = left + width * (n / max(1, long - 1))
        return f"{across:.1f} {top + height * (high - math.log10(value)) / decades:.1f}"

    parts = []
    for power in range(high - decades, high + 1):
        at = top + height * (high - power) / decades
        parts.append(f'<path class="grid" d="M{left} {at:.1f}h{width}"/>')
        parts.append(_text(left - 8, at + 4, f"{10.0**power:g}", "end"))
    for n in _ends(long):
        parts.append(_text(left + width * (n - 1) / max(1, long - 1), top + height + 18, str(n), "middle"))
    parts += [
        _text(left + width / 2, top + height + 36, x, "middle"),
        _text(14, top + height / 2, y, "middle", more=f'transform="rotate(-90 14 {top + height / 2})"'),
    ]
    kinds = list(dict.fromkeys(line.kind for line in lines if line.kind))
    looks = {kind: _stroke(number) for number, kind in enumerate(kinds)} | {"": MAIN}
    for line in sorted(lines, key=lambda line: not line.kind):
        seen = [(n, value) for n, value in enumerate(line.values) if value > most / 10**DECADES]
        if seen:
            path = "M" + "L".join(place(n, value) for n, value in seen)
            parts.append(
                f'<path d="{path}" {looks[line.kind]}><title>{html.escape(line.name)}</title></path>'
            )
    main = [line.name for line in lines if not line.kind]
    for number, (kind, name) in enumerate(
        [*(("", name) for name in main), *((kind, kind) for kind in kinds)]
    ):
        at = top + 10 + 18 * number
        parts.append(f'<path d="M{left + width + 14} {at}h26" {looks[kind]}/>')
        parts.append(_text(left + width + 46, at + 4, name, "start"))
    return _svg(title, left + width + 150, top + height + 46, parts)


MAIN = 'class="whole" fill="none" stroke-width="3"'


def _stroke(number: int) -> str:
    at = number % len(LINES)
    return f'class="k{at}" fill="none" stroke-width="1.3" stroke-dasharray="{LINES[at]}"'


# -- both --------------------------------------------------------------------------------------------------------------


def _svg(title: str, width: float, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="system-ui, sans-serif" font-size="{SIZE}" role="img">'
    )
    words = html.escape(title)
    heading = f'<title>{words}</title><text x="6" y="18" font-size="13" font-weight="600">{words}</text>'
    return "\n".join([head, f"<style>{_style()}</style>", heading, *parts, "</svg>"]) + "\n"


def _style() -> str:
    def palette(ends: tuple[str, str]) -> str:
        return "".join(f".t{n}{{fill:{_mixed(*ends, n / (TONES - 1))}}}" for n in range(TONES))

    def strokes(side: int) -> str:
        return "".join(f".k{n}{{stroke:{colours[side]}}}" for n, colours in enumerate(COLOURS))

    light = f"text{{fill:#3b3834}}.on{{fill:#fff}}.grid{{stroke:#e4e0d8}}.whole{{stroke:#22201d}}{strokes(0)}{palette(LIGHT)}"
    dark = f"text{{fill:#ddd8cf}}.on{{fill:#14201a}}.grid{{stroke:#3a3733}}.whole{{stroke:#f0ece4}}{strokes(1)}{palette(DARK)}"
    return f"{light}@media(prefers-color-scheme:dark){{{dark}}}"


def _mixed(low: str, high: str, share: float) -> str:
    parts = ((int(low[i : i + 2], 16), int(high[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in parts)


def _text(x: float, y: float, words: str, anchor: str, cls: str = "", more: str = "") -> str:
    named = f' class="{cls}"' if cls else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}{" " + more if more else ""}>{html.escape(words)}</text>'
