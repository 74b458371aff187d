"""Grids and the best checkpoint on Try it: the real page, the real worker, a run of the starter model."""

import re
import time

import pytest

pytestmark = pytest.mark.browser

SLOW = 240_000  # ms: two busy cores


@pytest.fixture
def trained(home) -> str:
    """A run with two checkpoints, whose previews take two sampling steps; its id."""
    from lora_sd import config as cfg
    from lora_sd import run
    from lora_sd.training.train import train

    settings = {
        "model.base": "starter",
        "data.images": "starter:streamline",
        "validate.split": 0.05,  # one picture
        "validate.every": 1,
        "preview.prompts": ["cow face"],
        "preview.steps": 2,
        "preview.every": 0,
        "save.every": 1,
        "optim.steps": 2,
        "optim.batch_size": 1,
        "lora.rank": 2,
        "output.name": "icons",
    }
    train(cfg.changed(cfg.TrainConfig(), settings))
    return run.list_runs()[0].folder.name


def test_a_grid_comes_picture_by_picture_and_the_best_checkpoint_is_found(trained, app, page):
    from playwright.sync_api import expect

    page.goto(f"{app.url}?tab=try&run={trained}")
    expect(page.locator("#lora-0 input")).to_have_value(re.compile("icons"))
    page.locator("#prompt textarea").fill("cow face")
    page.get_by_role("button", name="Grid: many pictures").click()
    rows_of_seeds(page)
    fill(page, "#grid-x-values", "0, 1")
    fill(page, "#grid-y-values", "1-60")
    expect(page.locator("#grid-about")).to_contain_text("120 pictures, and at most 100")
    fill(page, "#grid-y-values", "1-50")  # far more than are drawn before the click on Cancel
    expect(page.locator("#grid-about")).to_contain_text("100 pictures")

    page.locator("#draw-grid").click()
    pictures = page.locator("#grid-view img")
    expect(pictures).not_to_have_count(0, timeout=SLOW)
    page.locator("#grid-view").get_by_role("button", name="Cancel the grid").click()
    expect(page.locator("#grid-view")).to_contain_text("they stay", timeout=SLOW)
    kept = pictures.count()
    assert 0 < kept < 100

    page.reload()  # what was drawn is shown again
    page.get_by_role("button", name="Grid: many pictures").click()
    expect(pictures).to_have_count(kept)
    page.locator("#prompt textarea").fill("cow face")
    rows_of_seeds(page)
    fill(page, "#grid-x-values", "0, 1")
    fill(page, "#grid-y-values", "1, 2")
    expect(page.locator("#grid-about")).to_contain_text("4 pictures")
    page.locator("#draw-grid").click()
    expect(page.locator("#grid-view")).to_contain_text("Download the sheet", timeout=SLOW)
    expect(pictures).to_have_count(4)
    expect(page.locator("#grid-view th")).to_have_text(
        ["Rows", "strength 0", "strength 1", "seed 1", "seed 2"]
    )

    began = time.monotonic()
    page.locator("#draw-grid").click()
    expect(page.locator("#grid-about")).to_contain_text("they show at once")
    expect(page.locator("#grid-view")).to_contain_text("Download the sheet")
    assert time.monotonic() - began < 10
    page.locator("#grid-view td button").nth(1).press("Enter")
    expect(page.locator("dialog.compare img.before")).to_be_visible()
    page.keyboard.press("Escape")

    page.get_by_role("button", name="Which checkpoint is best").click()
    page.locator("#find-best").click()
    expect(page.locator("#best-view .suggestion")).to_contain_text(re.compile("^Step [12]: "), timeout=SLOW)
    expect(page.locator("#best-view tbody tr")).to_have_count(3)
    page.locator("#best-view").get_by_role("button", name="Use", exact=True).first.click()
    expect(page.locator("#lora-0 input")).to_have_value(re.compile("step 1"))
    page.locator("#best-view").get_by_role("button", name="Use it").click()
    expect(page.locator("#lora-0 input")).to_have_value(re.compile("suggested"))


def fill(page, field: str, text: str) -> None:
    page.locator(f"{field} :is(input, textarea)").fill(text)
    page.keyboard.press("Tab")


def rows_of_seeds(page) -> None:
    from playwright.sync_api import expect

    page.locator("#grid-y input").click()
    page.get_by_role("option", name="Seed", exact=True).click()
    expect(page.locator("#grid-y-values :is(input, textarea)")).to_have_value("1, 2, 3")
