"""Runs that wait in line, on the real page with the real trainer: put in, reordered, taken out, and the next one by itself."""

import os
import re
import signal

import pytest
from test_journey import SLOW, set_advanced

from lora_sd import config, queue, run

pytestmark = pytest.mark.browser

QUICK = {
    "preview-every": "0",
    "save-every": "0",
    "validate-every": "0",
    "lora-rank": "2",
    "optim-batch_size": "1",
}


def test_runs_wait_in_line_and_the_next_begins_when_one_is_killed(app, page):
    from playwright.sync_api import expect

    page.goto(app.url)
    page.locator("#use-example").click()
    expect(page.locator("#pictures")).to_contain_text("24 pictures")
    set_advanced(page, {**QUICK, "optim-steps": "5000"})
    page.locator("#start").click()
    expect(page.locator("#header")).to_contain_text("example")
    expect(page.locator("#start")).to_have_text("Add to the queue")

    for steps, words in (("6", "Next in line"), ("7", "Number 2 in line")):
        page.get_by_role("tab", name="Make").click()
        set_advanced(page, {"optim-steps": steps})
        expect(page.locator("#summary")).to_contain_text(f"{steps} steps")
        page.locator("#start").click()
        expect(page.locator("#header")).to_contain_text(words)
        expect(page.locator("#header .badge")).to_have_text("waiting")
    expect(page.locator("#bar")).to_contain_text("2 waiting")
    expect_line(page, "6 steps", "7 steps")

    page.locator("#line").get_by_role("button", name="Move example up").click()
    expect_line(page, "7 steps", "6 steps")
    address = page.url
    page.goto("about:blank")  # or Gradio would open it again by itself, at a moment of its own
    app.restart()
    page.goto(address)
    expect_line(page, "7 steps", "6 steps")
    page.locator("#line li").last.get_by_role("button", name=re.compile("Take example out")).click()
    expect_line(page, "7 steps")

    [training] = [found for found in run.list_runs() if found.state.total == 5000]
    os.kill(training.state.pid, signal.SIGKILL)
    expect(page.locator("#header")).to_contain_text("finished", timeout=SLOW)
    expect(page.locator("#header")).to_contain_text("step 7 of 7")
    expect(page.locator("#line")).to_have_text("")
    ends = {found.state.total: found.state.status for found in run.list_runs()}
    assert ends == {5000: "interrupted", 6: "stopped", 7: "finished"}


def expect_line(page, *wishes: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#line li")).to_have_count(len(wishes))
    for row, wish in enumerate(wishes):
        expect(page.locator("#line li").nth(row)).to_contain_text(wish)


def test_a_run_that_nobody_started_by_hand_is_paused_goes_on_and_is_trained_longer(app, page):
    """It is put in line by another program; this one begins it, before any page is open."""
    from playwright.sync_api import expect

    settings = {
        "data.images": "starter:streamline",
        "optim.steps": 3000,
        "optim.batch_size": 1,
        "lora.rank": 2,
    }
    quiet = {"preview.every": 0, "save.every": 0, "output.name": "icons"}
    folder = run.create(config.changed(config.TrainConfig(), settings | quiet), status="queued")
    queue.add(folder)

    page.goto(f"{app.url}?tab=watch&run={folder.name}")
    header = page.locator("#header")
    expect(header).to_contain_text(re.compile(r"step [1-9]"), timeout=SLOW)
    header.get_by_role("button", name="Pause").click()
    expect(header.locator(".badge")).to_have_text("paused", timeout=SLOW)
    paused = run.read_state(folder).step
    header.get_by_role("button", name=f"Resume from step {paused:,}").click()
    expect(header).to_contain_text(re.compile(rf"step (?!{paused} )\d+ of 3,000 · .* left"), timeout=SLOW)
    header.get_by_role("button", name="Stop and save").click()
    expect(header.locator(".badge")).to_have_text("stopped and saved", timeout=SLOW)

    header.get_by_label("Steps more").fill("200")
    header.get_by_role("button", name="Train longer").click()
    expect(header).to_contain_text("of 3,200", timeout=SLOW)
    header.get_by_role("button", name="Stop and save").click()
    expect(header.locator(".badge")).to_have_text("stopped and saved", timeout=SLOW)
