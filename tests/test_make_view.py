"""How the Make page words what a person changed."""

import gradio as gr
import pytest

from app import form, make_page, make_view, sheet
from app.project import Choices, open_project


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("preview.seed", 1, "1 instead of 42"),  # and not "on", though 1 is equal to True
        ("lora.conv_rank", 1, "1 instead of 0"),
        ("data.flip", True, "on instead of off"),
        ("model.clip_skip", 2, "2 instead of automatic"),
        ("preview.prompts", ["a", "b"], "a · b instead of nothing"),
    ],
)
def test_a_change_is_told_with_what_was_proposed(home, name, value, words):
    facts = sheet.fill(open_project("cats"), Choices(base="starter", changes={name: value}))
    assert words in str(make_view.draw_changed(facts))


def test_every_line_of_the_plan_leads_to_controls_that_are_there(home):
    with gr.Blocks():
        page = make_page.build()
    known = {*page.settings, *make_page.Page._fields}
    changes = {"optim.learning_rate": 1.0, "embedding.tokens": 2, "lora.targets": "none"}
    project = open_project("cats")
    for choices in (Choices(base="starter"), Choices(base="starter", changes=changes)):
        lines = sheet.fill(project, choices).lines()
        assert all(line.leads and {*line.leads} <= known for line in lines)


def test_a_setting_is_found_by_its_names_in_sd_scripts_too():
    names = form.other_names()
    assert set(names) == {form.element_id(name) for name in form.titles()}
    for ours, theirs in {"lora.rank": "network_dim", "optim.epochs": "max_train_epochs"}.items():
        assert {ours, theirs} <= {*names[form.element_id(ours)].split()}


def test_one_setting_goes_back_to_automatic_and_the_others_stay(home):
    with gr.Blocks():
        page = make_page.build()
    facts = sheet.fill(open_project("cats"), Choices(base="starter"))
    own = {"project": "cats", "trigger": "x", "kind": "Style", "quality": "Quick", "base": "starter"}
    shown = form.show({**facts.settings, "lora.rank": 8, "optim.epochs": 3, "optim.steps": None})
    values = {**shown, **own, "automatic": facts.automatic}
    updates = make_page.reset_one(page, values, {"act": "reset", "name": "lora.rank"})
    assert updates[page.settings["lora.rank"]] == 16 and updates[page.settings["optim.epochs"]] == 3
    assert "1 changed by you" in str(updates[page.changed])
    updates = make_page.reset_one(page, values, {"act": "reset", "name": "optim.epochs"})
    assert updates[page.settings["optim.steps"]] == 50, "its empty field is the proposal again"
    for click in ({"act": "reset", "name": "output.name"}, {"act": "reset"}, {"name": "lora.rank"}):
        assert make_page.reset_one(page, values, click) == {}
