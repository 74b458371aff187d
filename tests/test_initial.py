"""What adapters begin with, against PyTorch's own SVD and peft; the base's output is unchanged at the first step."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from small_runs import body, config_for, stop_at
from test_layers import kinds, one_layer
from torch import nn

from lora_sd import run
from lora_sd.lora import formats, layers
from lora_sd.lora.initial import initial_pair, principal
from lora_sd.lora.pairs import delta_weight
from lora_sd.models.load import load
from lora_sd.training.train import train
from lora_sd.training.vector import Vector

SMALL = {"lora.ranks": {"unet.mid_block.*": 2, "unet.up_blocks.*": 0, "unet.down_blocks.*": 0}}


def of_spectrum(decay: float, out: int = 48, inputs: int = 40) -> torch.Tensor:
    torch.manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(n, 40))[0] for n in (out, inputs))
    return u * decay ** torch.arange(40) @ v.T


@pytest.mark.parametrize(
    ("layer", "rank"), [(nn.Linear(20, 8), 5), (nn.Conv2d(3, 8, 3), 4), (nn.Linear(3, 8), 5)]
)
def test_orthogonal_ranks_are(layer, rank):
    pair = initial_pair(layer, rank, 1.0, 0, "a", "orthogonal")
    down = pair.down.flatten(1)
    products = down @ down.T if rank <= down.shape[1] else down.T @ down
    torch.testing.assert_close(products, torch.eye(len(products)), rtol=0, atol=1e-5)
    assert not pair.up.any()
    assert torch.equal(pair.down, initial_pair(layer, rank, 1.0, 0, "a", "orthogonal").down)
    assert not torch.equal(pair.down, initial_pair(layer, rank, 1.0, 0, "b", "orthogonal").down)


@pytest.mark.parametrize("decay", [0.98, 0.8])
def test_principal_factors_are_the_best_of_their_rank_as_far_as_chance_finds_it(decay):
    weight = of_spectrum(decay)
    down, up = principal(weight, 6, 0.25, 0, "a")
    s = torch.linalg.svdvals(weight)
    best = torch.linalg.norm(s[6:])
    assert torch.linalg.norm(weight - 0.25 * up @ down) < 1.002 * best
    torch.testing.assert_close(torch.linalg.norm(up, dim=0), (s[:6] / 0.25).sqrt(), rtol=0.02, atol=0)
    torch.testing.assert_close(torch.linalg.norm(down, dim=1), (s[:6] / 0.25).sqrt(), rtol=0.02, atol=0)


def test_principal_factors_depend_on_weight_seed_and_name_alone():
    weight, state = of_spectrum(0.98), torch.get_rng_state()
    first = principal(weight, 6, 1.0, 0, "a")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert all(map(torch.equal, first, principal(weight, 6, 1.0, 0, "a")))
    assert not torch.equal(first.up, principal(weight, 6, 1.0, 0, "b").up)


def test_more_ranks_than_a_layer_has_are_zeros():
    down, up = principal(of_spectrum(0.9)[:4], 6, 1.0, 0, "a")
    torch.testing.assert_close(up @ down, of_spectrum(0.9)[:4], rtol=1e-4, atol=1e-5)
    assert down.shape == (6, 40) and not down[4:].any()


@kinds
@pytest.mark.parametrize("magnitudes", [None, "output"])
def test_pissa_begins_as_the_base_and_learns_from_the_first_step(kind, magnitudes):
    parts, x = one_layer(kind)
    before = parts["unet"](x)
    layers.inject(parts, {"unet.0": 2}, 0.5, initial="pissa", magnitudes=magnitudes)
    assert torch.equal(parts["unet"](x), before)
    assert not delta_weight(layers.adapters(parts)["unet.0"]).any()
    parts["unet"](x).square().sum().backward()
    [adapter] = parts["unet"][0].adapters
    assert adapter.down.grad.any() and adapter.up.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pissa_learns_what_pefts_learns(dtype):
    """Against peft, which takes the principal part out of the base; both as what the whole weight changes by."""
    weight, target = of_spectrum(0.8), torch.randn(10, 48)
    base, x = nn.Sequential(nn.Linear(40, 48)), torch.randn(10, 40)
    base[0].weight.data.copy_(weight)
    config = LoraConfig(r=3, lora_alpha=1.5, target_modules=["0"], init_lora_weights="pissa")
    theirs = get_peft_model(copy.deepcopy(base), config).base_model.model
    parts = {"unet": base.requires_grad_(False)}
    layers.inject(parts, {"unet.0": 3}, 0.5, initial="pissa")
    [ours] = base[0].adapters
    if dtype == torch.bfloat16:
        base.to(dtype)
        ours.float()
    vector = Vector([ours], dtype)
    optimizers = [
        torch.optim.Adam(p, lr=0.01)
        for p in ([vector.values], [p for p in theirs.parameters() if p.requires_grad])
    ]
    for _ in range(3):
        loss = (base(x.to(dtype)).float() - target).square().mean()
        loss.backward()
        vector.collect(loss.detach())
        (theirs(x) - target).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
        vector.sums.zero_()
        vector.renew()
        optimizers[1].zero_grad()
    expected = theirs[0].get_base_layer().weight + theirs[0].get_delta_weight("default") - weight
    pair = layers.adapters(parts)["unet.0"]
    error = torch.linalg.norm(delta_weight(pair) - expected) / torch.linalg.norm(expected)
    assert error < (1e-3 if dtype == torch.float32 else 0.05) and pair.rank == 6
    rounded = pair._replace(down=pair.down.half(), up=pair.up.half())  # as in a file
    assert torch.linalg.norm(delta_weight(rounded) - delta_weight(pair)) < 1e-3 * torch.linalg.norm(expected)


@pytest.mark.parametrize(
    "more",
    [
        {"lora.initial": "pissa", "machine.precision": "bf16", "lora.targets": "full"},
        {"lora.initial": "pissa", "lora.dora": "output", "lora.rank_dropout": 0.2, "lora.train_down": False},
    ],
    ids=["pissa in bf16", "pissa with DoRA and dropout"],
)
def test_a_run_stopped_and_resumed_is_the_undisturbed_one(more, tiny_folder, pictures):
    config = config_for(tiny_folder("sd15"), pictures, **SMALL, **{"optim.steps": 2}, **more)
    path = train(config)
    train(config, stop_at(1))
    assert body(train(config, folder=run.list_runs()[0].folder)) == body(path)
    ranks = {len(tensor) for key, tensor in load_file(path).items() if "lora_down" in key}
    assert ranks == {4}
    models = load(str(tiny_folder("sd15")))
    assert not formats.load(path, models.parts(), models.family).unused


@pytest.mark.parametrize("other", [{"lora.max_norm": 1.0}, {"lora.start": "x.safetensors"}])
def test_what_pissa_does_not_go_with_is_a_sentence(other, tiny_folder, pictures):
    config = config_for(tiny_folder("sd15"), pictures, **{"lora.initial": "pissa"}, **other)
    with pytest.raises(ValueError, match=f"does not go with {next(iter(other))}; leave one of them out"):
        train(config)
