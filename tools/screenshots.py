"""Pictures of every page for docs/pages/: `python tools/screenshots.py`.

A real journey on a home of its own: the example set, a training of the starter, one picture drawn with the result; then
every page at 1280 and 390 pixels, in light and dark. Takes about five minutes on two processor cores.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "benchmarks")]

from served import CHROMIUM, served  # noqa: E402

OUT = ROOT / "docs" / "pages"
PAGES = {
    "make": "#start",
    "images": "#images",
    "watch": "#previews img",
    "try": "#picture img",
    "tools": "#tools",
}
SIZES = {1280: 860, 390: 844}  # pixels wide: high
SCHEMES = ("light", "dark")
QUALITY = 82
MINUTES = 15


def journey(page: Any, url: str) -> None:
    """From the empty home to a drawn picture."""
    page.goto(url)
    page.get_by_role("button", name="Use the example set").click()
    page.locator("#pictures img").first.wait_for()
    page.locator("#start").click()
    page.locator("#header").get_by_text("Your LoRA is ready").wait_for(timeout=MINUTES * 60_000)
    page.locator("#header").get_by_role("button", name="Try it").click()
    page.locator("#generate").click()
    page.locator("#picture img").first.wait_for(timeout=120_000)
    page.goto(f"{url}?tab=images")
    page.locator(".image-card img[src]").nth(20).wait_for(state="attached", timeout=60_000)
    page.goto(f"{url}?tab=tools")
    page.wait_for_function("window.pageIsOpen")
    page.locator("#tool-go").click()
    page.locator("#tool-state").get_by_text("uses about").first.wait_for(timeout=120_000)


def shoot(browser: Any, url: str, out: Path) -> None:
    """Every page as it is then, in every size and scheme."""
    for width, height in SIZES.items():
        for scheme in SCHEMES:
            viewport = {"width": width, "height": height}
            page = browser.new_page(viewport=viewport, color_scheme=scheme, locale="en-GB")
            for name in PAGES:
                page.goto(f"{url}?tab={name}")
                page.wait_for_function("window.pageIsOpen")
                if name == "try":
                    page.locator("#generate").click()
                    page.locator("#picture img").first.wait_for()
                page.wait_for_timeout(2500)
                with Image.open(io.BytesIO(page.screenshot())) as picture:
                    picture.convert("RGB").save(out / f"{name}-{width}-{scheme}.webp", quality=QUALITY)
            page.close()


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument(
        "--home", type=Path, help="one that was used before: its runs are shown, none is made"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as fresh, served(args.home or Path(fresh)) as program:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
            )
            if not args.home:
                journey(browser.new_page(locale="en-GB"), program.url)
            shoot(browser, program.url, args.out)
            browser.close()


if __name__ == "__main__":
    main()
