"""The Make page by hand and by keyboard: the plan and what leads from it, Advanced, settings in and out, the tour."""

import json
import re
import struct
import tomllib
from pathlib import Path

import pytest

from app.project import example
from tests.browser.conftest import App

pytestmark = pytest.mark.browser
CHANGES = {"lora-rank": "24", "lora-alpha": "12", "optim-steps": "3", "captions-prefix": "a photo of ${1+1}"}


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """One program for all of them: the first finds its home empty."""
    app = App(tmp_path_factory.mktemp("home"))
    yield app
    app.end_all()


@pytest.fixture
def make(app, page, monkeypatch):
    """The page with the example set as it was shipped, open."""
    monkeypatch.setenv("LORA_SD_HOME", str(app.home))
    example()
    page.goto(app.url)
    page.wait_for_function("window.pageIsOpen")
    return page


def open_advanced(page) -> None:
    page.get_by_role("button", name="Advanced").click()
    page.locator("#set-seed").wait_for()


def write(page, values: dict[str, str]) -> None:
    for name, value in values.items():
        field = page.locator(f"#set-{name}").locator("input, textarea")
        field.fill(value)
        field.press("Tab")


def settings_shown(page) -> list[str]:
    return page.evaluate(
        "[...document.querySelectorAll('.group [id^=set-]')].filter((part) => part.offsetParent).map((part) => part.id)"
    )


def focused(page) -> str:
    return page.evaluate(
        "document.activeElement.closest('[id^=set-], #base, #quality, #files, #trigger')?.id"
    )


def settings_file(page) -> str:
    return page.locator("#as-toml textarea").input_value()


def test_the_tour_is_shown_once_holds_nobody_up_and_can_be_had_again(app, page):
    from playwright.sync_api import expect

    tour = page.locator("#tour")
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(app.url)
    expect(tour).to_contain_text("Drop your pictures")
    assert page.evaluate("document.activeElement === document.body")
    page.locator("#trigger").locator("input, textarea").fill("mycat_lx")
    page.keyboard.press("Escape")  # not its own: someone writes
    page.locator("#tour-next").press("Enter")
    expect(tour).to_contain_text("Choose a word")
    page.keyboard.press("ArrowRight")
    expect(tour).to_contain_text("Start, and watch")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.keyboard.press("ArrowLeft")
    expect(tour).to_contain_text("Choose a word")
    page.keyboard.press("Escape")
    expect(tour).to_have_count(0)
    page.reload()
    page.wait_for_function("window.pageIsOpen")
    expect(page.locator("#obstacle")).to_contain_text("No usable pictures yet")
    expect(tour).to_have_count(0)
    page.get_by_role("button", name="About").click()
    page.locator("#tour-again").click()
    expect(tour).to_contain_text("Drop your pictures")
    page.locator("#use-example").click()
    expect(page.locator("#pictures")).to_contain_text("24 pictures")
    assert "Drop your pictures" in tour.inner_text() or "Choose a word" in tour.inner_text()


def test_settings_are_found_changed_ones_listed_and_put_back_one_by_one(make):
    from playwright.sync_api import expect

    open_advanced(make)
    every, search = len(settings_shown(make)), make.locator("#search-settings")
    status = make.locator("#search-part [role=status]")
    search.fill("network_dim")
    expect(status).to_have_text("1 setting fits")
    assert settings_shown(make) == ["set-lora-rank"]
    expect(make.get_by_role("heading", name="The LoRA")).to_be_visible()
    expect(make.get_by_role("heading", name="Run", exact=True)).to_be_hidden()
    for words, found in {"red apple": "set-preview-prompts", "same PICTURES: same": "set-seed"}.items():
        search.fill(words)
        expect(status).to_have_text("1 setting fits")
        assert settings_shown(make) == [found]
    search.fill("xyzzy")
    expect(status).to_contain_text("No setting fits")
    search.press("Escape")
    assert len(settings_shown(make)) == every

    write(make, {"lora-rank": "24"})
    expect(make.locator("#changed")).to_contain_text("5 changed by you")
    make.locator("#changed-only").check()
    expect(status).to_have_text("5 settings fit")
    make.locator("#set-lora-rank .back-here").click()
    expect(make.locator("#set-lora-rank input")).to_have_value("16")
    expect(make.locator("#changed")).to_contain_text("4 changed by you")
    expect(status).to_have_text("4 settings fit")
    make.get_by_role("button", name="Back to automatic: Preview seed").click()
    expect(make.locator("#changed")).to_contain_text("3 changed by you")
    make.locator("#reset").click()
    expect(status).to_contain_text("Nothing is changed yet")


def test_what_is_shown_as_a_settings_file_comes_back_as_it_was(make, tmp_path: Path):
    from playwright.sync_api import expect

    make.get_by_role("button", name="Show as command").click()
    open_advanced(make)
    write(make, CHANGES)
    make.get_by_role("radio", name="Best").check()
    expect(make.locator("#as-toml textarea")).to_have_value(re.compile("rank = 24"))
    expect(make.locator("#changed")).to_contain_text("8 changed by you")
    before = settings_file(make)
    (tmp_path / "mine.toml").write_text(before)
    make.locator("#reset").click()
    expect(make.locator("#as-toml textarea")).to_have_value(re.compile("rank = 16"))
    with make.expect_file_chooser() as chooser:
        make.locator("#import").click()
    chooser.value.set_files(tmp_path / "mine.toml")
    expect(make.locator("#as-toml textarea")).to_have_value(re.compile("rank = 24"))
    assert tomllib.loads(settings_file(make)) == tomllib.loads(before)


def test_a_model_that_can_not_be_taught_is_one_sentence_and_start_stays_where_it_was(make, tmp_path: Path):
    from playwright.sync_api import expect

    header = json.dumps(
        {"double_blocks.0.img_attn.qkv.weight": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}}
    ).encode()
    (tmp_path / "other.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0")
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 100)
    for name in ("other", "broken"):
        make.locator("#base input").fill(str(tmp_path / f"{name}.safetensors"))
        make.keyboard.press("Enter")
        expect(make.locator("#obstacle")).to_contain_text(f"{name}.safetensors")
        assert make.locator("#obstacle p").count() == 1


def test_by_keyboard_alone_from_the_plan_to_what_decides_it_and_to_a_run(make):
    from playwright.sync_api import expect

    expect(make.locator(".room")).to_have_attribute("aria-label", re.compile(r"2\.0 GB this training"))
    make.locator("#summary summary").press("Enter")
    expect(make.locator("#summary details")).to_contain_text("Other programs hold")
    for what, control in {
        "Model": "base",
        "Length": "set-optim-steps",
        "Memory": "set-machine-memory",
    }.items():
        make.get_by_role("button", name=f"Change: {what}").press("Enter")
        make.wait_for_function("(id) => document.activeElement.closest('#' + id)", arg=control)
        assert focused(make) == control
        expect(make.locator(f"#{control}[data-led]")).to_be_visible()
    make.get_by_role("button", name="Change: Length").press("Enter")
    make.wait_for_function("document.activeElement.closest('#set-optim-steps')")
    make.keyboard.press("Control+A")
    make.keyboard.type("3")
    make.keyboard.press("Tab")
    expect(make.locator("#summary")).to_contain_text("3 steps")
    make.locator("#start").press("Enter")
    expect(make.locator("#header")).to_contain_text("example")
    assert "tab=watch" in make.url
