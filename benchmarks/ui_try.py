"""How long another strength takes on Try it: `python benchmarks/ui_try.py` prints JSON, in seconds.

The real page in Chromium with the starter model and a LoRA for it, 8 sampling steps: from the press of a key, the typed number or
the slider's release to the new picture in the page, and what of it the drawing process took. Needs playwright and Chromium.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from served import ROOT, chromium_page, served

REPEATS = 5
STEPS = "8"
WAIT = 300_000  # ms
SHOWN = """before => { const image = document.querySelector('#picture .one img');
           return image && image.getAttribute('src') !== before && image.complete && image.naturalWidth > 0; }"""


def make_lora(home: Path) -> str:
    """A LoRA for the starter, of one step; its run's id."""
    os.environ["LORA_SD_HOME"] = str(home)
    sys.path.insert(0, str(ROOT))
    import lora_sd

    settings = {"data": {"images": "starter:streamline"}, "optim": {"steps": 1}, "preview": {"every": 0}}
    return lora_sd.train(lora_sd.TrainConfig.model_validate(settings)).parents[1].name


def timed(page: Any, act: Callable[[], None]) -> dict[str, float]:
    """Seconds from `act` to the picture that it brings, and of what the drawing process did of it."""
    image = page.locator("#picture .one img")
    before = image.get_attribute("src") if image.count() else ""
    began = time.perf_counter()
    act()
    page.wait_for_function(SHOWN, arg=before, timeout=WAIT, polling="raf")
    seconds = time.perf_counter() - began
    told = json.loads(page.locator("#picture [data-counts]").get_attribute("data-counts"))
    parts = {name: told[name] / 1000 for name in ("load", "draw", "write")}
    return {"whole": seconds, **parts, "page": seconds - sum(parts.values()), "models": told["models"]}


def middle(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(one[name] for one in found), 3) for name in found[0]}


def figures(home: Path) -> dict[str, float]:
    """Medians by the way in which the strength was moved; "models" is how often a model was loaded: once."""
    run = make_lora(home)
    with served(home) as there, chromium_page(f"{there.url}?tab=try&run={run}") as page:
        page.set_default_timeout(WAIT)
        page.locator("#prompt textarea").fill("koala, streamline style")
        page.locator("#try-more").get_by_role("button", name="More").click()
        page.locator("#steps input[type=number]").fill(STEPS)
        page.locator("#steps input[type=number]").press("Tab")
        first = timed(page, page.locator("#generate").click)
        found = {"first": middle([first]), **ways(page)}
    return {
        f"strength_by_{way}_{name}": value for way, parts in found.items() for name, value in parts.items()
    }


def ways(page: Any) -> dict[str, dict[str, float]]:
    slider = page.locator("#strength-0 input[type=range]")
    number = page.locator("#strength-0 input[type=number]")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()

    def drag(share: float) -> Callable[[], None]:
        def act() -> None:
            page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)
            page.mouse.down()
            page.mouse.up()

        return act

    return {
        "key": middle([timed(page, lambda: slider.press("ArrowLeft")) for _ in range(REPEATS)]),
        "number": middle(
            [timed(page, lambda n=n: number.fill(f"{0.11 + n / 100:.2f}")) for n in range(REPEATS)]
        ),
        "mouse": middle([timed(page, drag(0.2 + 0.13 * n)) for n in range(REPEATS)]),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        print(json.dumps(figures(Path(home)), indent=1))


if __name__ == "__main__":
    main()
