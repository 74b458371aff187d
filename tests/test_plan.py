"""What the page proposes, and whether its sentences say it."""

import re
from pathlib import Path

import pytest

from app import plan
from app.form import with_defaults
from app.plan import GB, Base, Machine
from lora_sd import config
from lora_sd.footprint import FOOTPRINTS, RUNGS

PRESETS = sorted((Path(__file__).parent.parent / "presets").glob("*.toml"))

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
    preset = config.load(next(path for path in PRESETS if path.stem == "starter_quick"))
    proposed = plan.settings("Style", quality, STARTER, 24)
    assert proposed.pop("optim.steps") == steps
    assert proposed == {name: config.get(preset, name) for name in proposed} and len(proposed) == 7


@pytest.mark.parametrize(("pictures", "steps"), [(1, 600), (20, 1200), (200, 2500)])
def test_steps_grow_with_the_pictures_within_limits(pictures, steps):
    assert plan.settings("Subject", "Balanced", SD15, pictures)["optim.steps"] == steps


def test_a_style_gets_more_room_than_a_subject():
    assert plan.settings("Style", "Balanced", SD15, 20)["lora.rank"] == 32
    assert plan.settings("Subject", "Balanced", SD15, 20)["lora.rank"] == 16


def test_without_a_card_the_starter_is_proposed_and_the_reason_is_given():
    source, why = plan.propose([STARTER, SDXL], CPU)
    assert source == "starter" and "no graphics card" in why


def test_with_a_card_the_largest_model_that_fits_it_is_proposed():
    assert plan.propose([STARTER, SD15, SDXL], CARD)[0] == SD15.source
    assert plan.propose([STARTER, SD15, SDXL], Machine("cuda", "RTX 4090", 24 * GB))[0] == SDXL.source
    assert plan.propose([STARTER], CARD)[0] == "starter"


@pytest.mark.parametrize(
    ("base", "gigabytes", "title"),
    [
        (SD15, 4, "at full speed"),
        (SD15, 3, "computed twice"),
        (SDXL, 24, "at full speed"),
        (SDXL, 8, "computed twice"),
    ],
)
def test_memory_is_what_is_predicted_and_how_it_is_saved_is_said(base, gigabytes, title):
    machine = Machine("cuda", "A card", gigabytes * GB)
    line = said(base, machine)["Memory"]
    rung, size, *_ = plan.memory(base, machine, chosen(base))
    assert line.value == f"about {size / GB:.1f} of {gigabytes} GB" and not line.warning
    assert line.why == f"predicted, {rung.title}" and title in rung.title
    assert line.leads[0] == "machine.memory"
    assert size <= plan.usable(machine)


def test_a_run_that_may_not_fit_is_warned_about():
    line = said(SDXL, CARD, optim__batch_size=8)["Memory"]
    assert line.warning and "8 bits" in line.why and "may not fit" in line.why
    assert said(SDXL, CARD, machine__memory="fast")["Memory"].warning
    assert not said(SD15, CARD, optim__batch_size=8)["Memory"].warning


def test_the_processor_keeps_everything_in_fp32():
    needed = plan.memory(SD15, CPU, chosen(SD15))
    assert needed.rung == RUNGS[0]
    assert needed.size > 4 * (FOOTPRINTS["sd15"].unet + FOOTPRINTS["sd15"].text)
    assert said(STARTER, CPU)["Memory"][:4] == ("Memory", "about 2.0 of 16 GB", "an estimate", False)
    assert plan.memory(Base("/models/odd", "Odd", None), CARD, chosen(SD15)) is None


@pytest.mark.parametrize(
    "preset", [p for p in PRESETS if not p.stem.startswith("starter")], ids=lambda p: p.stem
)
def test_a_preset_fits_the_cards_that_it_names(preset):
    least, fast = map(
        int, re.search(r"with (\d+) GB or more, at full speed from (\d+) GB", preset.read_text()).groups()
    )
    base = SDXL if preset.stem.startswith("sdxl") else SD15
    settings = with_defaults(config.differences(config.load(preset)))
    for gigabytes in (least, fast):
        machine = Machine("cuda", "A card", gigabytes * GB)
        assert plan.memory(base, machine, settings).size <= plan.usable(machine)
    assert plan.memory(base, machine, settings).rung == RUNGS[0]


def test_a_changed_number_is_called_a_choice_beside_the_proposal():
    assert said(SD15, CARD, optim__steps=77)["Length"].why.startswith("your choice; 1,200 were proposed")
    assert said(SD15, CARD, lora__rank=8)["Room to learn"].why == "your choice; 16 was proposed"
    assert said(SD15, CARD, data__resolution=768)["Picture size"].value == "about 768 × 768"


def test_a_word_has_room_in_its_vectors_and_needs_the_text_encoders_on_the_card():
    alone = {"lora__targets": "none", "embedding__tokens": 4}
    assert said(SDXL, CARD, **alone)["Room to learn"].value == "4 vectors"
    card = Machine("cuda", "RTX 4090", 24 * GB)
    with_lora = chosen(SDXL, **{"embedding.tokens": 4})
    sizes = [plan.memory(SDXL, card, settings).size for settings in (chosen(SDXL), with_lora)]
    assert sizes[0] < sizes[1] < sizes[0] + 3 * GB
    assert plan.memory(SDXL, card, with_lora | {"lora.targets": "none"}).size < sizes[1]


def test_few_pictures_and_a_slow_machine_are_warned_about():
    assert said(SD15, CARD, pictures=3)["Pictures"].warning
    assert not said(STARTER, CPU)["Where"].warning
    assert said(SD15, CPU)["Where"].warning and "many hours" in said(SD15, CPU)["Where"].why


@pytest.mark.parametrize(
    ("project", "word"), [("mycat", "mycat_lx"), ("My Cat!", "mycat_lx"), ("  ", "my_lx")]
)
def test_a_trigger_word_is_made_of_the_project(project, word):
    assert plan.suggest_trigger(project) == word
