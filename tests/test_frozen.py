"""A frozen convolution is PyTorch's, but for what it keeps."""

import pytest
import torch
from torch import nn

from lora_sd.models.frozen import FrozenConv


@pytest.mark.parametrize("geometry", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "groups": 2}], ids=str)
def test_it_is_the_convolution_and_keeps_nothing(geometry):
    conv = nn.Conv2d(4, 8, 3, **geometry).requires_grad_(False)
    x, kept = torch.randn(2, 4, 6, 6, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = FrozenConv.apply(x, conv, conv.bias)
    assert kept == [] and torch.equal(y, conv(x))
    found, expected = (torch.autograd.grad(z.square().sum(), x)[0] for z in (y, conv(x)))
    torch.testing.assert_close(found, expected)
