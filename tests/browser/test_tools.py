"""Tools in a real browser, by keyboard, on a phone's screen, and for those who can't see it well."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from workshop_files import random_pairs, write

pytestmark = pytest.mark.browser
TOOLS = "Look into,Shrink or grow,Combine,Merge into a model,Extract from a model,Convert,Check,Edit what it tells"


@pytest.fixture(autouse=True)
def loras(home):
    """Two LoRAs among the menus, one of which uses half of its rank."""
    folder = home / "models" / "loras"
    folder.mkdir(parents=True)
    for seed, name in enumerate(("cat", "${1+1}")):
        pairs = random_pairs("sd15", seed=seed, every=60)
        for pair in pairs.values():
            pair.up[:, 2:] *= 1e-3
        write(folder / f"{name}.safetensors", pairs, "sd15", **{"modelspec.title": "<b>Cats</b>"})
    return folder


def open_tools(page, app):
    from playwright.sync_api import expect

    page.goto(f"{app.url}?tab=tools")
    expect(page.get_by_role("button", name="Look into it")).to_be_visible()
    expect(page.get_by_label("LoRA", exact=True)).not_to_have_value("none")


def test_a_lora_is_looked_into_and_shrunk_by_keyboard(page, app, loras):
    from playwright.sync_api import expect

    open_tools(page, app)
    page.get_by_label("LoRA", exact=True).fill("cat")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Look into it").press("Enter")
    expect(page.locator("#tool-state .answer")).to_contain_text("This rank-4 LoRA uses about 2")
    expect(page.locator("#tool-state img.plot")).to_have_count(3)
    page.get_by_role("button", name="Shrink it to rank 2").press("Enter")
    expect(page.get_by_role("radio", name="Shrink or grow")).to_be_checked()
    expect(page.locator("#shrink-rank input")).to_have_value("2")
    page.locator("#tool-recipes button").first.press("Enter")
    expect(page.locator("#tool-command textarea")).to_have_value(
        f"python -m lora_sd resize {loras}/cat.safetensors {loras}/cat-rank2.safetensors --rank=2"
    )
    page.get_by_role("button", name="Make the new LoRA").press("Enter")
    expect(page.locator("#tool-state")).to_contain_text("cat-rank2.safetensors")
    with page.expect_download() as download:
        page.locator("#tool-download").click()
    assert download.value.path().read_bytes() == (loras / "cat-rank2.safetensors").read_bytes()
    page.reload()  # another tab, or this one again, shows the same
    expect(page.locator("#tool-state")).to_contain_text("cat-rank2.safetensors")
    page.get_by_role("tab", name="Try it").click()
    page.get_by_label("LoRA", exact=True).first.click()
    expect(page.get_by_role("option", name="cat-rank2")).to_be_visible()


def test_every_form_fits_a_phone_and_axe_finds_nothing_serious(browser, app):
    from playwright.sync_api import expect

    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.set_default_timeout(60_000)
    open_tools(page, app)
    found = []
    for tool in TOOLS.split(","):
        page.get_by_role("radio", name=tool).check()
        page.wait_for_timeout(400)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            found.append(f"{tool}: wider than the screen")
        for violation in Axe().run(page).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                found += [f"{tool}: {violation['id']}: {node['html'][:300]}" for node in violation["nodes"]]
    expect(page.get_by_label("Title")).to_have_value("<b>Cats</b>")
    page.close()
    assert not found, "\n".join(found)
