"""What the pages show without a training: old runs, hostile words, small screens, a second tab, a restart."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from lora_sd import config, events, run
from lora_sd.recorder import Recorder

pytestmark = pytest.mark.browser

HOSTILE = "cat ${document.body.id='broken'} {{x}} <img src=x onerror=alert(1)> C:\\new `a` $5"


@pytest.fixture
def interrupted(home: Path) -> Path:
    """A run whose trainer is gone, with a preview of a prompt that looks like code."""
    settings = config.changed(config.TrainConfig(), {"output.name": "tabby", "optim.steps": 100})
    recorder = Recorder(run.create(settings), 100)
    recorder(events.Phase(status="training", text="Training"))
    for step in range(21):
        recorder(events.Step(step=step, total=100, loss=0.1 if step else None, held_out=0.09, seconds=0.5))
        if step in (0, 20):
            path = f"previews/{step:06d}-0.png"
            Image.new("RGB", (128, 128), "teal").save(recorder.folder / path)
            recorder(events.Preview(step=step, prompt=HOSTILE, index=0, path=path))
    recorder(events.Note(text=HOSTILE))
    recorder.state.pid = 2**22 + 1  # no process has it
    recorder.close()
    return recorder.folder


def test_an_interrupted_run_is_found_by_every_tab_and_after_a_restart(interrupted, app, page):
    from playwright.sync_api import expect

    def shows_it(tab) -> None:
        expect(tab.locator("#header")).to_contain_text("interrupted")
        expect(tab.locator("#header").get_by_role("button", name="Start again")).to_be_visible()
        expect(tab.locator("#previews img")).to_have_count(2)
        expect(tab.locator("#previews")).to_contain_text(HOSTILE)
        expect(tab.locator("#header")).to_contain_text(HOSTILE)
        expect(tab.locator("body")).not_to_have_id("broken")

    address = f"{app.url}?tab=watch&run={interrupted.name}"
    page.goto(address)
    shows_it(page)
    expect(page.locator("#past")).to_contain_text("tabby")
    page.locator("#previews button.picture").nth(1).click()
    expect(page.locator("dialog.compare img")).to_have_count(2)
    page.locator("dialog.compare").get_by_role("button", name="Close").click()

    second = page.context.new_page()
    second.goto(app.url)
    second.get_by_role("tab", name="Watch").click()
    shows_it(second)

    app.restart()
    page.goto(address)
    shows_it(page)


def test_a_phone_shows_every_page_without_sideways_scrolling(interrupted, app, browser):
    from playwright.sync_api import expect

    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    insides = {"make": "#start", "images": "#images-grid", "watch": "#previews img", "try": "#generate"}
    for tab, inside in {**insides, "tools": "#tool-go"}.items():
        page.goto(f"{app.url}?tab={tab}&run={interrupted.name}")
        expect(page.locator(inside).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), tab
    page.close()


def test_a_zip_that_points_outside_and_a_damaged_picture_are_told_and_the_rest_is_used(app, page, tmp_path):
    from playwright.sync_api import expect

    good, bad, evil = tmp_path / "good ${1+1}.png", tmp_path / "bad.png", tmp_path / "evil.zip"
    data = io.BytesIO()
    Image.effect_noise((96, 96), 50).save(data, "PNG")
    good.write_bytes(data.getvalue())
    bad.write_bytes(data.getvalue()[:500])
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("../../outside.png", data.getvalue())

    page.goto(app.url)
    expect(page.locator("#start")).to_be_disabled()
    page.locator("#files input[type=file]").set_input_files([good, bad, evil])
    expect(page.locator("#pictures")).to_contain_text("2 left out")
    expect(page.locator("#pictures")).to_contain_text("bad.png is damaged")
    expect(page.locator("#pictures")).to_contain_text("points outside the zip")
    expect(page.locator("#pictures img")).to_have_count(1)
    expect(page.locator("#start")).to_be_enabled()
    page.reload()
    expect(page.locator("#pictures")).to_contain_text("2 left out")
    expect(page.locator("#pictures img")).to_have_count(1)


def test_settings_of_another_program_fill_the_form_and_what_was_left_out_is_told(app, page, tmp_path):
    from playwright.sync_api import expect

    preset = {"LoRA_type": "Standard", "network_dim": 24, "max_train_steps": 77, HOSTILE: 3}
    (tmp_path / "preset.json").write_text(json.dumps(preset))
    page.goto(app.url)
    page.get_by_role("button", name="Advanced").click()
    expect(page.locator("#set-lora-rank input")).to_be_visible()
    with page.expect_file_chooser() as chooser:
        page.locator("#import").click()
    chooser.value.set_files(tmp_path / "preset.json")
    expect(page.locator("#imported")).to_contain_text(HOSTILE)
    expect(page.locator("#set-lora-rank input")).to_have_value("24")
    expect(page.locator("#set-optim-steps input")).to_have_value("77")
    expect(page.locator("#summary")).to_contain_text("77 steps")
    expect(page.locator("body")).not_to_have_id("broken")
