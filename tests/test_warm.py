import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import body, config_for, notes, stop_at

from lora_sd import run
from lora_sd.lora import formats, layers, warm
from lora_sd.lora.pairs import Pair, delta_weight
from lora_sd.models.load import load
from lora_sd.training import state
from lora_sd.training.train import train


def deltas(path, base):
    models = load(str(base))
    return {
        name: delta_weight(pair)
        for name, pair in formats.load(path, models.parts(), models.family).pairs.items()
    }


@pytest.fixture
def lora(tiny_folder, pictures):
    """A LoRA of rank 4 and alpha 2."""
    return train(
        config_for(tiny_folder("sd15"), pictures, **{"lora.rank": 4, "lora.alpha": 2.0, "optim.steps": 2})
    )


@pytest.mark.parametrize(("rank", "alpha"), [(4, 2.0), (4, 8.0), (8, 1.0), (7, 3.0), (2, 1.0), (1, 16.0)])
def test_a_warm_start_is_exactly_as_strong_as_the_file_whatever_its_rank_and_alpha(
    tiny_folder, pictures, lora, rank, alpha
):
    """The adapters before the first step, against the file's own ΔW."""
    config = config_for(
        tiny_folder("sd15"),
        pictures,
        **{"lora.rank": rank, "lora.alpha": alpha, "lora.start": str(lora), "optim.steps": 1},
    )
    train(config)
    folder = run.list_runs()[0].folder
    (folder / "state" / "000001.pt").unlink()
    values = state.read(folder / "state")
    assert values["step"] == 0
    expected = deltas(lora, tiny_folder("sd15"))
    for name, (down, up) in values["adapters"].items():
        scale = alpha / rank
        found = scale * (up.flatten(1) @ down.flatten(1))
        assert torch.allclose(found, expected[name], rtol=1e-5, atol=1e-9)
        assert down.shape[0] == max(rank, 4)
    if rank < 4:
        assert any("larger rank than lora.rank" in note for note in notes())


def test_powers_of_two_change_no_bit():
    """ΔW = s·U·D: with s_file / s a power of two, scaling U is exact."""
    part = {"unet": torch.nn.Sequential(torch.nn.Linear(6, 5)).requires_grad_(False)}
    pair = Pair(torch.randn(4, 6), torch.randn(5, 4), 8.0)
    layers.inject(part, {"unet.0": 4}, 0.25)
    warm.fill(part, {"unet.0": pair})
    assert torch.equal(delta_weight(layers.adapters(part)["unet.0"]), delta_weight(pair))


def test_new_ranks_learn_from_the_first_step(tiny_folder, pictures, lora):
    """The rows that the file does not fill are random in `down`, so that `up` gets a gradient."""
    wide = {"lora.rank": 8, "lora.start": str(lora), "optim.steps": 1}
    tensors = load_file(train(config_for(tiny_folder("sd15"), pictures, **wide)))
    ups = [tensor for key, tensor in tensors.items() if "lora_up" in key]
    assert all(up[:, 4:].any() for up in ups)


def test_layers_that_the_settings_leave_out_stay_in_and_that_is_said(tiny_folder, pictures, lora):
    narrow = {"lora.targets": "attention-qv", "lora.start": str(lora), "optim.steps": 1}
    tensors = load_file(train(config_for(tiny_folder("sd15"), pictures, **narrow)))
    assert any("to_k" in key for key in tensors)
    assert any("layers that lora.targets leaves out" in note for note in notes())


def test_a_resumed_warm_start_needs_its_file_no_more(tiny_folder, pictures, lora):
    settings = {"lora.rank": 2, "lora.start": str(lora)}
    whole = train(config_for(tiny_folder("sd15"), pictures, **settings))
    config = config_for(tiny_folder("sd15"), pictures, **settings)
    train(config, stop_at(2))
    lora.unlink()
    assert body(train(config, folder=run.list_runs()[0].folder)) == body(whole)


def test_a_file_for_another_model_is_a_sentence(tiny_folder, pictures, lora):
    with pytest.raises(ValueError, match="made for another base model"):
        train(config_for(tiny_folder("sdxl"), pictures, **{"lora.start": str(lora)}))


def test_a_start_that_is_no_lora_is_a_sentence(tiny_folder, pictures, tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="holds no LoRA"):
        train(config_for(tiny_folder("sd15"), pictures, **{"lora.start": str(tmp_path / "a.safetensors")}))
