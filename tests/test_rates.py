"""What is noted are rates that no recipe has; what recipes have is not."""

from pathlib import Path

import pytest
from small_runs import config_for, notes, stop_at

from lora_sd import config as cfg
from lora_sd import rates, run
from lora_sd.settings import LoraSettings, OptimSettings
from lora_sd.training.train import resume, train

PRESETS = sorted((Path(__file__).parent.parent / "presets").glob("*.toml"))


def noted(lora=None, starter=False, **optim):
    return rates.notes(OptimSettings(**optim), LoraSettings(**(lora or {})), starter=starter)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_the_presets_are_usual(preset):
    config = cfg.load(preset)
    assert rates.notes(config.optim, config.lora, starter=config.model.base == "starter") == []


@pytest.mark.parametrize(
    ("rate", "lora"),
    [
        (1e-4, {}),
        (1e-4, {"rank": 8, "alpha": 1}),  # the interface of kohya
        (1e-4, {"rank": 32, "alpha": 32}),
        (5e-4, {"rank": 32, "alpha": 16}),
        (3e-4, {"rank": 8, "alpha": 4}),
        (1e-4, {"plus_ratio": 16}),
        (1e-4, {"rank": 64, "alpha": 4, "rank_stabilized": True}),
    ],
)
def test_usual_recipes_are_not_noted(rate, lora):
    assert noted(lora, learning_rate=rate) == []


@pytest.mark.parametrize(
    ("lora", "optim", "words"),
    [
        ({"rank": 32, "alpha": 1}, {}, ["alpha / rank is 3.1e-06", "low", "set lora.alpha near 16"]),
        ({"rank": 1024, "alpha": 0.1, "rank_stabilized": True}, {}, ["alpha / √rank is 3.1e-07", "lora.alpha near 4"]),
        ({}, {"learning_rate": 1e-6}, ["5e-07", "low", "set optim.learning_rate near 2e-4"]),
        ({}, {"learning_rate": 1e-2}, ["0.005", "high", "set optim.learning_rate near 2e-4"]),
        ({"plus_ratio": 16}, {"learning_rate": 5e-4}, ["× lora.plus_ratio is 0.004", "high"]),
        ({}, {"optimizer": "Lion", "learning_rate": 1e-3}, ["3 to 10 times lower than AdamW", "near 2e-5"]),
        ({}, {"optimizer": "Adafactor", "learning_rate": 1e-2}, ["high"]),
        ({}, {"optimizer": "Prodigy"}, ["at 0.0001 it learns next to nothing; set it to 1"]),
        ({}, {"optimizer": "dadaptation.DAdaptAdam", "learning_rate": 10}, ["at 10 it burns; set it to 1"]),
        ({"text_encoders": True}, {"text_encoder_rate": [1e-5, 2e-4]}, ["optim.text_encoder_rate is 0.0002", "such as 5e-05"]),
    ],
)  # fmt: skip
def test_an_unusual_rate_is_one_sentence_that_says_what_to_change(lora, optim, words):
    [note] = noted(lora, **optim)
    assert all(word in note for word in words), note


def test_what_is_right_for_an_optimizer_or_not_known_is_not_noted():
    assert (
        noted(optimizer="Prodigy", learning_rate=1)
        == noted(optimizer="torch.optim.SGD", learning_rate=1)
        == []
    )
    assert noted(text_encoder_rate=[2e-4]) == []  # nothing of them learns


def test_the_starter_takes_more_than_large_models():
    assert (
        noted({"alpha": 16}, learning_rate=3e-3, starter=True)
        == []
        != noted({"alpha": 16}, learning_rate=3e-3)
    )


def test_a_run_says_it_once_and_a_warm_up_that_never_ends_too(tiny_folder, pictures):
    train(config_for(tiny_folder("sd15"), pictures, **{"optim.warmup": 50}), stop_at(2))
    resume(run.list_runs()[0].folder)
    told = notes()
    assert [note for note in told if "may burn the LoRA" in note] == noted({"rank": 2}, learning_rate=1e-2)
    assert len([note for note in told if "optim.warmup is 50 steps and the run has 4" in note]) == 1
