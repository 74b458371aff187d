"""Captions are as long as transformers' own tokenizers find them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from lora_sd.models import tokens

TEXTS = [
    "",
    "a cat on a mat",
    "mycat_lx, 1girl, (blue sky:1.2), 2024",
    "don't, it's; C:\\new ${1+1} <b>x</b>",
    "Käse, 日本 😀 naïve ﬁ",
    "  spaces \n and\tlines ",
    "word " * 200,
]


@pytest.fixture(scope="module")
def clip():
    return CLIPTokenizer.from_pretrained(tokens.CLIP)


def length(tokenizer, text: str) -> int:
    return len(tokenizer(text, truncation=False, verbose=False).input_ids) - 2


def test_as_long_as_clip_finds_them(clip):
    assert tokens.counts(TEXTS) == [length(clip, text) for text in TEXTS]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60))
def test_any_text_is_as_long_as_clip_finds_it(clip, text):
    assert tokens.counts([text]) == [length(clip, text)]


def test_as_long_as_the_starter_model_finds_them():
    starter = CLIPTokenizer.from_pretrained(tokens.STARTER / "tokenizer")
    assert tokens.counts(TEXTS, starter=True) == [length(starter, text) for text in TEXTS]
