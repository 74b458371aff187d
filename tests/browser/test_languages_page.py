"""A browser in another language shows the page in it: what is laid out, what is drawn, and what changes later."""

import pytest

from app.words import LANGUAGES, catalogue

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_is_in_the_language_of_the_browser(app, browser, language):
    from playwright.sync_api import expect

    said = catalogue(language)
    context = browser.new_context(locale={"zh": "zh-CN"}.get(language, language))
    page = context.new_page()
    page.goto(app.url)
    expect(page.locator("#start")).to_have_text(said["Start training"])
    expect(page.locator("#bar")).to_contain_text(said["Ready"])
    expect(page.locator("#summary")).to_contain_text(said["Model"])  # of all, the last to be drawn
    expect(page.locator("html")).to_have_attribute("lang", language)
    sentences = [english for english, told in said.items() if len(english) > 25 and english != told]
    for tab in ("Make", "Images", "Watch", "Try it", "Tools"):
        page.get_by_role("tab", name=said[tab]).click()
        expect(page.get_by_role("tab", name=said[tab])).to_have_attribute("aria-selected", "true")
        none_is_shown(page, sentences)
    context.close()
    english = browser.new_page(locale="en-GB")
    english.goto(app.url)
    expect(english.locator("#start")).to_have_text("Start training")
    expect(english.locator("#bar")).to_contain_text("Ready")
    english.close()


def none_is_shown(page, sentences: list[str]) -> None:
    """None of them is left on the page, once all of it is drawn."""
    for _ in range(40):
        shown = page.locator("body").inner_text()
        left = [sentence for sentence in sentences if sentence in shown]
        if not left:
            return
        page.wait_for_timeout(250)
    assert not left
