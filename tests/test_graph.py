"""On a card the real thing; elsewhere a recording that runs the same work again stands in for the card's."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from lora_sd.training import graph
from lora_sd.training.feed import Feed
from lora_sd.training.graph import Passes


def feed(seed, batch=2, side=8, chunks=1):
    rng = torch.Generator().manual_seed(seed)
    image = (batch, 4, side, side)
    return Feed(
        latents=torch.randn(image, generator=rng),
        noise=torch.randn(image, generator=rng),
        t=torch.randint(1000, (batch,), generator=rng),
        sizes=torch.zeros(batch, 6),
        shares=torch.full((batch,), 1 / batch),
        text=(torch.randn(batch, 77 * chunks, 3, generator=rng),),
        beside=torch.randn(batch, 5, side, side, generator=rng),
    )


def work_into(sums, seen=None):
    """Work that leaves numbers depending on every input in `sums`."""

    def work(feed):
        if seen is not None:
            seen.append(feed.shapes)
        mixed = (
            feed.latents * feed.shares.view(-1, 1, 1, 1)
            + feed.noise
            + feed.beside[:, :1] * feed.beside[:, 1:]
        )
        sums.add_(torch.stack([mixed.square().sum(), feed.t.float().sum() + feed.text[0].sum()]))

    return work


@pytest.fixture
def stand_in(monkeypatch):
    """A card that records by remembering the work and replays by running it on the same tensors."""
    recording = []

    class Graph:
        def replay(self):
            self.work(self.inputs)

    @contextlib.contextmanager
    def record(graph_, pool, stream, capture_error_mode):
        recording.append(graph_)
        yield
        recording.pop()

    cuda = SimpleNamespace(
        CUDAGraph=Graph,
        graph=record,
        graph_pool_handle=object,
        Stream=object,
        stream=lambda stream: contextlib.nullcontext(),
        synchronize=lambda: None,
        empty_cache=lambda: None,
    )
    monkeypatch.setattr(graph.torch, "cuda", cuda)
    monkeypatch.setattr(graph.torch.random, "fork_rng", lambda devices: contextlib.nullcontext())
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)

    def recordable(work):
        def on_card(feed):
            if recording:
                recording[-1].work, recording[-1].inputs = work, feed
            else:
                work(feed)

        return on_card

    return recordable


def test_a_replay_sees_new_inputs_at_the_recorded_places(stand_in):
    sums, wanted = torch.zeros(2), torch.zeros(2)
    graphed = graph.Graphed(stand_in(work_into(sums)), sums)
    graphed.prepare(feed(0, batch=b) for b in (1, 2))
    assert not sums.any()  # getting ready leaves nothing behind
    for seed, batch in enumerate([2, 1, 2, 2, 1]):
        graphed(feed(seed, batch))
        work_into(wanted)(feed(seed, batch))
    torch.testing.assert_close(sums, wanted)
    assert len(graphed.recorded) == 2


def test_every_shape_is_run_once_and_the_largest_recorded_first(stand_in):
    seen, sums = [], torch.zeros(2)
    graphed = graph.Graphed(stand_in(work_into(sums, seen)), sums)
    shapes = [feed(0, 1), feed(1, 2, chunks=2), feed(2, 2), feed(3, 1)]
    graphed.prepare(shapes)
    assert sorted(seen) == sorted({f.shapes for f in shapes}) and seen[0] == shapes[1].shapes
    assert list(graphed.recorded) == [shapes[1].shapes]


def test_without_a_card_the_work_is_done_at_once():
    sums, wanted, notes = torch.zeros(2), torch.zeros(2), []
    passes = Passes(work_into(sums), sums, graphs=True, on_note=notes.append)
    passes.prepare([feed(0)])
    passes(feed(1))
    work_into(wanted)(feed(1))
    assert torch.equal(sums, wanted) and notes == []


def test_where_recording_fails_the_work_is_done_at_once_and_that_is_said(stand_in, monkeypatch):
    sums, wanted, notes = torch.zeros(2), torch.zeros(2), []
    passes = Passes(work_into(sums), sums, graphs=True, on_note=notes.append)
    passes.graphed = graph.Graphed(work_into(sums), sums)

    def refuse(*_, **__):
        raise RuntimeError("operation not permitted when stream is capturing\nCompile with …")

    monkeypatch.setattr(graph.torch.cuda, "graph", refuse)
    passes(feed(1))
    passes(feed(2))
    for seed in (1, 2):
        work_into(wanted)(feed(seed))
    assert torch.equal(sums, wanted) and len(notes) == 1 and "is capturing);" in notes[0]


def test_memory_that_runs_out_is_not_hidden(stand_in, monkeypatch):
    sums = torch.zeros(2)
    passes = Passes(work_into(sums), sums, graphs=True, on_note=lambda text: pytest.fail(text))
    passes.graphed = graph.Graphed(work_into(sums), sums)

    def refuse(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(graph.torch.cuda, "graph", refuse)
    with pytest.raises(torch.OutOfMemoryError):
        passes(feed(1))


@pytest.mark.gpu
def test_a_card_records_and_replays():
    sums, wanted = torch.zeros(2, device="cuda"), torch.zeros(2, device="cuda")
    notes = []
    passes = Passes(work_into(sums), sums, graphs=True, on_note=notes.append)
    passes.prepare(feed(0, batch) for batch in (1, 2))
    for seed, batch in enumerate([2, 1, 2, 2, 1]):
        passes(feed(seed, batch))
        work_into(wanted)(feed(seed, batch).to(sums.device))
    torch.testing.assert_close(sums, wanted)
    assert notes == [] and len(passes.graphed.recorded) == 2


@pytest.mark.gpu
def test_a_card_that_cannot_record_goes_on_without():
    sums, notes = torch.zeros(2, device="cuda"), []

    def waits(feed):
        sums.add_(feed.latents.sum().item())  # reading back is what a recording can't have

    passes = Passes(waits, sums, graphs=True, on_note=notes.append)
    passes(feed(1))
    torch.testing.assert_close(sums, feed(1).latents.sum().expand(2).cuda())
    assert len(notes) == 1


@pytest.mark.gpu
def test_ten_shapes_need_little_more_memory_than_the_largest():
    weight = torch.randn(4096, 64, device="cuda", requires_grad=True)
    sums = torch.zeros(2, device="cuda")

    def work(feed):
        x = feed.latents.flatten(2).mT.flatten(0, 1) @ torch.ones(4, 64, device="cuda")
        for _ in range(6):
            x = (x @ weight.T).relu() @ weight
        sums.add_(torch.stack([(loss := x.square().mean()).detach(), loss.detach()]))
        loss.backward()
        weight.grad = None

    def reserved(feeds):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_reserved()
        passes = Passes(work, sums, graphs=True, on_note=pytest.fail)
        passes.prepare(feeds)
        for one in feeds:
            passes(one)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_reserved() - before

    shapes = [feed(0, batch=4, side=side) for side in range(48, 58)]
    assert reserved(shapes) < 1.1 * reserved(shapes[-1:])
