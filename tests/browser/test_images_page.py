"""The Images page in the browser: captions, filters, edits of many, keys, failures, and a training that sees it all."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from app.project import Choices, open_project
from lora_sd import config as cfg
from lora_sd import run
from lora_sd.training import sameness

pytestmark = pytest.mark.browser

HARD = "${document.body.id='broken'} ${1+1} <b>bold</b> C:\\new \"q\" Käse 日本 😀"
SERVER = re.compile("component_server")
NAMES = ["a 1", "b", "c", "d", "e", "f"]


@pytest.fixture
def project(home: Path):
    """Six pictures, the first three with captions."""
    mine = open_project("cats")
    mine.images.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        size = (140 + 20 * number, 140)
        noise = Image.effect_noise((10, 10), 90).resize(size, Image.Resampling.NEAREST).convert("RGB")
        noise.save(mine.images / f"{name}.png")
        if number < 3:
            (mine.images / f"{name}.txt").write_text(f"mycat, sofa, number {number}")
    quick = {
        "optim.steps": 1,
        "preview.every": 0,
        "preview.prompts": [],
        "lora.rank": 4,
        "optim.batch_size": 4,
    }
    mine.choose(Choices(base="starter", trigger="mycat", changes=quick))
    return mine


@pytest.fixture
def images(project, app, page):
    page.goto(f"{app.url}?tab=images")
    return page


def card(page, name: str):
    return page.locator(f'.image-card[data-name="{name}.png"]')


def caption(page, name: str):
    return card(page, name).locator("textarea")


def filtered(page, name: str) -> None:
    page.locator(".filters").get_by_role("button", name=name).click()


def visible(page) -> list[str]:
    return [
        card.get_attribute("data-name").removesuffix(".png")
        for card in page.locator(".image-card:visible").all()
    ]


def test_captions_are_saved_filtered_edited_and_undone_and_reach_the_training(images, project, app):
    from playwright.sync_api import expect

    page = images
    expect(page.locator(".image-card img[src]")).to_have_count(6)
    assert page.evaluate("document.activeElement.tagName") == "BODY"

    caption(page, "d").fill(HARD)  # saved when it is left
    caption(page, "d").press("Control+Enter")
    expect(caption(page, "e")).to_be_focused()
    expect(card(page, "d").locator(".status")).to_contain_text("Saved")
    assert (project.images / "d.txt").read_text("utf-8") == HARD + "\n"
    page.reload()
    expect(caption(page, "d")).to_have_value(HARD)
    expect(page.locator(".tags")).to_contain_text("${1+1}")
    expect(page.locator("body")).not_to_have_id("broken")

    filtered(page, "No caption")
    assert visible(page) == ["e", "f"]
    page.get_by_label("Search names and captions").fill("E.PNG")
    assert visible(page) == ["e"]
    page.get_by_role("button", name="Show all").click()
    page.locator(".tag", has_text="sofa").click()
    assert visible(page) == ["a 1", "b", "c"]

    page.get_by_role("button", name="Edit captions").click()  # of the pictures shown
    page.get_by_label("What to do").select_option("replace")
    page.get_by_label("Find").fill("sofa")
    page.get_by_label("Replace with").fill("red chair")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator(".result")).to_contain_text("3 captions change")
    expect(page.locator(".result")).to_contain_text("mycat, red chair, number 2")
    assert (project.images / "c.txt").read_text() == "mycat, sofa, number 2"
    page.get_by_role("button", name="Apply").click()
    expect(caption(page, "c")).to_have_value("mycat, red chair, number 2")
    page.get_by_role("button", name="Undo").click()
    expect(caption(page, "c")).to_have_value("mycat, sofa, number 2")
    page.get_by_role("button", name="Do again: 3 captions").click()
    expect(caption(page, "a 1")).to_have_value("mycat, red chair, number 0")
    page.get_by_role("button", name="Show all").click()

    card(page, "a 1").focus()  # keys on a card
    page.keyboard.press("ArrowRight")
    expect(card(page, "b")).to_be_focused()
    page.keyboard.press("Delete")
    expect(card(page, "b")).to_contain_text("Not used")
    page.keyboard.press("Enter")
    expect(caption(page, "b")).to_be_focused()
    page.keyboard.press("Escape")
    expect(card(page, "b")).to_be_focused()
    card(page, "c").get_by_label("Repeats").fill("3")
    card(page, "c").get_by_label("Repeats").press("Tab")
    expect(page.get_by_role("button", name="Undo how often c.png counts")).to_be_visible()
    page.get_by_role("button", name="Show crop").click()
    expect(card(page, "f").locator(".crop")).to_be_visible()

    page.get_by_role("tab", name="Make").click()  # which follows
    expect(page.locator("#pictures")).to_contain_text("6 pictures, 1 of them turned off")
    expect(page.locator("#summary")).to_contain_text("5 pictures, with their repeats 7")
    page.locator("#start").click()
    expect(page.locator("#header")).to_contain_text("finished", timeout=240_000)
    [made] = run.list_runs()
    config = cfg.load(made.folder / "config.toml")
    assert config.data.repeats == {"b.png": 0, "c.png": 3}
    began = (made.folder / "state" / sameness.NAME).read_text("utf-8")
    pictures = {name: rest for name, _, *rest in json.loads(began)["pictures"]}
    assert sorted(pictures) == ["a 1.png", "c.png", "d.png", "e.png", "f.png"]
    assert [pictures["c.png"][1][0], pictures["d.png"][0]] == [3, f"mycat, {HARD}"]


def test_a_save_that_fails_keeps_the_text_and_two_windows_do_not_overwrite_each_other(images, project, app):
    from playwright.sync_api import expect

    page = images
    caption(page, "a 1").fill("first")
    caption(page, "a 1").press("Tab")
    expect(card(page, "a 1").locator(".status")).to_contain_text("Saved")

    page.route(SERVER, lambda route: route.abort())
    caption(page, "c").fill("not lost")
    caption(page, "c").press("Tab")
    expect(card(page, "c").get_by_role("alert")).to_contain_text(
        "FAILED to save: the program does not answer"
    )
    expect(caption(page, "c")).to_have_value("not lost")
    page.unroute(SERVER)
    card(page, "c").get_by_role("button", name="Try again").click()
    expect(card(page, "c").locator(".status")).to_contain_text("Saved")
    assert (project.images / "c.txt").read_text() == "not lost\n"

    page.route(SERVER, lambda route: route.fulfill(status=500, json={"error": "broken"}))
    caption(page, "c").fill("still not lost")
    caption(page, "c").press("Tab")
    expect(card(page, "c").get_by_role("alert")).to_contain_text("FAILED to save")
    page.unroute(SERVER)
    card(page, "c").get_by_role("button", name="Try again").click()
    expect(card(page, "c").locator(".status")).to_contain_text("Saved")

    caption(page, "d").fill("mine")
    (project.images / "d.txt").write_text("theirs")  # another window, or an editor
    caption(page, "d").press("Tab")
    expect(card(page, "d")).to_contain_text("Changed in another window to:")
    expect(card(page, "d").locator("blockquote")).to_have_text("theirs")
    card(page, "d").get_by_role("button", name="Use mine").click()
    expect(card(page, "d").locator(".status")).to_contain_text("Saved")
    assert (project.images / "d.txt").read_text() == "mine\n"

    page.get_by_label("Search names and captions").fill("d.png")
    page.set_viewport_size({"width": 390, "height": 844})
    expect(card(page, "d")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert re.search("tab=images", page.url)
