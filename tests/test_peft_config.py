"""Which layer has which alpha by PEFT's config, as PEFT itself decides it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key

from lora_sd.lora.peft_config import KEY, PeftConfig

LAYERS = ["down_blocks.0.attn1.to_q", "down_blocks.0.attn1.to_k", "mid_block.attn1.to_q", "conv_in"]
PATTERNS = [
    "to_q",
    "attn1.to_q",
    r"attn1\.to_q",
    "down_blocks.0.attn1.to_q",
    ".*attn1.*to_k",
    "^mid_block.attn1.to_q$",
    "q",
]


@given(st.dictionaries(st.sampled_from(PATTERNS), st.integers(1, 99)), st.sampled_from(LAYERS))
def test_the_pattern_that_decides_is_the_one_of_peft(patterns, layer):
    config = PeftConfig(
        Path("x"), {KEY: json.dumps({"unet.alpha_pattern": patterns, "unet.lora_alpha": 100})}
    )
    assert config.alpha(f"unet.{layer}", 4) == patterns.get(get_pattern_key(patterns, layer), 100)


def test_without_a_config_alpha_is_the_rank():
    assert PeftConfig(Path("x"), {}).alpha("unet.conv_in", 4) == 4


def test_rslora_divides_by_the_root_of_the_rank():
    config = PeftConfig(Path("x"), {KEY: json.dumps({"unet.lora_alpha": 8, "unet.use_rslora": True})})
    assert config.alpha("unet.conv_in", 4) / 4 == pytest.approx(8 / 4**0.5)
