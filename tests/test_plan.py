"""What the page proposes, and whether its sentences say it."""

import pytest

from app import plan
from app.form import with_defaults
from app.plan import GB, Base, Machine

STARTER = Base("starter", "Starter", "sd15")
SD15 = Base("/models/sd15.safetensors", "SD 1.5", "sd15")
SDXL = Base("/models/sdxl.safetensors", "SDXL", "sdxl")
CPU = Machine("cpu", "Two cores", 16 * GB)
CARD = Machine("cuda", "RTX 4060", 8 * GB)


def chosen(base: Base, pictures: int = 20, **changes) -> dict:
    return with_defaults({**plan.settings("Subject", "Balanced", base, pictures), **changes})


def said(base: Base, machine: Machine, pictures: int = 20, **changes) -> dict[str, plan.Line]:
    settings = chosen(base, pictures) | {name.replace("__", "."): value for name, value in changes.items()}
    return {line.what: line for line in plan.lines("Subject", "Balanced", base, pictures, machine, settings)}


@pytest.mark.parametrize(("quality", "steps"), [("Quick", 50), ("Balanced", 100), ("Best", 160)])
def test_the_starter_trains_with_the_values_of_its_preset(quality, steps):
    assert plan.settings("Style", quality, STARTER, 24) == {
        "lora.rank": 16,
        "lora.alpha": 16.0,
        "optim.learning_rate": 1e-3,
        "optim.batch_size": 4,
        "optim.steps": steps,
    }


@pytest.mark.parametrize(("pictures", "steps"), [(1, 600), (20, 1200), (200, 2500)])
def test_steps_grow_with_the_pictures_within_limits(pictures, steps):
    assert plan.settings("Subject", "Balanced", SD15, pictures)["optim.steps"] == steps


def test_a_style_gets_more_room_than_a_subject():
    assert plan.settings("Style", "Balanced", SD15, 20)["lora.rank"] == 32
    assert plan.settings("Subject", "Balanced", SD15, 20)["lora.rank"] == 16


def test_without_a_card_the_starter_is_proposed_and_the_reason_is_given():
    source, why = plan.propose([STARTER, SDXL], CPU)
    assert source == "starter" and "No graphics card" in why


def test_with_a_card_the_largest_model_that_fits_it_is_proposed():
    assert plan.propose([STARTER, SD15, SDXL], CARD)[0] == SD15.source
    assert plan.propose([STARTER, SD15, SDXL], Machine("cuda", "RTX 4090", 24 * GB))[0] == SDXL.source
    assert plan.propose([STARTER], CARD)[0] == "starter"


def test_memory_is_an_estimate_and_warns_where_it_does_not_fit():
    assert said(SD15, CARD)["Memory"].value == "about 5 of 8 GB"
    assert said(SDXL, CARD)["Memory"].warning and "may not fit" in said(SDXL, CARD)["Memory"].why
    assert said(SD15, CARD, optim__batch_size=8)["Memory"].warning


def test_a_changed_number_is_called_a_choice_beside_the_proposal():
    assert said(SD15, CARD, optim__steps=77)["Length"].why.startswith("your choice; 1,200 were proposed")
    assert said(SD15, CARD, lora__rank=8)["Room to learn"].why == "your choice; 16 was proposed"
    assert said(SD15, CARD, data__resolution=768)["Picture size"].value == "about 768 × 768"


def test_few_pictures_and_a_slow_machine_are_warned_about():
    assert said(SD15, CARD, pictures=3)["Pictures"].warning
    assert not said(STARTER, CPU)["Where"].warning
    assert said(SD15, CPU)["Where"].warning and "many hours" in said(SD15, CPU)["Where"].why


@pytest.mark.parametrize(
    ("project", "word"), [("mycat", "mycat_lx"), ("My Cat!", "mycat_lx"), ("  ", "my_lx")]
)
def test_a_trigger_word_is_made_of_the_project(project, word):
    assert plan.suggest_trigger(project) == word
