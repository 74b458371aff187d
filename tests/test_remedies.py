"""How a run that ended early goes on: the same options for the command line and the page."""

import errno

import pytest
import torch

from lora_sd import config, errors, events, flags, remedies, run, terminal
from lora_sd.training.sameness import Changed


def settings(**changes):
    return config.changed(config.TrainConfig(), {name.replace("__", "."): v for name, v in changes.items()})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a"), "place"),
        (ArithmeticError("not a number"), "numbers"),
        (Changed(["seed was 1 and is 2"]), "changed"),
        (ValueError("lora.rank is 0"), "input"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "card"),
        (RuntimeError("shapes cannot be multiplied"), ""),
    ],
)
def test_every_error_has_a_code(error, code):
    assert errors.code(error) == code


def test_an_error_is_about_what_was_done_when_it_came():
    with pytest.raises(ValueError) as found, errors.about("model"):
        raise ValueError("no such model")
    assert errors.code(found.value) == "model"
    full = OSError(errno.ENOSPC, "full")
    with pytest.raises(OSError), errors.about("model"):
        raise full
    assert errors.code(full) == "disk"


def test_the_code_of_another_kind_of_error_is_not_taken_for_ours():
    error = RuntimeError("a page was not found")
    error.code = 404
    assert errors.code(error) == ""


def test_less_memory_goes_down_the_ladder_then_halves_the_batch_then_the_pictures():
    assert remedies.less_memory(settings()) == ("--machine.memory", "low")
    assert remedies.less_memory(settings(machine__memory="low")) == ("--machine.memory", "lowest")
    assert remedies.less_memory(settings(), "low") == ("--machine.memory", "lowest")
    lowest = {"machine__memory": "lowest", "optim__batch_size": 4, "optim__accumulation": 2}
    halved = remedies.less_memory(settings(**lowest))
    assert halved == ("--optim.batch_size", "2", "--optim.accumulation", "4", "--accept-changes")
    one = {"machine__memory": "lowest", "optim__batch_size": 1, "data__resolution": 512}
    assert remedies.less_memory(settings(**one)) == ("--data.resolution", "384", "--accept-changes")
    assert remedies.less_memory(settings(**one | {"data__resolution": 256})) is None


def test_half_the_rate_is_half_of_every_rate():
    found = remedies.half_the_rate(settings(optim__learning_rate=1e-4, optim__text_encoder_rate=[4e-5, 2e-5]))
    changed = flags.parse([word for word in found if word != "--accept-changes"], settings())
    assert (changed.optim.learning_rate, changed.optim.text_encoder_rate) == (5e-5, [2e-5, 1e-5])


def test_the_command_line_says_how_to_go_on(capsys):
    folder = run.create(settings())
    progress = terminal.Progress(folder)
    progress(events.Failed("There is not enough memory.", code="memory", rung="low"))
    assert f"To go on: python -m lora_sd resume {folder} --machine.memory lowest" in capsys.readouterr().err
    progress(events.Failed("lora.rank is 0", code="input"))
    assert "To go on" not in capsys.readouterr().err
