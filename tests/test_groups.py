import pytest
import torch
from safetensors.torch import load_file
from small_runs import body, config_for, notes

from lora_sd.lora.inspection import read_header
from lora_sd.training import groups
from lora_sd.training.train import train

BOTH = ["unet", "text_encoder", "text_encoder_2"]


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([], {}),
        ([1e-5], {"text_encoder": 1e-5, "text_encoder_2": 1e-5}),
        ([1e-5, 2e-5], {"text_encoder": 1e-5, "text_encoder_2": 2e-5}),
    ],
)
def test_one_rate_is_for_all_encoders_and_several_are_one_each(rates, expected):
    assert groups.encoder_rates(BOTH, rates) == expected


def test_more_rates_than_encoders_is_a_sentence():
    with pytest.raises(ValueError, match="has 2 numbers and the model has 1 text encoders"):
        groups.encoder_rates(BOTH[:2], [1e-5, 1e-5])


def test_a_matrix_has_the_factor_of_its_part():
    layers = ["unet.a", "text_encoder.b", "text_encoder_2.c"]
    assert groups.factors(layers, 1e-4, {"text_encoder_2": 5e-5}) == [1.0, 1.0, 0.5]


def test_each_part_learns_at_its_own_rate_and_the_file_says_so(tiny_folder, pictures):
    """AdamW's first step is ±rate for every number with a gradient, far larger than its epsilon."""
    changes = {"lora.text_encoders": True, "optim.steps": 1, "optim.weight_decay": 0.0}
    changes |= {"optim.learning_rate": 1e-2, "optim.text_encoder_rate": [5e-3, 2e-3]}
    path = train(config_for(tiny_folder("sdxl"), pictures, **changes))
    ups = {key: tensor for key, tensor in load_file(path).items() if "lora_up" in key}
    for part, rate in [("lora_unet", 1e-2), ("lora_te1", 5e-3), ("lora_te2", 2e-3)]:
        largest = torch.stack([up.abs().max() for key, up in ups.items() if key.startswith(part)]).max()
        assert largest.item() == pytest.approx(rate, rel=1e-2)
    header = read_header(path).metadata
    assert header["ss_unet_lr"] == "0.01" and header["ss_text_encoder_lr"] == "[0.005, 0.002]"


def test_a_rate_like_the_unets_changes_no_bit(tiny_folder, pictures):
    changes = {"lora.text_encoders": True, "optim.steps": 2}
    one = train(config_for(tiny_folder("sd15"), pictures, **changes))
    same = train(config_for(tiny_folder("sd15"), pictures, **changes, **{"optim.text_encoder_rate": 1e-2}))
    assert body(one) == body(same)


def test_a_rate_for_encoders_that_do_not_learn_is_told(tiny_folder, pictures):
    train(config_for(tiny_folder("sd15"), pictures, **{"optim.text_encoder_rate": 1e-3, "optim.steps": 1}))
    assert any("text_encoder_rate has no effect" in note for note in notes())
