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
    "optim.batch_size": 1,
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


def test_a_killed_trainer_is_told_and_one_without_memory_goes_on_in_less(app, page):
    from playwright.sync_api import expect

    folder = created("icons", optim__steps=3000, save__state_every=1)
    queue.add(folder)
    page.goto(f"{app.url}?tab=watch&run={folder.name}")
    header = page.locator("#header")
    expect(header).to_contain_text(re.compile(r"step [3-9]"), timeout=SLOW)
    expect(page).to_have_title(re.compile(r"^\d+ % · icons$"))
    os.kill(run.read_state(folder).pid, signal.SIGKILL)
    card = header.get_by_role("alert")
    expect(card).to_contain_text("Stopped unexpectedly at step")
    expect(page).to_have_title("✕ icons failed")
    saved = run.saved_step(folder)
    expect(card.get_by_role("button", name=f"Resume from step {saved}")).to_be_visible()

    recorder = Recorder(folder, 3000)
    recorder(events.Failed("There is not enough memory.", "Traceback: 1", code="memory", rung="fast"))
    recorder.close()
    expect(card).to_contain_text("Memory ran out")
    card.get_by_text("Details", exact=True).click()
    expect(card.locator("pre")).to_contain_text("Traceback: 1")
    card.get_by_role("button", name="Restart with less memory").click()
    expect(header.locator(".badge")).to_have_text("training", timeout=SLOW)
    assert config.load(folder / "config.toml").machine.memory == "low"
    assert run.read_state(folder).step >= saved


def test_pictures_curves_and_runs_are_all_within_reach_also_by_keyboard(home, app, page):
    from playwright.sync_api import expect

    for number in range(9):
        ended(f"other-{number}", events.Finished(step=0, path="", stopped=True), steps=0)
    folder = ended("long", events.Finished(step=40, path=""), steps=40)
    (folder / "previews" / "000010-1.png").unlink()
    page.goto(f"{app.url}?tab=watch&run={folder.name}")
    pictures = page.locator("#previews button.picture")
    expect(pictures).to_have_count(17)  # of nine steps and two prompts
    expect(page.locator("#previews")).to_contain_text("This picture is gone")
    pictures.nth(0).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    dialog = page.locator("dialog.compare")
    left, right = (dialog.get_by_label(name, exact=True) for name in ("Left", "Right"))
    expect(dialog.locator("h3")).to_have_text(PROMPT)
    expect(left.locator("option:checked")).to_have_text("without LoRA")
    expect(right.locator("option:checked")).to_have_text("step 4")
    page.keyboard.press("ArrowDown")
    expect(dialog.locator("h3")).to_have_text("red house")
    page.keyboard.press("ArrowRight")  # over the picture that is gone
    expect(right.locator("option:checked")).to_have_text("step 16")
    expect(dialog.locator("img").first).to_have_attribute("alt", "red house, step 16")
    left.select_option("step 4")
    expect(dialog.locator("img.before")).to_have_attribute("alt", "red house, step 4")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(pictures.nth(1)).to_be_focused()

    heads = page.locator("#previews thead th")
    page.locator("#columns").get_by_label("All").check()
    expect(heads).to_have_count(1 + 21)
    page.locator("#columns").get_by_label("The latest").check()
    expect(heads.nth(2)).to_have_text("step 26")

    expect(page.locator("#words")).to_contain_text("Loss 0.100. Learning rate 0.0001. 0.5 s per step.")
    for choice, title in {"Learning rate": "learning rate", "Speed": "seconds per step"}.items():
        page.locator("#shown").get_by_label(choice).check()
        expect(page.locator("#chart")).to_contain_text(title)

    rows = page.locator("#past .runs > li:visible")
    expect(rows).to_have_count(10)
    page.locator("#past input[type=search]").fill("other-3")
    expect(rows).to_have_count(1)
    page.locator("#past input[type=search]").fill("nobody")
    expect(page.locator("#past")).to_contain_text("Nothing has that in its name.")


def test_a_report_has_no_names_and_a_run_lends_its_settings_and_is_deleted_on_purpose(
    home, app, page, tmp_path
):
    from playwright.sync_api import expect

    failed = events.Failed(f"It broke in {home}", "Traceback")
    gone = ended("anna", failed, preview__prompts=[PROMPT], data__trigger="anna_lx", lora__rank=24)
    kept = ended("kept", events.Finished(step=8, path=""))
    page.goto(f"{app.url}?tab=watch&run={gone.name}")
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
    assert not [word for word in (str(home), "Müller", "anna_lx", gone.name) if word in text]
    page.locator("#close-report").click()
    expect(report).not_to_be_visible()

    past = page.locator("#past")
    past.get_by_role("button", name="Use these settings: anna").click()
    expect(page.locator("#trigger textarea, #trigger input")).to_have_value("anna_lx")
    expect(page.locator("#summary")).to_contain_text("rank 24")
    page.get_by_role("tab", name="Watch").click()
    row = past.locator("li", has_text="anna")
    row.get_by_text("Delete …").click()
    expect(row).to_contain_text(re.compile(r"deleted for good: [\d.]+ MB"))
    row.get_by_role("button", name="Delete for good").click()
    expect(past.locator(".runs > li")).to_have_count(1)
    expect(past.locator("details[open]")).to_have_count(0)
    expect(page.locator("#header h2")).to_have_text("kept")
    assert not gone.exists() and kept.exists()
