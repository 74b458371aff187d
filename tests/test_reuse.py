"""The settings of a run on Make again: in its project, and only what differs from what would be proposed."""

import pytest

from app import form, reuse, sheet
from app.project import Choices, example, open_project
from lora_sd import config, run


def test_a_run_of_a_project_gives_it_its_choices_back():
    project = example()
    chosen = Choices(trigger="cow_lx", kind="Style", base="starter", changes={"lora.rank": 24, "seed": 7})
    folder = run.create(sheet.fill(project, chosen).config())
    project.choose(Choices(trigger="other", changes={"lora.rank": 4}))
    found_project, found = reuse.taken(folder)
    assert found_project == project and found.notes is not None
    again = project.choices()
    assert (again.trigger, again.base) == ("cow_lx", "starter")
    assert again.changes["lora.rank"] == 24 and again.changes["seed"] == 7
    assert sheet.fill(project, again).config() == sheet.fill(project, chosen).config()


def test_what_would_be_proposed_anyway_is_no_change():
    project = example()
    folder = run.create(sheet.fill(project, Choices(trigger="", kind="Style", base="starter")).config())
    reuse.taken(folder)
    assert set(project.choices().changes) <= {"optim.steps"}


def test_pictures_from_elsewhere_make_a_project_of_their_own_name():
    (open_project("cat").images).mkdir(parents=True)
    settings = {"data.images": "starter:streamline", "output.name": "cat", "lora.rank": 24}
    folder = run.create(form.config({"lora.rank": 24}))
    config_file = folder / "config.toml"
    config_file.write_text(config.dumps(config.changed(config.TrainConfig(), settings)))
    project, _ = reuse.taken(folder)
    assert project.name == "cat-2" and project.choices().changes["lora.rank"] == 24


def test_settings_that_can_not_be_read_are_told():
    folder = run.create(config.TrainConfig())
    (folder / "config.toml").write_text("[lora]\nrank = 0\n")
    with pytest.raises(ValueError, match="rank"):
        reuse.taken(folder)
