"""Captions vary as their settings say: by formula, as a function of (seed, example, showing), as a finite set of texts."""

import doctest
import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import body, config_for, stop_at

from lora_sd import run
from lora_sd.data import captions, folder, variants
from lora_sd.data.buckets import Fit
from lora_sd.data.cache import TextCache
from lora_sd.data.folder import Example
from lora_sd.data.variants import Wording, drawn, text
from lora_sd.lora.metadata import inspect
from lora_sd.training.prepare import Dataset
from lora_sd.training.train import train

TAGS = "mycat, a, b, c, d"
words = st.text(st.characters(exclude_characters="\n"), max_size=40)


def texts(caption, wording, count=300, num_variants=5000):
    return [drawn(caption, wording, 7, 0, shown, num_variants) for shown in range(count)]


def test_docstrings_are_true():
    assert doctest.testmod(variants).failed == 0


@given(words)
def test_with_everything_off_a_caption_is_itself(caption):
    off = Wording(separator="")
    assert text(caption, off) == drawn(caption, off, 1, 2, 3, 4) == caption
    if "|||" not in caption:
        assert drawn(caption, Wording(), 1, 2, 3, 4) == caption


def test_a_shuffle_is_a_permutation_of_the_tags_that_do_not_stay():
    found = texts(TAGS, Wording(shuffle=True, keep=1))
    assert {one.split(", ")[0] for one in found} == {"mycat"}
    assert {tuple(sorted(one.split(", "))) for one in found} == {tuple(sorted(TAGS.split(", ")))}
    assert len(set(found)) == 24  # 4!


def test_a_separator_ends_what_stays_and_is_never_learned():
    marked = "x, y ||| a, b, c ||| z"
    assert text(marked, Wording(shuffle=True)) == "x, y, a, b, c, z"
    found = texts(marked, Wording(shuffle=True, keep=1))
    assert all(one.startswith("x, y, ") and one.endswith(", z") and "|" not in one for one in found)
    assert len(set(found)) == 6


def test_as_many_tags_are_left_out_as_the_share_says_and_never_the_trigger_word():
    found = texts("a, b, my cat sits, c", Wording(tag_dropout=0.25, trigger="my cat"), 4000)
    counts = Counter(tag for one in found for tag in one.split(", "))
    assert counts["my cat sits"] == 4000
    assert all(counts[tag] / 4000 == pytest.approx(0.75, abs=0.03) for tag in "abc")


def test_as_many_captions_are_left_out_as_the_share_says_however_few_texts_there_are():
    found = texts("a fox", Wording(dropout=0.1, prefix="photo of"), 4000, num_variants=1)
    counts = Counter(found)
    assert counts.keys() == {"", "photo of a fox"} and counts[""] / 4000 == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    ("caption", "possible"),
    [
        ("a {red|blue|} fox", {"a red fox", "a blue fox", "a fox"}),
        ("{a|b} {1|2}", {"a 1", "a 2", "b 1", "b 2"}),
        ("{{a|b}}", {"{a|b}"}),
        ("a { fox", {"a { fox"}),
    ],
)
def test_a_choice_is_each_of_its_words_in_turn_of_chance(caption, possible):
    assert set(texts(caption, Wording(wildcards=True))) == possible
    assert text(caption, Wording()) == caption


def test_prefix_and_suffix_stay_where_they_are():
    found = texts("a, b, c", Wording(prefix="best,", suffix="by me", shuffle=True))
    assert all(one.startswith("best, ") and one.endswith(" by me") for one in found)


def test_a_line_is_a_caption_of_its_own_only_where_that_is_set(tmp_path, pictures):
    (pictures / "0.txt").write_text("a cat\n\n  mycat asleep \r\n")
    [one, *_] = folder.find_examples(pictures, trigger="mycat").examples
    [several, *_] = folder.find_examples(pictures, trigger="mycat", lines=True).examples
    assert one.caption == "a cat mycat asleep"
    assert several.caption == "mycat, a cat\nmycat asleep"
    assert set(texts(several.caption, Wording())) == {"mycat, a cat", "mycat asleep"}
    assert text(several.caption, Wording()) == "mycat, a cat"
    [odd, *_] = folder.find_examples(pictures, trigger="my\ncat").examples
    assert odd.caption == "my cat, a cat mycat asleep"
    assert captions.read(pictures / "1.txt", lines=True) == ("picture 1", None)


@given(st.integers(0, 2**32 - 1), st.integers(0, 99), st.integers(0, 9999))
def test_a_text_is_a_function_of_seed_example_and_showing(seed, index, shown):
    wording = Wording(shuffle=True, tag_dropout=0.3, dropout=0.2)
    random.seed(shown)
    first = drawn(TAGS, wording, seed, index, shown, 50)
    assert drawn(TAGS, wording, seed, index, shown, 50) == first
    assert first in {"", drawn(TAGS, wording._replace(dropout=0), seed, index, shown % 50, 50)}


def test_all_texts_of_a_run_are_known_before_it_and_are_no_more_than_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(variants, "MOST_TEXTS", 20)
    words = Wording(shuffle=True, dropout=0.1, wildcards=True)
    examples = [
        Example(tmp_path / f"{i}.png", f"{TAGS}, {i}", (64, 64), repeats=1 + 2 * (i == 0), wording=words)
        for i in range(4)
    ]
    fits = [Fit((64, 64), (64, 64), (0, 0))] * 4

    class Texts(Dataset):
        def batch(self, indices, shown=None):
            return list(map(self.text, indices, shown))

    data = Texts(examples, fits, None, seed=5)
    parts = data.endless(5, 2)
    shown = {one for _, part in zip(range(30), parts, strict=False) for one in part.batch}
    assert shown <= set(data.texts(30, 2))
    assert len(data.texts(30, 2)) <= 21 == len(data.texts(10**9, 2)) and "" in shown


VARIED = {
    "captions.shuffle": True,
    "captions.tag_dropout": 0.3,
    "captions.dropout": 0.3,
    "captions.prefix": "photo,",
    "captions.wildcards": True,
    "captions.lines": True,
}


@pytest.mark.parametrize("text_encoders", [False, True])
def test_with_captions_by_chance_4_steps_are_2_and_2_bit_for_bit(tiny_folder, pictures, text_encoders):
    (pictures / "0.txt").write_text("a {red|blue} fox, snow, tree\na fox")
    changes = {**VARIED, "optim.steps": 4, "lora.text_encoders": text_encoders, "data.trigger": "fox"}
    config = config_for(tiny_folder("sd15"), pictures, **changes)
    whole = train(config)
    train(config, stop_at(2))
    assert body(train(config, folder=run.list_runs()[0].folder)) == body(whole)
    assert body(train(config_for(tiny_folder("sd15"), pictures, **{"optim.steps": 4}))) != body(whole)


def test_no_caption_is_encoded_after_the_beginning(tiny_folder, pictures, monkeypatch):
    (pictures / "0.txt").write_text("a, b, c, d, e, f")
    real = TextCache.fill

    def fill(self, *args, **options):
        real(self, *args, **options)
        self.encode = None

    monkeypatch.setattr(TextCache, "fill", fill)
    train(config_for(tiny_folder("sd15"), pictures, **VARIED))


def test_the_header_tells_what_was_done_to_captions(tiny_folder, pictures):
    told = inspect(train(config_for(tiny_folder("sd15"), pictures, **VARIED))).metadata
    assert told["ss_shuffle_caption"] == "True" and told["ss_caption_tag_dropout_rate"] == "0.3"
    assert json.loads(told["ss_tag_frequency"])["pictures"]["photo"] == 3
