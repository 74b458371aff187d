"""Every page for those who can't see it well, or use no mouse: axe-core finds nothing serious, in light and dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from lora_sd import config, events, run
from lora_sd.recorder import Recorder

pytestmark = pytest.mark.browser
PAGES = {"make": "#start", "watch": "#header h2", "try": "#generate", "tools": "#tool-go"}


@pytest.fixture
def finished(home) -> str:
    """A run with something in each part of Watch."""
    from PIL import Image

    settings = config.changed(config.TrainConfig(), {"output.name": "tabby", "optim.steps": 20})
    recorder = Recorder(run.create(settings), 20)
    recorder(events.Phase(status="training", text="Training"))
    for step in range(21):
        recorder(events.Step(step=step, total=20, loss=0.1 if step else None, held_out=0.09, seconds=0.5))
        if step in (0, 20):
            path = f"previews/{step:06d}-0.png"
            Image.new("RGB", (128, 128), "teal").save(recorder.folder / path)
            recorder(events.Preview(step=step, prompt="a cat", index=0, path=path))
    recorder(events.Note(text="One picture was left out."))
    recorder(events.Finished(step=20, path=""))
    recorder.close()
    return recorder.folder.name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(finished, app, browser, scheme):
    from playwright.sync_api import expect

    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page.goto(app.url)
    page.get_by_role("button", name="Use the example set").click()
    expect(page.locator("#pictures img").first).to_be_visible()
    found = []
    for tab, inside in PAGES.items():
        page.goto(f"{app.url}?tab={tab}&run={finished}")
        expect(page.locator(inside).first).to_be_visible()
        folded = page.locator("button.label-wrap:not(.open):visible")
        while folded.count():
            folded.first.click()
        page.wait_for_timeout(500)
        for violation in Axe().run(page).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                found += [f"{tab}: {violation['id']}: {node['html'][:300]}" for node in violation["nodes"]]
    page.close()
    assert not found, "\n".join(found)
