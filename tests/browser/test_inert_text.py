"""Names, captions, log lines and addresses that look like code are shown letter by letter, wherever they come up."""

import json
import re
import shutil
import struct
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

from lora_sd import config, events, run
from lora_sd.recorder import Recorder

pytestmark = pytest.mark.browser

NAME = (
    "\"><img src=x onerror=window.pwned=1> ${window.pwned=2} {{x}} C:\\new\\temp 'a' `b` &lt; **c** 😀 مرحبا"
)
TEXT = f"</b><script>window.pwned=3</script><svg onload=window.pwned=4> {NAME}"


@pytest.fixture
def hostile(home: Path, tiny_folder, tmp_path: Path) -> Path:
    """A home in which everything has such a name; the run of it. The pictures to add lie in `tmp_path`."""
    settings = config.changed(config.TrainConfig(), {"output.name": "tabby", "optim.steps": 100})
    recorder = Recorder(run.create(settings), 100)
    recorder(events.Step(step=0, total=100, held_out=0.09))
    for step in (0, 20):
        path = f"previews/{step:06d}-0.png"
        Image.new("RGB", (64, 64), "teal").save(recorder.folder / path)
        recorder(events.Preview(step=step, prompt=TEXT, index=0, path=path))
    recorder(events.Note(text=TEXT))
    (recorder.folder / "log.txt").write_text(f"loading\n{TEXT}\n")
    recorder(events.Failed(text=f"It broke: {TEXT}", details=f"Traceback: {TEXT}"))
    recorder.close()
    folder = recorder.folder.rename(recorder.folder.with_name(f"20260101-000000-{NAME}"))
    shutil.copytree(tiny_folder("sd15"), home / "models" / NAME)
    write_lora(home / "models" / "loras" / f"{NAME}.safetensors", TEXT)
    (tmp_path / "pictures").mkdir()
    Image.effect_noise((96, 96), 50).save(tmp_path / "pictures" / f"{NAME}.png")
    (tmp_path / "pictures" / f"bad {NAME}.png").write_bytes(b"no picture")
    return folder


def write_lora(path: Path, trigger: str) -> None:
    """A LoRA of one small layer, of rank 2."""
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    header = {"__metadata__": {"modelspec.trigger_phrase": trigger, "ss_network_dim": "2"}}
    for part, shape, start in (("lora_down", [2, 64], 0), ("lora_up", [64, 2], 512)):
        header[f"{name}.{part}.weight"] = {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": [start, start + 512],
        }
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(1024))


def shows(page, place: str, text: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator(place)).to_contain_text(text, use_inner_text=False)


def options(page, elem_id: str) -> str:
    """All that a menu offers."""
    page.locator(f"#{elem_id} input").click()
    text = "\n".join(page.locator(f"#{elem_id} [role=option]").all_inner_texts())
    page.keyboard.press("Escape")
    return text


def test_hostile_words_are_words_everywhere(hostile, app, page, tmp_path):
    from playwright.sync_api import expect

    harm, away = [], []
    page.on("dialog", lambda dialog: (harm.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: away.append(request.url) if request.url.endswith("/x") else None)

    page.goto(f"{app.url}?tab={quote(TEXT)}&run={quote(TEXT)}")
    page.wait_for_function("window.pageIsOpen")
    page.get_by_role("button", name="Or use a folder").click()
    assert NAME in options(page, "base")
    page.locator("#folder textarea, #folder input").fill(f"/nowhere/{NAME}")
    page.locator("#add-folder").click()
    shows(page, "[data-testid=toast-text] >> nth=0", f"/nowhere/{NAME}")
    page.locator("#folder textarea, #folder input").fill(str(tmp_path / "pictures"))
    page.locator("#add-folder").click()
    shows(page, "#pictures", "1 left out")
    shows(page, "#pictures", f"bad {NAME}")
    page.get_by_role("button", name="Get another model").click()
    page.locator("#offer input").fill(f"a/{NAME}")
    page.keyboard.press("Tab")
    page.locator("#download").click()
    shows(page, "#download-state", "<img src=x onerror=window.pwned=1>")
    page.get_by_role("button", name="Advanced").click()
    page.locator("#set-preview-prompts textarea").fill(TEXT)
    page.keyboard.press("Tab")
    shows(page, "#changed", TEXT)
    page.get_by_role("button", name="Show as command").click()
    expect(page.locator("#as-toml textarea")).to_have_value(re.compile("window.pwned=3"))
    page.locator("#project input").fill(TEXT)
    page.keyboard.press("Enter")
    page.screenshot(path=tmp_path / "make.jpeg", full_page=True)

    page.goto(f"{app.url}?tab=watch&run={quote(hostile.name)}")
    shows(page, "#header", f"It broke: {TEXT}")
    shows(page, "#header", NAME)
    shows(page, "#previews", TEXT)
    shows(page, "#past", NAME)
    assert page.locator("#previews img").last.get_attribute("alt").startswith(TEXT)
    page.get_by_role("button", name="Log").click()
    shows(page, "#log", TEXT)
    assert NAME in options(page, "run")
    page.locator("#previews button.picture").nth(1).click()
    shows(page, "dialog.compare h3", TEXT)
    page.screenshot(path=tmp_path / "watch.jpeg", full_page=True)
    page.locator("dialog.compare").get_by_role("button", name="Close").click()

    page.get_by_role("tab", name="Try it").click()
    assert NAME in options(page, "lora-0")
    page.locator("#lora-0 input").fill(str(app.home / "models" / "loras" / f"{NAME}.safetensors"))
    page.keyboard.press("Enter")
    shows(page, "#about-lora", TEXT)
    page.screenshot(path=tmp_path / "try.jpeg", full_page=True)

    assert page.evaluate("window.pwned") is None and harm == [] and away == []
