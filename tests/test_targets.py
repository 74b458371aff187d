"""Presets choose kohya's layers on the released models; patterns change, add and leave out."""

import pytest
from real_shapes import real_parts

from lora_sd.lora.layers import named_layers
from lora_sd.lora.targets import PRESETS, resolve

# U-Net layers by preset, and text-encoder layers: the counts of kohya's files
COUNTS = {
    "sd15": {"attention-qv": 64, "attention": 128, "transformer": 192, "full": 278, "none": 0, "text": 72},
    "sd2": {"attention-qv": 64, "attention": 128, "transformer": 192, "full": 278, "none": 0, "text": 138},
    "sdxl": {"attention-qv": 280, "attention": 560, "transformer": 722, "full": 788, "none": 0, "text": 264},
}
# kohya's targets, by class: "transformer" is the first, "full" all of them
SCOPES = ("Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D")
families = pytest.mark.parametrize("family", COUNTS)


@families
@pytest.mark.parametrize("preset", PRESETS)
def test_preset_has_kohyas_number_of_layers(family, preset):
    parts, counts = real_parts(family), COUNTS[family]
    assert len(resolve(parts, preset, rank=4)) == counts[preset]
    assert len(resolve(parts, preset, rank=4, text_encoders=True)) == counts[preset] + counts["text"]


@families
@pytest.mark.parametrize(("preset", "classes"), [("transformer", SCOPES[:1]), ("full", SCOPES)])
def test_preset_is_every_layer_inside_kohyas_classes(family, preset, classes):
    unet = real_parts(family)["unet"]
    scopes = [name + "." for name, module in unet.named_modules() if type(module).__name__ in classes]
    inside = [n for n in named_layers({"unet": unet}) if n.removeprefix("unet.").startswith(tuple(scopes))]
    assert list(resolve({"unet": unet}, preset, rank=4)) == inside


def test_later_pattern_wins():
    ranks = resolve(
        real_parts("sd15"), "attention", rank=4, patterns={"unet.*": 8, "unet.mid_block.attentions.*": 2}
    )
    assert ranks["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"] == 2
    assert set(ranks.values()) == {8, 2}


def test_rank_0_leaves_a_layer_out():
    ranks = resolve(real_parts("sd15"), "attention", rank=4, patterns={"*.attn1.*": 0})
    assert len(ranks) == 64 and all(".attn2." in name for name in ranks)


def test_pattern_adds_a_layer_outside_the_preset():
    ranks = resolve(real_parts("sd15"), "attention", rank=4, patterns={"unet.conv_in": 3})
    assert len(ranks) == 129 and ranks["unet.conv_in"] == 3


def test_order_is_the_models_whatever_the_patterns():
    parts = real_parts("sd15")
    ranks = resolve(parts, "attention", rank=4, patterns={"unet.conv_out": 3, "unet.conv_in": 3})
    assert list(ranks) == [name for name in named_layers(parts) if name in ranks]


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("unet.mid_blok.*", "unet.mid_block.*"),
        ("*.to_kk", "*.to_k"),
        ("text_encoder.*.q_prj", "text_encoder.*"),
        ("unet.conv-in", "unet.conv_in"),
    ],
)
def test_pattern_without_a_match_names_near_ones(pattern, near):
    with pytest.raises(ValueError, match="no layer of this model matches") as error:
        resolve(real_parts("sd15"), "attention", rank=4, patterns={pattern: 8})
    assert repr(pattern) in str(error.value) and near in str(error.value)


def test_negative_rank_is_refused():
    with pytest.raises(ValueError, match="the rank -1"):
        resolve(real_parts("sd15"), "attention", rank=4, patterns={"unet.*": -1})


def test_no_layer_left_is_refused():
    with pytest.raises(ValueError, match="No layer is left"):
        resolve(real_parts("sd15"), "attention", rank=4, patterns={"*": 0})
