"""Watch with the real trainer: what a run that broke offers, comparing pictures, the report, settings again, deleting."""

import os
import re
import signal
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from test_journey import SLOW

from lora_sd import config, events, queue, run
from lora_sd.recorder import Recorder

pytestmark = pytest.mark.browser

QUICK = {
    "data.images": "starter:streamline",
    "optim.batch_size": 2,
    "lora.rank": 2,
    "preview.every": 0,
    "preview.steps": 2,
    "preview.prompts": ["cow face", "red house"],
    "save.every": 0,
    "validate.every": 0,
}
PROMPT = "portrait of Anna Müller"


def created(name: str, **changes) -> Path:
    settings = QUICK | {"output.name": name} | {key.replace("__", "."): v for key, v in changes.items()}
    return run.create(config.changed(config.TrainConfig(), settings), status="queued")


def ended(name: str, event: events.Event, steps: int = 8, **changes) -> Path:
    """A run that has come to its end, with pictures of two prompts at each second step."""
    recorder = Recorder(created(name, **changes), 10)
    for step in range(steps + 1):
        recorder(
            events.Step(step=step, total=10, loss=0.1 if step else None, learning_rate=1e-4, seconds=0.5)
        )
        for index, prompt in enumerate([PROMPT, "red house"] if step % 2 == 0 else []):
            path = f"previews/{step:06d}-{index}.png"
            Image.new("RGB", (64, 64), (step * 20, 100, index * 99)).save(recorder.folder / path)
            recorder(events.Preview(step=step, prompt=prompt, index=index, path=path))
    recorder(event)
    recorder.close()
    return recorder.folder


def test_a_killed_trainer_is_told_and_goes_on_and_one_without_memory_goes_on_in_less(app, page):
    from playwright.sync_api import expect

    folder = created("icons", optim__steps=3000, save__state_every=20)
    queue.add(folder)
    page.goto(f"{app.url}?tab=watch&run={folder.name}")
    header = page.locator("#header")
    expect(header).to_contain_text(re.compile(r"step [3-9]\d"), timeout=SLOW)
    expect(page).to_have_title(re.compile(r"^\d+ % · icons$"))
    os.kill(run.read_state(folder).pid, signal.SIGKILL)
    card = header.get_by_role("alert")
    expect(card).to_contain_text("Stopped unexpectedly at step")
    expect(page).to_have_title("✕ icons failed")
    saved = run.saved_step(folder)
    card.get_by_role("button", name=f"Resume from step {saved}").click()
    expect(header.locator(".badge")).to_have_text("training", timeout=SLOW)
    header.get_by_role("button", name="Stop and save").click()
    expect(header.locator(".badge")).to_have_text("stopped and saved", timeout=SLOW)
    expect(page).to_have_title("✓ icons stopped")

    state = run.read_state(folder)
    recorder = Recorder(folder, 3000)
    recorder.state.step = state.step
    recorder(events.Failed("There is not enough memory.", "Traceback: 1", code="memory", rung="fast"))
    recorder.close()
    expect(card).to_contain_text("Memory ran out")
    card.get_by_text("Details", exact=True).click()
    expect(card.locator("pre")).to_contain_text("Traceback: 1")
    card.get_by_role("button", name="Restart with less memory").click()
    expect(header.locator(".badge")).to_have_text("training", timeout=SLOW)
    assert config.load(folder / "config.toml").machine.memory == "low"
    assert run.read_state(folder).step >= state.step
    header.get_by_role("button", name="Stop and save").click()
    expect(header.locator(".badge")).to_have_text("stopped and saved", timeout=SLOW)


def test_pictures_are_compared_with_the_keyboard(home, app, page):
    from playwright.sync_api import expect

    folder = ended("tabby", events.Finished(step=8, path=""))
    (folder / "previews" / "000004-1.png").unlink()
    page.goto(f"{app.url}?tab=watch&run={folder.name}")
    pictures = page.locator("#previews button.picture")
    expect(pictures).to_have_count(9)
    expect(page.locator("#previews")).to_contain_text("This picture is gone")
    pictures.nth(0).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    dialog = page.locator("dialog.compare")
    right = dialog.get_by_label("Right")
    expect(dialog.locator("h3")).to_have_text(PROMPT)
    expect(right.locator("option:checked")).to_have_text("step 2")
    expect(dialog.get_by_label("Left").locator("option:checked")).to_have_text("without LoRA")
    page.keyboard.press("ArrowDown")
    expect(dialog.locator("h3")).to_have_text("red house")
    page.keyboard.press("ArrowRight")  # over the picture that is gone
    expect(right.locator("option:checked")).to_have_text("step 6")
    expect(dialog.locator("img").first).to_have_attribute("alt", "red house, step 6")
    dialog.get_by_label("Left").select_option("step 2")
    expect(dialog.locator("img.before")).to_have_attribute("alt", "red house, step 2")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(pictures.nth(1)).to_be_focused()


