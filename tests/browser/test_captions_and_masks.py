"""Captions by a model and painted masks in the browser, on the real page; a real training reads the mask."""

import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[1]))

from captioning_models import tagger

from lora_sd import config, run
from lora_sd.events import Note

pytestmark = pytest.mark.browser

SLOW = 240  # seconds: two busy cores that also train


@pytest.fixture
def cats(home: Path) -> Path:
    """A project of four pictures without captions, in a home with a tagger; its folder."""
    tagger(home / "models" / "owner--tagger")
    images = home / "projects" / "cats" / "images"
    images.mkdir(parents=True)
    for name, size in {
        "a.png": (200, 100),
        "b.png": (128, 128),
        "c.png": (128, 128),
        "d.png": (90, 120),
    }.items():
        Image.effect_noise(size, 60).convert("RGB").save(images / name)
    return images.parent


def open_images(page, url: str) -> None:
    page.goto(f"{url}?tab=images")
    unfold(page)
    page.locator("#mask-editor canvas").wait_for()


def unfold(page) -> None:
    for name in ("Captions by a model", "Masks"):
        page.get_by_role("button", name=name).first.click()


def spot(page, x: float, y: float) -> tuple[float, float]:
    """A place on the page by shares of the canvas."""
    box = page.locator("#mask-editor canvas").bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def shares(path: Path) -> list[float]:
    """How white the left and the right half of a mask are, 0 to 1."""
    mask = np.asarray(Image.open(path)) / 255
    middle = mask.shape[1] // 2
    return [float(mask[:, :middle].mean()), float(mask[:, middle:].mean())]


def test_a_mask_is_painted_saved_changed_and_read_by_training(cats, app, page):
    from playwright.sync_api import expect

    page.set_viewport_size({"width": 390, "height": 900})
    open_images(page, app.url)
    canvas, told = page.locator("#mask-editor canvas"), page.locator("#mask-editor .told")
    canvas.scroll_into_view_if_needed()
    page.mouse.move(*spot(page, 0.2, 0.1))
    page.mouse.down()
    page.mouse.move(*spot(page, 0.2, 0.9), steps=4)
    page.mouse.up()
    expect(told).to_have_text("Not saved yet.")
    page.get_by_role("button", name="Save mask").click()
    expect(told).to_have_text("Saved.")
    mask = cats / "masks" / "a.png"
    left, right = shares(mask)
    stroke = (20 * 80 + 3.14 * 10**2) / 100**2  # the brush is a twentieth of 200 pixels to each side
    assert left == pytest.approx(stroke, abs=0.01) and right == 0 and Image.open(mask).size == (200, 100)
    expect(page.locator("#mask-summary")).to_contain_text("1 of 4 pictures has a mask")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

    page.reload()
    unfold(page)
    page.locator("#mask-editor").get_by_role("button", name="Remove mask").wait_for()
    page.locator("#mask-editor").get_by_role("button", name="Paint all").click()
    page.locator("#mask-editor").get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Save mask").click()
    expect(told).to_have_text("Saved.")
    assert shares(mask) == pytest.approx([left, right], abs=0.01)  # the mask lies where it was painted
    canvas.focus()
    page.keyboard.press("Space")  # with the keys, in the middle
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Save mask").click()
    expect(told).to_have_text("Saved.")
    assert shares(mask)[1] > 0.01

    page.get_by_role("tab", name="Make").click()
    expect(page.locator("#summary")).to_contain_text("1 of 4 pictures")
    page.get_by_role("button", name="Advanced").click()
    for name, value in {"optim-steps": "1", "preview-every": "0", "lora-rank": "2"}.items():
        field = page.locator(f"#set-{name}").locator("input, textarea").first
        field.fill(value)
        field.press("Tab")
    expect(page.locator("#changed")).to_contain_text("3 changed by you")
    page.locator("#start").click()
    page.locator("#header h2").wait_for()
    [found] = run.list_runs(app.home / "runs")
    assert config.load(found.folder / "config.toml").data.masks == str(cats / "masks")
    until = time.time() + SLOW
    while not any(
        note.startswith("Without a mask, so learned whole: b.png, c.png") for note in notes(found.folder)
    ):
        assert time.time() < until
        time.sleep(0.2)


def notes(folder: Path) -> list[str]:
    """What the trainer has said so far."""
    found, _ = run.read_events(folder)
    return [event.text for event in found if isinstance(event, Note)]


def test_captions_come_stay_over_a_reload_and_are_files(cats, app, page):
    from playwright.sync_api import expect

    (cats / "images" / "b.txt").write_text("by hand")
    open_images(page, app.url)
    page.locator("#caption-more button").first.click()
    page.locator("#caption-trigger textarea, #caption-trigger input").first.fill("${1+1} mycat")
    page.locator("#write-captions").click()
    state = page.locator("#caption-state")
    expect(state).to_contain_text("3 captions were written.")
    expect(state.locator("li")).to_have_count(3)
    expect(state.locator("li").first).to_contain_text("${1+1} mycat")
    texts = {path.name: path.read_text() for path in (cats / "images").glob("*.txt")}
    assert texts["b.txt"] == "by hand" and len(texts) == 4
    page.reload()
    unfold(page)
    expect(state).to_contain_text("3 captions were written.")
    page.locator("#write-captions").click()
    expect(page.locator("#caption-obstacle")).to_contain_text("Every picture has a caption")
    page.locator("#caption-existing").get_by_label("Add to them").check()
    page.locator("#write-captions").click()
    expect(state).to_contain_text(re.compile("1 caption was written|captions were written"))
    expect(page.locator("#write-captions")).to_be_enabled()
    page.locator("#captioner input").click()
    page.get_by_role("option", name="wd-vit-tagger-v3 · to download").click()
    expect(page.locator("#get-captioner")).to_be_visible()
    page.locator("#write-captions").click()
    expect(page.locator("#caption-obstacle")).to_contain_text("press Download first")
