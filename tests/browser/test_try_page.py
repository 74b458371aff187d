"""Try it in the browser: a LoRA of the real trainer on the starter, in pictures of few steps."""

import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from lora_sd import config, infotext
from lora_sd.training.train import train

pytestmark = pytest.mark.browser

SLOW = 120_000  # ms
HOSTILE = "koala ${document.body.id='broken'} <img src=x onerror=alert(1)>, streamline style"


@pytest.fixture
def trained(home: Path) -> Path:
    """A run of three steps."""
    settings = {
        "data.images": "starter:streamline",
        "optim.steps": 3,
        "optim.learning_rate": 0.01,
        "optim.batch_size": 1,
        "lora.rank": 2,
        "preview.every": 0,
        "output.name": "icons",
    }
    return train(config.changed(config.TrainConfig(), settings)).parent.parent


def counts(page) -> dict[str, int]:
    """What the drawing process has loaded and encoded so far."""
    told = json.loads(page.locator("#picture [data-counts]").get_attribute("data-counts"))
    return {name: told[name] for name in ("models", "loras", "prompts")}


def drawn(page, act) -> Image.Image:
    """The picture that `act` brings."""
    from playwright.sync_api import expect

    image = page.locator("#picture .one img")
    before = image.get_attribute("src") if image.count() else ""
    act()
    expect(image).to_be_visible(timeout=SLOW)
    expect(image).not_to_have_attribute("src", before, timeout=SLOW)
    answer = page.request.get(image.evaluate("image => image.src"), max_retries=3)
    return Image.open(io.BytesIO(answer.body()))


def set_number(page, slider: str, value: str) -> None:
    field = page.locator(f"{slider} input[type=number]")
    field.fill(value)
    field.press("Tab")


def test_strengths_draw_anew_without_loading_and_pictures_are_kept(trained, app, page, tmp_path):
    from playwright.sync_api import expect

    page.goto(f"{app.url}?tab=try&run={trained.name}")
    expect(page.locator("#gallery")).to_contain_text("Every picture you make is kept here")
    page.locator("#try-more").get_by_role("button", name="More").click()
    set_number(page, "#steps", "2")
    page.locator("#prompt textarea").fill(HOSTILE)
    first = drawn(page, page.locator("#generate").click)
    assert first.info["parameters"].startswith(f"{HOSTILE} <lora:icons:1>\nSteps: 2, Sampler: DPM++ 2M")
    loaded = counts(page)

    # keys, and one part alone
    slider = page.locator("#strength-0 input[type=range]")
    by_key = drawn(page, lambda: slider.press("ArrowLeft"))
    assert "<lora:icons:0.95>" in by_key.info["parameters"] and by_key.tobytes() != first.tobytes()
    page.locator("#parts-0").get_by_role("button", name="Parts of LoRA").click()
    by_part = drawn(page, lambda: page.locator("#mid-0 input[type=range]").press("Home"))
    assert "LoRA blocks: icons mid=0" in by_part.info["parameters"] and by_part.tobytes() != by_key.tobytes()
    assert counts(page) == loaded == {"models": 1, "loras": 1, "prompts": 1}

    # what a slider does not tell of by itself: its reset, and a number that is cut to the largest
    again = drawn(page, page.locator("#strength-0 .reset-button").click)
    assert "<lora:icons:1>" in again.info["parameters"]
    most = drawn(page, lambda: set_number(page, "#strength-0", "9"))
    assert "<lora:icons:2>" in most.info["parameters"]
    drawn(page, lambda: set_number(page, "#strength-0", "0.95"))

    # the latest of many wins
    for _ in range(5):
        slider.press("ArrowLeft")
    expect(page.locator("#picture pre")).to_contain_text("<lora:icons:0.7>", timeout=SLOW)
    expect(page.locator("#picture progress, #drawing progress")).to_have_count(0)

    # a picture's file has its text, and the gallery outlives the program
    with page.expect_download() as download:
        page.locator("#picture").get_by_role("link", name="Download").click()
    download.value.save_as(tmp_path / "one.png")
    told = infotext.parse(infotext.of_picture(tmp_path / "one.png"))
    assert told.prompt == HOSTILE and told.loras[0].strength.whole == 0.7
    expect(page.locator("body")).not_to_have_id("broken")
    app.restart()
    page.goto(f"{app.url}?tab=try&run={trained.name}")
    wall = page.locator("#gallery .wall button")
    expect(wall.first).to_be_visible()
    kept = wall.count()
    assert kept >= 4  # not those that were given up
    wall.first.click()
    page.locator("#gallery").get_by_role("button", name="☆ Star").click()
    expect(wall.first.get_by_role("img", name="starred")).to_be_visible()
    page.locator("#gallery").get_by_role("button", name="Use these settings").click()
    expect(page.locator("#strength-0 input[type=number]")).to_have_value("0.7")
    expect(page.locator("#prompt textarea")).to_have_value(HOSTILE)
    page.locator("#gallery").get_by_role("button", name="Delete …").click()
    page.locator("#gallery").get_by_role("button", name="Delete", exact=True).click()
    expect(wall).to_have_count(kept - 1)


def test_a_lora_is_starred_and_copied_and_a_picture_can_be_cancelled(
    trained, home, browser, monkeypatch, tmp_path
):
    from conftest import App
    from playwright.sync_api import expect

    for name in ("checkpoints", "loras", "embeddings"):
        (tmp_path / "ComfyUI" / "models" / name).mkdir(parents=True)
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "ComfyUI"))
    app, page = App(home), browser.new_page()
    try:
        page.goto(f"{app.url}?tab=try&run={trained.name}")
        page.locator("#star-lora").click()
        expect(page.locator("#star-lora")).to_contain_text("Take its star away")
        assert json.loads((trained / "stars.json").read_text()) == ["icons.safetensors"]

        page.locator("#copying").get_by_role("button", name="Copy into another program").click()
        page.locator("#copy-name input, #copy-name textarea").fill("my icons")
        page.locator("#programs").get_by_role("button", name="Copy into ComfyUI").click()
        copy = tmp_path / "ComfyUI" / "models" / "loras" / "my_icons.safetensors"
        expect(page.locator("#copied")).to_contain_text(str(copy))
        assert copy.read_bytes() == (trained / "checkpoints" / "icons.safetensors").read_bytes()

        page.locator("#prompt textarea").fill("koala")
        page.locator("#try-more").get_by_role("button", name="More").click()
        set_number(page, "#steps", "100")
        page.locator("#generate").click()
        expect(page.locator("#drawing")).to_contain_text(re.compile("Drawing|Loading"), timeout=SLOW)
        page.locator("#drawing").get_by_role("button", name="Cancel").click()
        expect(page.locator("#drawing")).to_contain_text("Cancelled.", timeout=SLOW)
        expect(page.locator("#picture img")).to_have_count(0)
    finally:
        page.close()
        app.end_all()
