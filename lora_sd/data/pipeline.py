"""Three stations that work at the same time: threads read ahead, the calling thread encodes batches, threads write behind."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

READERS = min(8, os.cpu_count() or 1)
WRITERS = 2
PULSE = 1.0  # seconds
PATIENCE = 2.0  # seconds
T = TypeVar("T")
R = TypeVar("R")


class Prepared(NamedTuple):
    """What a reader made of a thing."""

    thing: Any
    group: Any  # only things of one group are encoded together
    content: Any = None  # what is to be encoded; None where nothing is to be done


def run(
    things: Iterable[T],
    read: Callable[[T], Prepared],
    encode: Callable[[list[T], list], R],
    write: Callable[[R], None],
    *,
    at_once: Callable[[Any], int],
) -> Iterator[int]:
    """Take things, sorted by group, through the stations; each number is how many more are finished.

    `at_once` is how many of a group are encoded together: asked anew for every batch. Memory holds a few batches only.
    While nothing comes, as from a network share that stalls, there is a 0 every PULSE, so that who waits can give up.
    """

    def encoded(ready: Iterable[Prepared]) -> Iterator[tuple[int, Any]]:
        for batch in _batches(ready, at_once):
            to_do = batch and batch[0].content is not None
            things, contents = [one.thing for one in batch], [one.content for one in batch]
            yield len(batch), encode(things, contents) if to_do else None

    def written(batch: tuple[int, Any]) -> int:
        count, made = batch
        if made is not None:
            write(made)
        return count

    with (
        contextlib.closing(_ahead(read, things, threads=READERS, depth=2 * READERS)) as ready,
        contextlib.closing(_ahead(written, encoded(ready), threads=WRITERS, depth=WRITERS)) as counts,
    ):
        yield from (count or 0 for count in counts)


def _batches(ready: Iterable[Prepared | None], at_once: Callable[[Any], int]) -> Iterator[list[Prepared]]:
    """What is to be encoded in batches of one group; what is not, one by one; nothing where nothing came."""
    for group, members in groupby(ready, key=lambda one: one and one.group):
        batch: list[Prepared] = []
        for one in members:
            if one is None:
                yield []
                continue
            if one.content is None:
                yield [one]
                continue
            batch.append(one)
            if len(batch) >= at_once(group):
                yield batch
                batch = []
        if batch:
            yield batch


def _ahead(
    function: Callable[[T], R], things: Iterable[T], *, threads: int, depth: int
) -> Iterator[R | None]:
    """`map` on threads, at most `depth` things ahead of who asks; results in order, None while one is waited for."""
    pool = ThreadPoolExecutor(threads)
    waiting: deque = deque()
    try:
        for thing in things:
            waiting.append(pool.submit(function, thing))
            while waiting and (len(waiting) > depth or waiting[0].done()):
                yield from _when_done(waiting.popleft())
        while waiting:
            yield from _when_done(waiting.popleft())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        wait(waiting, timeout=PATIENCE)  # what has been begun is done, unless it hangs


def _when_done(future: "Future[R]") -> Iterator[R | None]:
    while not wait([future], timeout=PULSE).done:
        yield None
    yield future.result()
