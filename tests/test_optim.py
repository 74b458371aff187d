import pytest
import torch

from lora_sd.training import optim


def test_moments_in_8_bits_follow_those_in_32():
    """Each step goes the same way, to the few per cent that 8 bits leave."""
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    exact, small = (torch.nn.Parameter(torch.zeros(8192)) for _ in range(2))
    options = {"learning_rate": 0.01, "weight_decay": 0.01}
    optimizers = optim.adamw([exact], **options), optim.adamw8bit([small], **options)
    for _ in range(20):
        exact.grad = torch.randn(8192)
        small.grad = exact.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert (exact - small).norm() < 0.05 * exact.norm()


def test_the_rate_reaches_every_group():
    optimizer = optim.adamw([torch.nn.Parameter(torch.zeros(1))], learning_rate=1.0, weight_decay=0.0)
    optim.set_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25]
