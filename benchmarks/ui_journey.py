"""The first run as a person makes it, in a real Chromium: `python benchmarks/ui_journey.py` prints JSON.

An empty home, the example pictures dropped, the trigger word as suggested, Start; the seconds until the page is open,
and from there until the pictures are in, the first preview shows and the LoRA is downloaded.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from served import ROOT, chromium_page, served

PICTURES = ROOT / "lora_sd" / "starter" / "sets" / "streamline" / "train"
FEW = {
    "optim-steps": 10,
    "preview-steps": 4,
    "preview-prompts": "red apple",
}  # the way is measured, not the training
LONGEST = 600_000  # ms


def figures(home: Path) -> dict[str, float]:
    """Seconds, by what they end with."""
    started = time.perf_counter()
    with served(home) as there, chromium_page(there.url) as page:
        page.set_default_timeout(LONGEST)
        page.wait_for_function("window.pageIsOpen")
        opened = time.perf_counter()
        return {"page_s": opened - started, **first_run(page, opened)}


def first_run(page: Any, opened: float) -> dict[str, float]:
    """What a person does on the open page; seconds since then."""
    page.locator("#files input[type=file]").set_input_files(sorted(PICTURES.glob("*.png")))
    page.locator("#pictures img").first.wait_for()
    pictures = time.perf_counter()
    page.get_by_role("button", name="Advanced").click()
    for name, value in FEW.items():
        field = page.locator(f"#set-{name}").locator("input, textarea")
        field.fill(str(value))
        field.press("Tab")
    page.locator("#summary").get_by_text(f"{FEW['optim-steps']} steps").first.wait_for()
    page.locator("#start:enabled").click()
    page.locator("#previews img").first.wait_for()
    preview = time.perf_counter()
    page.locator("#header").get_by_text("Your LoRA is ready").wait_for()
    page.locator("#header").get_by_role("button", name="Try it").click()
    with page.expect_download() as download:
        page.locator("#download-lora").click()
    download.value.path()
    ends = {"pictures_s": pictures, "first_preview_s": preview, "downloaded_s": time.perf_counter()}
    return {name: moment - opened for name, moment in ends.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        found = figures(Path(home))
    print(json.dumps({name: round(seconds, 1) for name, seconds in found.items()}, indent=1))


if __name__ == "__main__":
    main()
