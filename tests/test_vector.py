import pytest
import torch
from torch import nn

from lora_sd.lora import layers
from lora_sd.training.vector import ALIGNMENT, Vector


def adapted(dtype=torch.float32):
    """A small frozen model with three adapted layers, the last of which is not used in its output."""
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"a": nn.Linear(5, 7), "b": nn.Conv2d(7, 3, 3, padding=1), "unused": nn.Linear(3, 3)}
    )
    model.requires_grad_(False).to(dtype)
    parts = {"unet": model}
    layers.inject(parts, {"unet.a": 3, "unet.b": 2, "unet.unused": 1}, 1.0)
    found = [low_rank for _, low_rank in layers.low_ranks(parts)]
    for low_rank in found:
        nn.init.normal_(low_rank.up)
    return model, found


def loss_of(model, seed):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 4, 4, 5, generator=rng).to(model["a"].weight.dtype)
    return model["b"](model["a"](x).permute(0, 3, 1, 2)).float().square().mean()


def test_the_adapters_are_views_of_the_values():
    _, found = adapted()
    before = [(low_rank.down.clone(), low_rank.up.clone()) for low_rank in found]
    vector = Vector(found, torch.float32)
    for low_rank, (down, up) in zip(found, before, strict=True):
        assert torch.equal(low_rank.down, down) and torch.equal(low_rank.up, up)
    with torch.no_grad():
        vector.values.mul_(2)
    assert all(torch.equal(low_rank.up, 2 * up) for low_rank, (_, up) in zip(found, before, strict=True))
    starts = [view.storage_offset() for view in vector.split(vector.values.data)]
    assert all(start % ALIGNMENT == 0 for start in starts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_are_the_gradients_of_all_passes_and_their_loss(dtype):
    model, found = adapted(dtype)
    plain = [p for low_rank in found for p in (low_rank.down, low_rank.up)]
    losses = [loss_of(model, seed) for seed in (1, 2)]
    sum(losses).backward()
    wanted = [torch.zeros_like(p) if p.grad is None else p.grad for p in plain]
    for p in plain:
        p.grad = None
    vector = Vector(found, dtype)
    for seed in (1, 2):
        loss = loss_of(model, seed)
        loss.backward()
        vector.collect(loss.detach())
    for got, gradient in zip(vector.split(vector.gradient), wanted, strict=True):
        torch.testing.assert_close(got, gradient, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-3)
    torch.testing.assert_close(vector.loss, sum(losses).detach())
    assert vector.values.grad.data_ptr() == vector.gradient.data_ptr()


def test_layers_compute_with_copies_in_half_precision_that_follow():
    model, found = adapted(torch.bfloat16)
    vector = Vector(found, torch.bfloat16)
    before = loss_of(model, 1)
    with torch.no_grad():
        vector.values.mul_(1.5)
    assert torch.equal(loss_of(model, 1), before)
    vector.renew()
    assert torch.equal(found[0].factors(torch.bfloat16).up, found[0].up.to(torch.bfloat16))
    assert not torch.equal(loss_of(model, 1), before)


def test_joining_is_the_inverse_of_splitting():
    _, found = adapted()
    vector = Vector(found, torch.float32)
    assert torch.equal(vector.join(vector.split(vector.values.data)), vector.values)
