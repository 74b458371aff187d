"""Runs that wait in line, on the real page with the real trainer: put in, reordered, taken out, and the next one by itself."""

import os
import re
import signal

import pytest
from test_journey import SLOW, set_advanced

from lora_sd import run

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

    for steps, words in (("6", "Next in line"), ("7", "2nd in line")):
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
