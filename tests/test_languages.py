"""The page says the same in every language: nothing is missing, nothing is left over, every {name} is in its place."""

import re
import sys
from pathlib import Path

import pytest

from app import words
from app.words import LANGUAGES, catalogue, preferred, say

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
NAMES = re.compile(r"\{[a-z][^{}]*\}")


@pytest.fixture(scope="module")
def said() -> list[str]:
    from words_of_the_page import said

    return said()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_of_the_page_is_there_and_no_other(said, language):
    missing = [text for text in said if text not in catalogue(language)]
    assert not missing, f"python tools/words_of_the_page.py {language}"
    assert not set(catalogue(language)) - set(said)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_filled_in_and_the_marks_of_headings_are_kept(language):
    for text, there in catalogue(language).items():
        assert sorted(NAMES.findall(there)) == sorted(NAMES.findall(text)), text
        assert re.match(r"#*", there)[0] == re.match(r"#*", text)[0], text
        assert there.strip(), text


@pytest.mark.parametrize("language", ["ja", "zh"])
def test_a_language_is_not_english_under_another_name(language):
    """At least nine of ten sentences are in its own script."""
    sentences = {text: there for text, there in catalogue(language).items() if " " in text}
    own = [there for there in sentences.values() if re.search(r"[぀-ヿ㐀-鿿]", there)]
    assert len(own) > 0.9 * len(sentences)


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("de", "de"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("zh-TW,zh;q=0.9", "zh"),
        ("ja-JP", "ja"),
        ("zh-CN", "zh"),
        ("zh-HK", "en"),
        ("deu", "en"),
        ("en-GB,de;q=0.9", "en"),
        ("fr,de;q=0.9", "en"),  # as in the browser, where only the first is asked for
        ("", "en"),
        ("*", "en"),
        ("../../etc", "en"),
    ],
)
def test_the_language_is_the_first_that_the_browser_asks_for(accepted, language):
    assert preferred(accepted) == language


def test_without_a_request_all_is_english():
    assert say("Resume from step {step}", step=7) == "Resume from step 7"
    assert say("{50 %} is no name") == "{50 %} is no name"


def test_what_a_handler_says_is_in_the_language_of_its_request(monkeypatch):
    monkeypatch.setattr(words, "language", lambda: "de")
    monkeypatch.setattr(words, "catalogue", lambda language: {"step {step}": "Schritt {step}"})
    assert say("step {step}", step=7) == "Schritt 7"
    assert say("not translated {step}", step=7) == "not translated 7"


def test_thousands_are_set_apart_as_the_language_does_it():
    assert words.grouped("2,500", "de") == "2.500"
    assert words.grouped("2,500", "ja") == "2,500"
    assert words.grouped("0.5", "de") == "0.5" and words.grouped("cat,500", "de") == "cat,500"
