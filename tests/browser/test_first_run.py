"""An artist's first LoRA: two decisions, pictures and a trigger word, from an empty home to the file."""

from pathlib import Path

import pytest

from lora_sd.data.folder import STARTER_SETS
from lora_sd.lora.inspection import inspect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PICTURES = sorted((STARTER_SETS / "streamline" / "train").glob("*.png"))
SLOW = 400_000  # ms: a hundred steps on two busy cores


def test_two_decisions_make_a_lora(app, page, tmp_path: Path):
    from playwright.sync_api import expect

    page.goto(app.url)
    expect(page.locator("#obstacle")).to_contain_text("No usable pictures yet")
    page.locator("#files input[type=file]").set_input_files(PICTURES)  # the first decision
    expect(page.locator("#pictures")).to_contain_text("24 pictures")
    page.locator("#trigger :is(input, textarea)").fill("stream_lx")  # the second
    page.locator("#start").click()

    expect(page.locator("#previews img").first).to_be_visible(timeout=SLOW)
    expect(page.locator("#header")).to_contain_text("Your LoRA is ready", timeout=SLOW)
    page.locator("#header").get_by_role("button", name="Try it").click()
    with page.expect_download() as download:
        page.locator("#download-lora").click()
    target = tmp_path / download.value.suggested_filename
    download.value.save_as(target)
    known = inspect(target)
    assert known.trigger == "stream_lx"
    assert known.ranks
