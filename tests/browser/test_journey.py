"""The main job in the browser, on the real page, the real trainer and the starter model."""

import io
import re
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from lora_sd.data.folder import STARTER_SETS
from lora_sd.models.find import STARTER

pytestmark = pytest.mark.browser

PICTURES = sorted((STARTER_SETS / "streamline" / "train").glob("*.png"))
SLOW = 240_000  # ms: two busy cores that also train


def test_pictures_become_a_lora_that_diffusers_loads(app, page, tmp_path: Path):
    from playwright.sync_api import expect

    outside = []
    page.on(
        "request", lambda request: outside.append(request.url) if not is_local(request.url, app.url) else None
    )

    page.goto(app.url)
    expect(page.locator("#start")).to_be_disabled()
    expect(page.locator("#obstacle")).to_contain_text("No usable pictures yet")
    page.locator("#files input[type=file]").set_input_files(PICTURES)
    expect(page.locator("#pictures")).to_contain_text("24 pictures")
    set_advanced(page, {"optim-steps": "400", "optim-learning_rate": "0.01", "preview-steps": "3"})
    set_advanced(page, {"preview-prompts": "cow face", "save-every": "0", "preview-every": "400"})
    expect(page.locator("#changed")).to_contain_text("6 changed by you")
    page.locator("#start").click()

    expect(page.locator("#header")).to_contain_text("my-lora", timeout=SLOW)
    expect(page.locator("#header")).to_contain_text(re.compile(r"step [2-9]"), timeout=SLOW)
    expect(page.locator("#previews img")).to_be_visible(timeout=SLOW)

    assert "tab=watch" in page.url and "run=" in page.url
    page.reload()
    expect(page.locator("#header")).to_contain_text("my-lora")
    expect(page.locator("#previews img")).to_be_visible()
    page.locator("#header").get_by_role("button", name="Stop and save").click()
    expect(page.locator("#header")).to_contain_text("stopped and saved", timeout=SLOW)

    page.locator("#header").get_by_role("button", name="Try it").click()
    expect(page.locator("#prompt textarea")).to_have_value("cow face")
    page.locator("#compare").click()
    expect(page.locator("#compare-slider img").first).to_be_visible(timeout=SLOW)
    page.locator("#try-more").get_by_role("button", name="More").click()
    set_number(page, "#steps", "4")
    without = draw_at(page, "0")
    with_lora = draw_at(page, "1")
    assert ImageChops.difference(without, with_lora).getbbox() is not None

    with page.expect_download() as download:
        page.locator("#download-lora").click()
    target = tmp_path / download.value.suggested_filename
    download.value.save_as(target)
    assert loaded_layers(target) == 132
    assert outside == []


def is_local(url: str, base: str) -> bool:
    return url.startswith((base, "data:", "blob:"))


def set_advanced(page, values: dict[str, str]) -> None:
    if not page.locator("#set-seed").is_visible():
        page.get_by_role("button", name="Advanced").click()
    for name, value in values.items():
        field = page.locator(f"#set-{name}").locator("input, textarea")
        field.fill(value)
        field.press("Tab")


def set_number(page, slider: str, value: str) -> None:
    field = page.locator(f"{slider} input[type=number]")
    field.fill(value)
    field.press("Tab")


def draw_at(page, strength: str) -> Image.Image:
    """Move the strength slider; the picture that it brings."""
    from playwright.sync_api import expect

    image = page.locator("#picture .one img")
    before = image.get_attribute("src") if image.count() else ""
    set_number(page, "#strength-0", strength)
    expect(image).not_to_have_attribute("src", before or "", timeout=SLOW)
    answer = page.request.get(
        image.evaluate("image => image.src"), max_retries=3
    )  # an idle connection may be closed under it
    return Image.open(io.BytesIO(answer.body())).convert("RGB")


def loaded_layers(path: Path) -> int:
    """How many layers diffusers adapts with the file."""
    from diffusers import StableDiffusionPipeline
    from peft.tuners.lora import LoraLayer

    pipeline = StableDiffusionPipeline.from_pretrained(STARTER)
    pipeline.load_lora_weights(path.parent, weight_name=path.name)
    return sum(isinstance(module, LoraLayer) for module in pipeline.unet.modules())
