import pytest
import torch
from safetensors.torch import load_file
from small_runs import body, config_for, notes, stop_at

from lora_sd import config as cfg
from lora_sd import run
from lora_sd.lora.inspection import read_header
from lora_sd.training import optim, state
from lora_sd.training.train import resume, train

NAMES = [name for name in optim.KINDS if name not in ("AdamW", "AdamW8bit")]


def folder():
    return run.list_runs()[0].folder


@pytest.mark.parametrize("name", [*NAMES, "torch.optim.RAdam"])
def test_3_steps_are_2_and_1_bit_for_bit_with_every_optimizer(tiny_folder, pictures, name):
    """With the encoders at another rate where the optimizer can have that, and looked at on the way."""
    changes = {"optim.optimizer": name, "optim.steps": 3, "save.every": 1}
    if name == "AdamWScheduleFree":  # whose weights are others while they are looked at
        changes |= {"preview.every": 1, "preview.steps": 1}
    if name != "Prodigy":
        changes |= {"lora.text_encoders": True, "optim.text_encoder_rate": 1e-3}
    config = config_for(tiny_folder("sd15"), pictures, **changes)
    whole = train(cfg.changed(config, {"preview.every": 0, "save.every": 0}))
    train(config, stop_at(2))
    assert body(train(config, folder=folder())) == body(whole)


def test_the_file_of_schedule_free_holds_the_average_and_its_state_does_not(tiny_folder, pictures):
    path = train(config_for(tiny_folder("sd15"), pictures, **{"optim.optimizer": "AdamWScheduleFree"}))
    values = state.read(folder() / "state")
    tensors = load_file(path)
    [moved] = values["update"]["optimizer"]["state"].values()
    name = next(iter(values["adapters"]))
    size = values["adapters"][name][0].numel()
    y, z = values["adapters"][name][0], moved["z"][:size].view_as(values["adapters"][name][0])
    key = f"lora_{name.replace('.', '_')}.lora_down.weight"
    # y = (1 - beta) z + beta x (arXiv:2405.15682, equation 3)
    torch.testing.assert_close(tensors[key].view_as(y), (y - 0.1 * z) / 0.9)


def test_the_file_tells_its_optimizer_and_arguments(tiny_folder, pictures):
    changes = {"optim.optimizer": "Lion", "optim.arguments": {"betas": [0.95, 0.98]}, "optim.steps": 1}
    header = read_header(train(config_for(tiny_folder("sd15"), pictures, **changes))).metadata
    assert header["ss_optimizer"] == "lion_pytorch.lion_pytorch.Lion(weight_decay=0.01,betas=[0.95, 0.98])"


def test_8_bits_that_are_not_there_are_told_and_done_without(tiny_folder, pictures, monkeypatch):
    monkeypatch.setitem(optim.KINDS, "AdamW8bit", optim.Kind("not_there.AdamW8bit", "bitsandbytes"))
    plain = train(config_for(tiny_folder("sd15"), pictures))
    small = train(config_for(tiny_folder("sd15"), pictures, **{"optim.optimizer": "AdamW8bit"}))
    assert body(small) == body(plain)
    assert any("pip install bitsandbytes" in note and "goes on with AdamW" in note for note in notes())


def test_prodigy_with_rates_for_parts_is_a_sentence(tiny_folder, pictures):
    changes = {"optim.optimizer": "Prodigy", "lora.text_encoders": True, "optim.text_encoder_rate": 0.5}
    with pytest.raises(
        ValueError, match=r"Prodigy finds the learning rate .* leave optim.text_encoder_rate out"
    ):
        train(config_for(tiny_folder("sd15"), pictures, **changes))


def test_another_optimizer_on_resume_is_asked_for_and_begins_anew(tiny_folder, pictures):
    train(config_for(tiny_folder("sd15"), pictures), stop_at(2))
    with pytest.raises(ValueError, match=r'optim\.optimizer was "AdamW" and is "Lion"'):
        resume(folder(), changes={"optim.optimizer": "Lion"})
    assert resume(folder(), changes={"optim.optimizer": "Lion"}, accept_changes=True).exists()
    assert any("begins without what the last one remembered" in note for note in notes())


def test_arguments_that_were_accepted_are_gone_on_with_and_the_moments_stay(tiny_folder, pictures):
    train(config_for(tiny_folder("sd15"), pictures), stop_at(2))
    changes = {"optim.weight_decay": 0.5, "optim.arguments": {"betas": [0.8, 0.9]}}
    resume(folder(), changes=changes, accept_changes=True)
    values = state.read(folder() / "state")["update"]["optimizer"]
    [group], [moments] = values["param_groups"], values["state"].values()
    assert (group["weight_decay"], group["betas"]) == (0.5, (0.8, 0.9)) and moments["step"] == 4


def test_an_optimizer_that_no_run_could_go_on_with_is_refused_before_the_first_step(tiny_folder, pictures):
    with pytest.raises(ValueError, match="LBFGS can't do a step as other optimizers do"):
        train(config_for(tiny_folder("sd15"), pictures, **{"optim.optimizer": "torch.optim.LBFGS"}))
    assert run.read_state(folder()).step == 0
