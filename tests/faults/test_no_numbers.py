"""What is no number (NaN, infinity) in latents, text states or gradients: what a run does about it, event by event."""

import pytest
import torch
from safetensors.torch import load_file
from small_runs import at_calls, body, config_for, notes, told

from lora_sd import events, run
from lora_sd.data import store
from lora_sd.training.train import train
from lora_sd.training.update import Update

NAN = float("nan")


def no_number(losses):
    return losses * NAN


def story():
    """The newest run in words: `3` a step, `3-` one that was left out, `back 2`, and how it ended."""
    words = []
    for event in told():
        match event:
            case events.Step() if event.step:
                words.append(f"{event.step}-" if event.left_out else f"{event.step}")
            case events.Note(text=text) if "Going back to step" in text:
                words.append(f"back {text.split('Going back to step ')[1].split(',')[0]}")
            case events.Failed() | events.Finished():
                words.append(event.kind)
    return " ".join(words)


def rates():
    return {e.step: e.learning_rate for e in told() if isinstance(e, events.Step) and e.step}


def test_one_bad_loss_changes_nothing_and_is_told_and_counted(tiny_folder, pictures, monkeypatch):
    at_calls(monkeypatch, [2], no_number)
    train(config_for(tiny_folder("sd15"), pictures, **{"save.every": 1}))
    assert story() == "1 2- 3 4 finished"
    assert "Step 2 was left out: its loss or gradient was not a number." in notes()
    assert told()[-1].left_out == 1
    first, third, _ = map(
        body, run.checkpoints(run.list_runs()[0].folder)
    )  # none of step 2: it is not known to be good
    assert first != third
    first, third = (load_file(path) for path in run.checkpoints(run.list_runs()[0].folder)[:2])
    assert all(tensor.isfinite().all() for tensor in third.values())


def test_a_bad_step_leaves_weights_and_optimizer_as_they_were(tiny_folder, pictures, monkeypatch):
    """With a schedule that never moves, a run whose second step is left out has after it the weights of the first."""
    at_calls(monkeypatch, [2], no_number)
    two = train(config_for(tiny_folder("sd15"), pictures, **{"optim.steps": 2}))
    monkeypatch.undo()
    one = train(config_for(tiny_folder("sd15"), pictures, **{"optim.steps": 1}))
    assert body(two) == body(one)


def test_three_in_a_row_go_back_to_the_last_state_at_half_the_rate(tiny_folder, pictures, monkeypatch):
    at_calls(monkeypatch, [4, 5, 6], no_number)
    train(config_for(tiny_folder("sd15"), pictures, **{"optim.steps": 6, "save.state_every": 2}))
    assert story() == "1 2 3 4- 5- 6- back 2 3 4 5 6 finished"
    assert told()[-1].left_out == 3
    assert rates() == {1: 1e-2, 2: 1e-2, 3: 5e-3, 4: 5e-3, 5: 5e-3, 6: 5e-3}


def test_without_a_state_yet_they_go_back_to_the_begin(tiny_folder, pictures, monkeypatch):
    at_calls(monkeypatch, [1, 2, 3], no_number)
    train(config_for(tiny_folder("sd15"), pictures))
    assert story() == "1- 2- 3- back 0 1 2 3 4 finished"


def test_if_that_does_not_help_the_run_ends_with_a_sentence_and_writes_no_file(
    tiny_folder, pictures, monkeypatch
):
    at_calls(monkeypatch, range(1, 100), no_number)
    with pytest.raises(ArithmeticError, match="half the learning rate did not help"):
        train(config_for(tiny_folder("sd15"), pictures))
    assert story() == "1- 2- 3- back 0 1- 2- 3- failed"
    folder = run.list_runs()[0].folder
    assert run.read_state(folder).status == "failed" and run.checkpoints(folder) == []


