"""What every kernel is tested for on a card."""

from collections.abc import Callable

import torch
from torch import Tensor


def assert_replayed(work: Callable[[], tuple[Tensor, ...]]) -> None:
    """A CUDA graph of `work` gives the same bits as `work` itself."""
    expected = work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = work()
    for tensor in found:
        tensor.detach().zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert all(map(torch.equal, found, expected))
