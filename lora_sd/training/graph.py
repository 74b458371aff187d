"""Forward and backward of a batch as one CUDA graph: a step then costs one launch instead of some six thousand.

A graph replays the same kernels on the same addresses, so inputs are copied into tensors that stay, and all that a pass
leaves behind is added to tensors that were there before (`Vector.sums`). Nothing else outlives a replay: every graph can
therefore use one pool of memory, which is as large as the largest of them needs.
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import out_of_memory
from .feed import Feed

OnNote = Callable[[str], None]


class Passes:
    """`work` (a function of a feed on the device, adding to `sums`) for feeds from the CPU.

    Recorded as graphs on a card where `graphs`; should that fail, one operation after another, and `on_note` hears why.
    """

    def __init__(self, work: Callable[[Feed], None], sums: Tensor, *, graphs: bool, on_note: OnNote):
        self.work, self.sums, self.on_note = work, sums, on_note
        self.graphed = Graphed(work, sums) if graphs and sums.is_cuda else None

    def prepare(self, feeds: Iterable[Feed]) -> None:
        """Get ready for feeds of these shapes."""
        if self.graphed:
            self._try(self.graphed.prepare, feeds)

    def __call__(self, feed: Feed) -> None:
        if not (self.graphed and self._try(self.graphed, feed)):
            self.work(feed.to(self.sums.device))

    def _try(self, function: Callable, argument: object) -> bool:
        """Whether it worked; without memory there is a remedy, and it isn't here."""
        try:
            function(argument)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            self.graphed = None
            why = str(error).partition("\n")[0]  # CUDA adds advice for programmers
            self.on_note(f"The card can't record a step ({why}); training goes on without, more slowly.")
        return self.graphed is not None


class Recorded(NamedTuple):
    """One graph and the inputs it reads."""

    graph: torch.cuda.CUDAGraph
    inputs: Feed


class Graphed:
    """`work` (a function of a feed on the card, adding to `sums`) by graphs, one for each set of input shapes."""

    def __init__(self, work: Callable[[Feed], None], sums: Tensor):
        self.work, self.sums = work, sums
        self.recorded: dict[tuple, Recorded] = {}
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream()  # recordings can't be made on the usual one

    def prepare(self, feeds: Iterable[Feed]) -> None:
        """Run one feed of every shape that will come, then record the largest.

        The run lets the libraries load their kernels, which they can't during a recording, and before there is a
        pool it needs no memory beside it. Recorded first, the largest makes the pool that the others fit in.
        """
        shapes = {feed.shapes: feed for feed in feeds}
        by_size = sorted(
            shapes.values(), key=lambda feed: feed.latents.numel() * feed.text[0].shape[1], reverse=True
        )
        with torch.random.fork_rng(devices=[self.sums.device]):
            before = self.sums.clone()
            torch.cuda.synchronize()
            with torch.cuda.stream(self.stream):
                for feed in by_size:
                    self.work(feed.to(self.sums.device))
                self.sums.copy_(before)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        self.record(by_size[0])

    def record(self, feed: Feed) -> Recorded:
        inputs = feed.to(self.sums.device)
        graph = torch.cuda.CUDAGraph()
        # thread_local: what other threads do meanwhile (hashing, reading) is none of this recording's business
        with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
            self.work(inputs)
        return self.recorded.setdefault(feed.shapes, Recorded(graph, inputs))

    def __call__(self, feed: Feed) -> None:
        """Add the feed's gradient and loss to `sums`. Nothing here waits for the card."""
        found = self.recorded.get(feed.shapes) or self.record(feed)
        for there, here in zip(found.inputs.tensors(), feed.tensors(), strict=True):
            there.copy_(here.pin_memory(), non_blocking=True)
        found.graph.replay()