def test_the_slower_rate_outlives_a_resume(tiny_folder, pictures, monkeypatch):
    at_calls(monkeypatch, [1, 2, 3], no_number)
    config = config_for(tiny_folder("sd15"), pictures, **{"optim.steps": 6, "save.state_every": 1})

    def stop_late(event):
        if isinstance(event, events.Step) and event.step == 2 and event.learning_rate == 5e-3:
            run.command(run.list_runs()[0].folder, "stop")

    train(config, stop_late)
    train(config, folder=run.list_runs()[0].folder)
    assert story() == "1- 2- 3- back 0 1 2 finished 3 4 5 6 finished"
    assert set(rates().values()) == {5e-3}


def poison(folder):
    """Make every cached tensor in `folder` hold a NaN, under a right checksum."""
    for path in folder.rglob("*.bin"):
        tensors = {name: tensor.clone() for name, tensor in store.read(path).items()}
        for tensor in tensors.values():
            tensor.view(-1)[0] = NAN
        store.write(path, tensors)


@pytest.mark.parametrize("part", ["latents", "text"])
def test_poisoned_caches_end_the_run_before_anything_is_written(tiny_folder, pictures, home, part):
    """Every step is bad, in each of the two tries; the base model's own held-out loss isn't taken for a number."""
    config = config_for(tiny_folder("sd15"), pictures, **{"validate.images": str(pictures)})
    train(config)
    poison(home / "cache" / part)
    with pytest.raises(ArithmeticError):
        train(config)
    assert story() == "1- 2- 3- back 0 1- 2- 3- failed"
    assert run.checkpoints(run.list_runs()[0].folder) == []
    assert all(e.held_out is None for e in told() if isinstance(e, events.Step))


def test_a_picture_that_the_vae_makes_no_numbers_of_is_named_before_training(
    tiny_folder, pictures, monkeypatch
):
    from diffusers import AutoencoderKL

    encode = AutoencoderKL.encode

    def broken(self, pixels):
        found = encode(self, pixels)
        found.latent_dist.mean *= NAN
        return found

    monkeypatch.setattr(AutoencoderKL, "encode", broken)
    with pytest.raises(ValueError, match=r"\d\.png"):
        train(config_for(tiny_folder("sd15"), pictures))


@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
def test_one_bad_number_in_the_gradient_leaves_the_step_out(tiny_folder, pictures, monkeypatch, value):
    call, count = Update.__call__, iter(range(1, 100))

    def poisoned(self, rate):
        if next(count) == 2:
            self.vector.gradient[7] = value
        return call(self, rate)

    monkeypatch.setattr(Update, "__call__", poisoned)
    path = train(config_for(tiny_folder("sd15"), pictures))
    assert story() == "1 2- 3 4 finished"
    assert all(tensor.isfinite().all() for tensor in load_file(path).values())


def test_weights_that_are_no_numbers_never_reach_a_file(tiny_folder, pictures, monkeypatch):
    """As if a kernel went wrong: the weights themselves are spoilt after step 3, whatever its loss and gradient were."""
    call, count = Update.__call__, iter(range(1, 100))

    def spoilt(self, rate):
        result = call(self, rate)
        if next(count) == 3:
            with torch.no_grad():
                self.vector.values[0] = NAN
        return result

    monkeypatch.setattr(Update, "__call__", spoilt)
    train(config_for(tiny_folder("sd15"), pictures, **{"save.every": 1}))
    assert story() == "1 2 3 back 2 3 4 finished"
    for path in run.checkpoints(run.list_runs()[0].folder):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values())


def test_weights_too_large_for_fp16_are_saved_in_fp32_and_that_is_said(tiny_folder, pictures, monkeypatch):
    call = Update.__call__

    def huge(self, rate):
        result = call(self, rate)
        with torch.no_grad():
            self.vector.values.fill_(1e5)
        return result

    monkeypatch.setattr(Update, "__call__", huge)
    path = train(config_for(tiny_folder("sd15"), pictures, **{"optim.steps": 1, "save.dtype": "fp16"}))
    assert {t.dtype for t in load_file(path).values()} == {torch.float32}
    assert any("is in fp32" in note for note in notes())
