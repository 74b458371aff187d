"""A file of settings on the Make page: it fills the form, says what it left out, and leads no stranger anywhere."""

import json
from pathlib import Path

import gradio as gr
import pytest

from app import form, importing, make_page, reach, sheet
from app.project import Choices, open_project
from lora_sd import config as cfg

THEIRS = """
pretrained_model_name_or_path = "/models/not-here.safetensors"
train_data_dir = "/pictures"
reg_data_dir = "/priors"
network_dim = 24
network_alpha = 12
unet_lr = 2e-4
text_encoder_lr = 5e-5
max_train_steps = 300
cache_latents = true
"""


@pytest.fixture(scope="module")
def page() -> make_page.Page:
    with gr.Blocks():
        return make_page.build()


def values(file: Path, **changes) -> dict:
    """What the page sends: nothing changed, and a file."""
    facts = sheet.fill(open_project("mine"), Choices(base="starter"))
    own = {"project": "mine", "trigger": "x", "kind": "Style", "quality": "Quick", "base": "starter"}
    return {
        **form.show(facts.settings),
        "automatic": facts.automatic,
        **own,
        "import_file": str(file),
        **changes,
    }


def written(folder: Path, text: str, name: str = "theirs.toml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_file_fills_the_form_and_says_what_it_left_out(page, tmp_path):
    updates = make_page.import_settings(page, values(written(tmp_path, THEIRS)))
    shown = {name: updates[component] for name, component in page.settings.items()}
    assert (shown["lora.rank"], shown["lora.alpha"], shown["optim.steps"]) == (24, 12.0, 300)
    assert shown["optim.text_encoder_rate"] == "5e-05" and shown["data.regularisation"] == "/priors"
    told = json.dumps(updates[page.imported])
    for words in ("always cached", "drop the pictures above", "There is no model at", "Taken over: "):
        assert words in told
    changes = open_project("mine").choices().changes
    assert changes["lora.rank"] == 24 and changes["optim.text_encoder_rate"] == [5e-05]
    assert "loss.kind" not in changes and open_project("mine").choices().base == "starter"


def test_a_settings_file_of_ours_goes_over_what_the_page_proposes(page, tmp_path):
    chosen = {"lora.rank": 16, "data.trigger": "mycat", "optim.steps": 700}
    text = cfg.dumps(cfg.changed(cfg.TrainConfig(), chosen))
    updates = make_page.import_settings(page, values(written(tmp_path, text)))
    assert updates[page.settings["optim.steps"]] == 700
    assert updates[page.settings["lora.alpha"]] is None, (
        "what the starter is proposed is not what the file says"
    )
    assert updates[page.trigger] == "mycat" and updates[page.base]["value"] == "starter"


def test_folders_of_several_survive_the_project(page, tmp_path):
    text = '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "/a"\nnum_repeats = 2\n'
    updates = make_page.import_settings(page, values(written(tmp_path, text)))
    [line] = updates[page.settings["data.folders"]].splitlines()
    assert json.loads(line) == {"path": "/a", "repeats": 2}
    assert open_project("mine").choices().changes["data.folders"] == [line]


def test_a_bad_file_is_one_sentence_and_changes_nothing(page, tmp_path):
    updates = make_page.import_settings(page, values(written(tmp_path, "{", "theirs.json")))
    assert list(updates) == [page.imported] and "is not valid JSON" in str(updates[page.imported])


def test_a_file_may_lead_a_person_elsewhere_nowhere(page, tmp_path, monkeypatch):
    monkeypatch.setattr(reach, "confined", True)
    (tmp_path / "secret.txt").write_text("a cat")
    text = (
        THEIRS
        + f'network_weights = "/etc/x.safetensors"\nsample_prompts = "{tmp_path}/secret.txt"\noutput_dir = "/tmp"'
    )
    found = importing.read(written(tmp_path, text), Choices(base="starter"))
    assert not {*cfg.PATHS, "data.folders", "preview.prompts"} & {*found.choices.changes}
    assert found.choices.base == "starter" and found.choices.changes["lora.rank"] == 24
    told = [note.option for note in found.notes if "at the computer itself" in note.words]
    assert set(told) == {"data.regularisation", "lora.start", "output.dir"}


def test_numbers_in_a_list_are_told_among_the_changes(page, tmp_path):
    updates = make_page.restate(page, values(tmp_path / "none", **{"optim.text_encoder_rate": "5e-05"}))
    assert "5e-05" in json.dumps(updates[page.changed])
