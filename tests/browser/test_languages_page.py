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
    expect(page.locator("html")).to_have_attribute("lang", language)
    for tab in ("Make", "Images", "Watch", "Try it", "Tools"):
        page.get_by_role("tab", name=said[tab]).click()
    context.close()
    english = browser.new_page(locale="en-GB")
    english.goto(app.url)
    expect(english.locator("#start")).to_have_text("Start training")
    expect(english.locator("#bar")).to_contain_text("Ready")
    english.close()