def test_the_curves_are_chosen_and_told_in_words(home, app, page):
    from playwright.sync_api import expect

    folder = ended("tabby", events.Finished(step=8, path=""))
    page.goto(f"{app.url}?tab=watch&run={folder.name}")
    expect(page.locator("#words")).to_contain_text("Loss 0.100. Learning rate 0.0001. 0.5 s per step.")
    for choice in ("Learning rate", "Speed", "Loss"):
        page.locator("#shown").get_by_label(choice).check()
        title = {"Speed": "seconds per step"}.get(choice, choice.lower())
        expect(page.locator("#chart")).to_contain_text(title)


def test_a_report_is_read_before_it_is_saved_and_has_no_names_in_it(home, app, page, tmp_path):
    from playwright.sync_api import expect

    failed = events.Failed(f"It broke in {home}", "Traceback")
    folder = ended("anna", failed, preview__prompts=[PROMPT], data__trigger="anna_lx")
    page.goto(f"{app.url}?tab=watch&run={folder.name}")
    page.get_by_role("alert").get_by_role("button", name="Save report").click()
    report = page.locator("#report")
    expect(report).to_contain_text("events.jsonl")
    report.get_by_text("settings.json").click()
    expect(report).to_contain_text("lora.rank")
    expect(report).not_to_contain_text("Müller")
    with page.expect_download() as download:
        page.locator("#save-report").click()
    download.value.save_as(tmp_path / "report.zip")
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        text = "".join(archive.read(name).decode() for name in archive.namelist())
    assert "Traceback" in text
    assert not [word for word in (str(home), "Müller", "anna_lx", folder.name) if word in text]
    page.locator("#close-report").click()
    expect(report).not_to_be_visible()


def test_settings_of_a_run_come_back_on_make_and_a_run_is_deleted_on_purpose(home, app, page):
    from playwright.sync_api import expect

    gone = ended("gone", events.Finished(step=8, path=""), lora__rank=24, data__trigger="gone_lx")
    kept = ended("kept", events.Finished(step=8, path=""))
    page.goto(f"{app.url}?tab=watch&run={gone.name}")
    past = page.locator("#past")
    expect(past.locator("li")).to_have_count(2)
    past.get_by_role("button", name="Use these settings: gone").click()
    expect(page.locator("#trigger textarea, #trigger input")).to_have_value("gone_lx")
    expect(page.locator("#changed")).to_contain_text("24 instead of")

    page.get_by_role("tab", name="Watch").click()
    row = past.locator("li", has_text="gone")
    row.get_by_text("Delete …").click()
    expect(row).to_contain_text(re.compile(r"deleted for good: [\d.]+ MB"))
    row.get_by_role("button", name="Delete for good").click()
    expect(past.locator("li")).to_have_count(1)
    expect(past.locator("details[open]")).to_have_count(0)
    expect(page.locator("#header h2")).to_have_text("kept")
    assert not gone.exists() and kept.exists()


def test_many_steps_and_many_runs_are_all_within_reach(home, app, page):
    from playwright.sync_api import expect

    for number in range(9):
        created(f"other-{number}")
    folder = ended("long", events.Finished(step=40, path=""), steps=40)
    for other in run.list_runs():  # or they would be trained
        if other.folder != folder:
            run.write_state(other.folder, run.State(status="stopped", total=10))
    page.goto(f"{app.url}?tab=watch&run={folder.name}")
    heads = page.locator("#previews thead th")
    expect(heads).to_have_count(1 + 9)
    page.locator("#columns").get_by_label("All").check()
    expect(heads).to_have_count(1 + 21)
    page.locator("#columns").get_by_label("The latest").check()
    expect(heads.nth(2)).to_have_text("step 26")

    rows = page.locator("#past .runs > li:visible")
    expect(rows).to_have_count(10)
    page.locator("#past input[type=search]").fill("other-3")
    expect(rows).to_have_count(1)
    page.locator("#past input[type=search]").fill("nobody")
    expect(page.locator("#past")).to_contain_text("Nothing has that in its name.")
