"""Masks that are painted in the page: whole and of the picture's size, safe from what is sent, and read by training."""

import base64
import io

import pytest
import torch
from PIL import Image

from app import mask_part, masks, sheet
from app.project import Choices, open_project
from lora_sd import run
from lora_sd.data import images
from lora_sd.data.buckets import fit
from lora_sd.data.folder import find_examples
from lora_sd.data.masks import with_masks


@pytest.fixture
def project(tmp_path):
    """Two pictures, one of them deeper and upright only by its EXIF."""
    project = open_project("cats")
    Image.new("RGB", (300, 200), "teal").save(tmp_path / "cat.png")
    (tmp_path / "more").mkdir()
    turned = Image.new("RGB", (2400, 1200), "red")
    exif = turned.getexif()
    exif[images.ORIENTATION] = 6
    turned.save(tmp_path / "more" / "dog.jpg", exif=exif)
    project.add([tmp_path / "cat.png"])
    (project.images / "more").mkdir()
    (tmp_path / "more" / "dog.jpg").rename(project.images / "more" / "dog.jpg")
    return project


def painted(size, box=None, mode="RGBA", kind="PNG"):
    """What the browser sends: opaque paint in `box` on nothing."""
    image = Image.new("RGBA", size)
    if box:
        image.paste((47, 128, 96, 255), box)
    out = io.BytesIO()
    image.convert(mode).save(out, kind)
    return masks.PREFIX + base64.b64encode(out.getvalue()).decode()


def test_what_is_painted_is_white_and_training_reads_it(project):
    masks.save(project, "cat.png", painted((300, 200), (0, 0, 150, 200)))
    mask = Image.open(project.masks / "cat.png")
    assert (mask.mode, mask.size, mask.getbbox()) == ("L", (300, 200), (0, 0, 150, 200))
    folder = masks.setting(project, project.pictures())
    said = []
    examples = with_masks(find_examples(project.images, trigger="cat").examples, folder, said.append)
    by_name = {example.path.name: example for example in examples}
    assert said == ["Without a mask, so learned whole: dog.jpg."]
    found = images.load_mask(by_name["cat.png"].mask, fit((300, 200), (192, 128)), alpha=False)
    torch.testing.assert_close(found[0, 3], torch.tensor([1.0] * 12 + [0.0] * 12), atol=0.02, rtol=0)


def test_a_large_picture_is_painted_on_a_small_copy_and_turned_as_it_is_seen(project):
    picture = project.images / "more" / "dog.jpg"
    assert masks.painting_size(picture) == (512, 1024)
    masks.save(project, "more/dog.jpg", painted((512, 1024), (0, 0, 512, 512)))
    mask = Image.open(project.masks / "more" / "dog.png")
    assert mask.size == (1200, 2400) and mask.getpixel((600, 100)) == 255 and mask.getpixel((600, 2300)) == 0
    assert Image.open(masks.copy_of_mask(project, picture)).size == (512, 1024)
    assert Image.open(masks.copy_of_picture(project, picture)).size == (512, 1024)


def test_masks_of_pictures_in_one_folder_below_are_found_by_training(project):
    (project.images / "cat.png").unlink()
    masks.save(project, "more/dog.jpg", painted((512, 1024), (0, 0, 512, 512)))
    examples = with_masks(
        find_examples(project.images, trigger="x").examples, masks.setting(project, project.pictures()), print
    )
    assert [example.mask for example in examples] == [project.masks / "more" / "dog.png"]


@pytest.mark.parametrize("name", ["../cat.png", "gone.png", "", "/etc/passwd", "more/../cat.png"])
def test_only_pictures_of_the_project_get_a_mask(project, name):
    with pytest.raises(ValueError, match="not in the project"):
        masks.save(project, name, painted((300, 200), (0, 0, 9, 9)))
    with pytest.raises(ValueError, match="not in the project"):
        masks.remove(project, name)
    assert not project.masks.exists()


