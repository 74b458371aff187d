import threading

import pytest

from lora_sd.data import pipeline
from lora_sd.data.pipeline import Prepared


def read(thing):
    return Prepared(thing, thing // 10, thing)


def run(things, read=read, at_once=3):
    batches = []
    counts = pipeline.run(
        things, read, lambda things, contents: things, batches.append, at_once=lambda _: at_once
    )
    return counts, batches


def test_things_are_encoded_in_batches_of_their_group_in_order():
    counts, batches = run([1, 2, 3, 4, 11, 12])
    assert sum(counts) == 6
    assert sorted(batches) == [[1, 2, 3], [4], [11, 12]]


def test_what_is_there_already_is_counted_and_not_encoded():
    counts, batches = run([1, 2, 3], lambda thing: Prepared(thing, 0, None if thing == 2 else thing))
    assert sum(counts) == 3 and sorted(batches) == [[1, 3]]


@pytest.fixture
def stalled(monkeypatch):
    """A reader that hangs at 2, as in a network share that does not answer, until the test is over."""
    monkeypatch.setattr(pipeline, "PULSE", 0.02)
    monkeypatch.setattr(pipeline, "PATIENCE", 0.05)
    answer = threading.Event()

    def hang(thing):
        if thing == 2:
            answer.wait(60)
        return read(thing)

    yield hang, answer
    answer.set()


def test_while_a_share_stalls_there_are_pulses_and_then_all_comes(stalled):
    hang, answer = stalled
    counts, batches = run([1, 2, 3], hang)
    seen = [next(counts) for _ in range(3)]
    assert 0 in seen
    answer.set()
    assert sum(seen) + sum(counts) == 3
    assert sorted(thing for batch in batches for thing in batch) == [1, 2, 3]


def test_who_gives_up_does_not_wait_for_the_share(stalled):
    hang, answer = stalled
    counts, _ = run([1, 2, 3], hang)
    while next(counts):
        pass
    counts.close()
    assert not answer.is_set()


def test_a_damaged_thing_is_an_error_for_who_asks():
    def broken(thing):
        raise ValueError("2.png is damaged")

    counts, _ = run([1], broken)
    with pytest.raises(ValueError, match=r"2\.png"):
        list(counts)
