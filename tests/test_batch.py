"""One edit of many captions does what it says, and nothing else."""

import pytest

from app import batch
from app.batch import Edit
from app.history import Change

CASES = [
    (Edit("start", "mycat"), "a sofa, grey", "mycat, a sofa, grey"),
    (Edit("start", " mycat "), "", "mycat"),
    (Edit("start", "mycat"), "MyCat, a sofa", "MyCat, a sofa"),
    (Edit("end", "best of {all}"), "a sofa", "a sofa, best of {all}"),
    (Edit("remove", "sofa"), "a sofa, Sofa, sofas, red", "a, sofas, red"),
    (Edit("remove", "blue sky"), "cat, blue sky, tree", "cat, tree"),
    (Edit("remove", ".*"), "cat, tree", "cat, tree"),
    (Edit("replace", "a", "A"), "a cat", "A cAt"),
    (Edit("replace", "CAT", "\\1 dog"), "a cat", "a cat"),
    (Edit("replace", "CAT", "\\1 dog", exact=False), "a cat", "a \\1 dog"),
    (Edit("replace", "C:\\new", "${1+1}"), "see C:\\new", "see ${1+1}"),
    (Edit("first", "mycat"), "grey, mycat, sofa", "mycat, grey, sofa"),
    (Edit("first", "mycat"), "mycat asleep", "mycat asleep"),
    (Edit("first", "mycat"), "grey", "mycat, grey"),
    (Edit("sort"), "b, A, 日本, a", "A, a, b, 日本"),
    (Edit("clear"), "anything\nelse", ""),
    (Edit("start", "x"), "one\ntwo", "x, one\nx, two"),
]


@pytest.mark.parametrize("edit, before, after", CASES)
def test_an_edit(edit, before, after):
    found = batch.changes({"a.png": before}, edit)
    assert found == ([Change("a.png", "caption", before, after)] if before != after else [])


def test_a_shuffle_is_a_function_of_its_seed_and_the_picture_and_keeps_every_tag():
    tags = ", ".join(f"tag {n}" for n in range(20))
    edit = Edit("shuffle", seed=7)
    found = batch.changes({"a.png": tags, "b.png": tags}, edit)
    assert found == batch.changes({"a.png": tags, "b.png": tags}, edit)
    assert found[0].after != found[1].after
    assert sorted(found[0].after.split(", ")) == sorted(tags.split(", "))


@pytest.mark.parametrize(
    "edit, words",
    [
        (Edit("burn"), "Choose what to do"),
        (Edit("remove", "  "), "Write a word"),
        (Edit("start", "x" * 2000), "at most 1,000 letters"),
    ],
)
def test_an_edit_that_says_nothing_is_refused(edit, words):
    with pytest.raises(ValueError, match=words):
        batch.changes({"a.png": "x"}, edit)


def test_tags_are_counted_in_any_case_once_a_caption():
    assert batch.frequency(["Cat, sofa, cat", "cat\ncat, sky", ""]) == [("Cat", 2), ("sky", 1), ("sofa", 1)]