@pytest.mark.parametrize(
    "sent",
    [
        painted((300, 201), (0, 0, 9, 9)),
        painted((300, 200), (0, 0, 9, 9), mode="RGB"),
        painted((300, 200), (0, 0, 9, 9), kind="WEBP"),
        painted((300, 200), (0, 0, 9, 9))[:200],
        "data:image/svg+xml;base64,PHN2Zy8+",
        masks.PREFIX + "%%%",
        masks.PREFIX + base64.b64encode(b"%!PS-Adobe-3.0\n").decode(),
        masks.PREFIX + "A" * 9_000_000,
        "",
    ],
    ids=lambda sent: sent[:30] + str(len(sent)),
)
def test_what_is_no_painting_of_this_picture_is_refused(project, sent):
    with pytest.raises(ValueError, match="did not arrive whole"):
        masks.save(project, "cat.png", sent)
    assert masks.masked(project, project.pictures()) == []


def test_a_mask_of_nothing_is_refused(project):
    with pytest.raises(ValueError, match="Nothing is painted"):
        masks.save(project, "cat.png", painted((300, 200)))


def test_a_mask_goes_with_the_pictures(project):
    masks.save(project, "cat.png", painted((300, 200), (0, 0, 9, 9)))
    masks.remove(project, "cat.png")
    assert masks.setting(project, project.pictures()) == ""
    masks.save(project, "cat.png", painted((300, 200), (0, 0, 9, 9)))
    project.clear()
    assert not project.masks.exists()


def test_make_takes_the_masks_and_says_so(project):
    choices = Choices(trigger="cat", base="starter")
    before = sheet.fill(project, choices)
    assert before.config().data.masks == "" and "Masks" not in [line.what for line in before.lines()]
    masks.save(project, "cat.png", painted((300, 200), (0, 0, 9, 9)))
    facts = sheet.fill(project, choices)
    assert facts.config().data.masks == str(project.masks)
    [line] = [line for line in facts.lines() if line.what == "Masks"]
    assert (line.value, line.warning) == ("1 of 2 pictures", False)
    without = sheet.fill(project, Choices(trigger="cat", base="starter", changes={"data.masks": ""}))
    assert without.config().data.masks == "" and "Masks" not in [line.what for line in without.lines()]


def test_while_others_are_let_in_the_masks_of_the_project_may_be_used(project, monkeypatch):
    monkeypatch.setattr("app.reach.confined", True)
    masks.save(project, "cat.png", painted((300, 200), (0, 0, 9, 9)))
    assert (
        sheet.fill(project, Choices(trigger="cat", base="starter"))
        .config()
        .data.masks.startswith(str(run.home()))
    )


def test_the_buttons_of_the_canvas(project):
    import gradio as gr

    with gr.Blocks():
        part = mask_part.build()
    sent = {"project": "cats", "picture": "cat.png", "mask": painted((300, 200), (0, 0, 9, 9))}
    shown = mask_part.acted(part, {**sent, "act": "save"})
    assert shown[part.editor]["told"] == "Saved." and "pictures" in shown[part.editor]["mask"] + "pictures"
    assert ("cat.png · with a mask", "cat.png") in shown[part.picture]["choices"]
    assert mask_part.acted(part, {**sent, "act": "keep"}).keys() == {part.summary}
    told = mask_part.acted(part, {**sent, "act": "save", "mask": "x"})[part.editor]
    assert told["failed"] and "did not arrive" in told["told"] and told["src"]
    shown = mask_part.acted(part, {**sent, "act": "remove"})
    assert shown[part.editor]["mask"] is None and masks.masked(project, project.pictures()) == []
    for wrong in (
        {},
        {**sent, "act": "dance"},
        {**sent, "act": "save", "mask": 7},
        {**sent, "act": "remove", "picture": []},
    ):
        assert mask_part.acted(part, wrong) == {}
    gone = mask_part.acted(part, {**sent, "act": "remove", "picture": "../x"})[part.editor]
    assert gone["picture"] is None and gone["failed"]
    assert mask_part.opened(part, open_project("none"))[part.editor]["picture"] is None
