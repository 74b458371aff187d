"""Figures of the Images page in a browser, with 200 pictures: `python benchmarks/ui_images.py` prints JSON.

Needs playwright and a Chromium. The pictures are photographs' size and noise, so their files are large, too.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from served import chromium_page, served

NUM_PICTURES = 200
SIDES = ((1600, 1200), (1200, 1600), (1400, 1400))
SAVES = 10


def make_set(images: Path, count: int = NUM_PICTURES) -> None:
    """Pictures with soft areas and edges, each with a caption."""
    images.mkdir(parents=True)
    for number in range(count):
        rng, size = np.random.default_rng(number), SIDES[number % len(SIDES)]
        soft = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        spots = Image.fromarray(rng.integers(0, 256, (60, 60), np.uint8)).resize(
            size, Image.Resampling.NEAREST
        )
        Image.composite(soft, spots.convert("RGB"), spots).save(images / f"{number:03}.jpg", quality=90)
        words = ", ".join(f"word {n}" for n in rng.integers(0, 40, 8))
        (images / f"{number:03}.txt").write_text(f"mycat, {words}")


def figures(home: Path) -> dict[str, float]:
    """Seconds and bytes as a person's browser has them; the first look at the pictures is apart from every later one."""
    make_set(home / "projects" / "many" / "images")
    with served(home) as there, chromium_page(f"{there.url}?tab=images") as page:
        page.set_viewport_size({"width": 1280, "height": 900})
        return look(page, there.url)


def look(page: Any, url: str) -> dict[str, float]:
    values: list[int] = []  # bytes of what the grid was told

    def weigh(request) -> None:
        if "component_server" in request.url:
            values.append(len(request.response().body()))

    cards, pictures = (
        "document.querySelectorAll('.image-card').length",
        "document.querySelectorAll('.image-card img[src]').length",
    )
    page.wait_for_function(f"{cards} == {NUM_PICTURES}")
    started = time.perf_counter()
    page.wait_for_function(
        f"{pictures} == {NUM_PICTURES} && !document.querySelector('.progress').textContent", timeout=120_000
    )
    checked = time.perf_counter() - started

    page.goto(url)  # as every later time: from Make to Images
    page.wait_for_function("window.pageIsOpen")
    page.on("requestfinished", weigh)
    page.get_by_role("tab", name="Images").wait_for()
    shown = page.evaluate(
        """async (count) => {
            const started = performance.now();
            [...document.querySelectorAll('[role=tab]')].find((tab) => tab.textContent.trim() === 'Images').click();
            while (document.querySelectorAll('.image-card img[src]').length < count) await new Promise(requestAnimationFrame);
            await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
            return performance.now() - started;
        }""",
        NUM_PICTURES,
    )
    saves = [
        page.evaluate(
            """async (at) => {
                const card = document.querySelectorAll('.image-card')[at], text = card.querySelector('textarea');
                text.focus();
                text.value += ' again';
                const started = performance.now();
                text.blur();
                while (!card.querySelector('.status.saved')) await new Promise((done) => setTimeout(done, 1));
                return performance.now() - started;
            }""",
            at,
        )
        for at in range(SAVES)
    ]
    page.wait_for_timeout(1500)
    html = page.request.get(url).body()
    config = page.request.get(f"{url}config").body()
    return {
        "pictures": NUM_PICTURES,
        "first_look_s": checked,
        "grid_ms": shown,
        "caption_save_ms": statistics.median(saves),
        "slowest_save_ms": max(saves),
        "html_bytes": len(html),
        "config_bytes": len(config),
        "grid_value_bytes": max(values),
        "nodes_of_the_grid": page.evaluate("document.querySelectorAll('.images-root *').length"),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        print(json.dumps({name: round(value, 1) for name, value in figures(Path(home)).items()}, indent=1))


if __name__ == "__main__":
    main()
