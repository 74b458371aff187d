"""Kinds of adapter and how they learn, from the settings to the file, each against peft or its formula."""

import json
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from small_runs import body, config_for, stop_at, told
from torch import nn

from lora_sd import config as cfg
from lora_sd import events, run
from lora_sd.lora import formats, layers, targets
from lora_sd.lora.dropout import Dropout, LayerDropout
from lora_sd.lora.initial import initial_pair
from lora_sd.lora.inspection import read_header
from lora_sd.lora.pairs import LowRank, Pair, delta_weight
from lora_sd.settings import LoraSettings
from lora_sd.training import adapter, optim
from lora_sd.training.max_norm import limit_norms
from lora_sd.training.train import train
from lora_sd.training.update import LossScale, Update
from lora_sd.training.vector import Vector

RESNET = "lora_unet_mid_block_resnets_0_conv1"
QUERY = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
ONE = {
    "unet.mid_block.*": 2,
    "unet.up_blocks.*": 0,
    "unet.down_blocks.*": 0,
}  # a small LoRA is enough to look at


def strengths(path):
    """alpha / rank by kohya's layer name."""
    tensors = load_file(path)
    downs = {key.removesuffix(".lora_down.weight"): t for key, t in tensors.items() if "lora_down" in key}
    return {name: float(tensors[f"{name}.alpha"]) / len(down) for name, down in downs.items()}


# -- strength and rank -------------------------------------------------------------------------------------------------


def test_rank_stabilized_scales_are_pefts():
    ranks, alpha = {"unet.0": 4, "unet.1": 9}, 3.0
    parts = {"unet": nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))}
    found = targets.scales(parts, ranks, rank=4, alpha=alpha, rank_stabilized=True)
    config = LoraConfig(
        r=4, lora_alpha=alpha, rank_pattern={"1": 9}, use_rslora=True, target_modules=["0", "1"]
    )
    theirs = get_peft_model(nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)), config)
    for name in ("0", "1"):
        assert found[f"unet.{name}"] == theirs.get_submodule(f"base_model.model.{name}").scaling["default"]


def test_a_rank_stabilized_file_needs_no_reader_that_knows_of_it(tiny_folder, pictures):
    """alpha in the file is alpha · √rank, so that alpha / rank is the strength that was trained."""
    settings = {"lora.rank": 9, "lora.alpha": 2.0, "lora.rank_stabilized": True, "optim.steps": 1}
    found = strengths(train(config_for(tiny_folder("sd15"), pictures, **settings)))
    assert list(found.values()) == pytest.approx([2 / math.sqrt(9)] * len(found))


def test_convolutions_have_their_own_rank_and_alpha(tiny_folder, pictures):
    settings = {"lora.targets": "full", "lora.rank": 4, "lora.conv_rank": 2, "lora.conv_alpha": 0.5}
    path = train(config_for(tiny_folder("sd15"), pictures, **settings, **{"optim.steps": 1}))
    tensors = load_file(path)
    ranks = {
        key.removesuffix(".lora_down.weight"): len(t) for key, t in tensors.items() if "lora_down" in key
    }
    wide = {key.removesuffix(".lora_down.weight") for key, t in tensors.items() if t.shape[2:] == (3, 3)}
    assert len(wide) == 50  # kohya's number of 3 × 3 convolutions in SD 1.x
    assert all(rank == (2 if name in wide else 4) for name, rank in ranks.items())
    config = config_for(tiny_folder("sd15"), pictures).lora
    scale = targets.scales(
        {"unet": nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 1))},
        {"unet.0": 2, "unet.1": 4},
        rank=4,
        alpha=config.rank,
        conv_rank=2,
        conv_alpha=0.5,
    )
    assert scale == {"unet.0": 0.25, "unet.1": 0.5}


def test_a_rank_for_convolutions_that_do_not_learn_is_a_sentence(tiny_folder, pictures):
    for setting in ({"lora.conv_rank": 8}, {"lora.conv_alpha": 2.0}):
        with pytest.raises(ValueError, match=r"none learns; set lora\.targets to full"):
            train(config_for(tiny_folder("sd15"), pictures, **setting))


def test_alphas_by_pattern_are_for_the_ranks_of_their_layers(tiny_models, tmp_path):
    models = tiny_models("sd15")
    settings = LoraSettings(rank=2, ranks={"*.to_k": 8}, alphas={"*.to_k": 2.0, "*.attn2.to_v": 3.0})
    adapter.inject(models, settings, 0, {}, print)
    ends = {
        "attn1.to_k": 2 / 8,
        "attn2.to_k": 2 / 8,
        "attn2.to_v": 3 / 2,
        "attn1.to_v": 1 / 2,
        "attn1.to_q": 1 / 2,
    }
    pairs = layers.adapters(models.parts())
    found = {name[-10:]: pair.alpha / pair.rank for name, pair in pairs.items()}
    assert {end: found[end] for end in ends} == ends
    for pair in pairs.values():
        nn.init.normal_(pair.up)
    path = formats.save_lora(models, tmp_path / "x.safetensors", dtype=torch.float32)
    for name, pair in formats.load(
        path, models.parts(), models.family
    ).pairs.items():  # whatever alpha it has there
        torch.testing.assert_close(delta_weight(pair), delta_weight(pairs[name]))
    parts = {"unet": nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))}
    scales = targets.scales(
        parts, {"unet.0": 4, "unet.1": 9}, rank=4, alpha=2, patterns={"unet.1": 6}, rank_stabilized=True
    )
    assert scales == {"unet.0": 2 / 2, "unet.1": 6 / 3}


def test_an_alpha_whose_pattern_fits_no_layer_that_learns_is_a_sentence(tiny_folder, pictures):
    settings = {"lora.ranks": ONE, "lora.alphas": {"unet.up_blocks.*": 2.0}}
    with pytest.raises(
        ValueError, match=r"lora.alphas: no layer that learns matches 'unet.up_blocks.\*'; near"
    ):
        train(config_for(tiny_folder("sd15"), pictures, **settings))


# -- dropout -----------------------------------------------------------------------------------------------------------


def dropped(kind=None, shape=(64, 5, 40), **shares):
    """(layer, its adapter, input, shared dropout) of one layer that learns, with random `up`."""
    torch.manual_seed(0)
    layer = kind or nn.Linear(40, 24)
    parts = {"unet": nn.Sequential(layer).requires_grad_(False)}
    shared = Dropout(**shares)
    layers.inject(parts, {"unet.0": 16}, 1.0, dropout=shared)
    [adapter] = layer.adapters
    nn.init.normal_(adapter.up)
    shared.renew()
    return layer, adapter, torch.randn(shape), shared


def kept(after, before, share):
    """Which numbers were kept; they must be the old ones times 1 / (1 − share)."""
    kept = after != 0
    torch.testing.assert_close(after[kept], (before / (1 - share))[kept])
    assert kept.float().mean().item() == pytest.approx(1 - share, abs=0.05)
    return kept


def test_dropout_acts_on_what_down_reads_and_only_where_it_should(monkeypatch):
    layer, adapter, x, shared = dropped(inputs=0.3)
    plain = layer(x)
    seen = []
    real = layer.narrow
    monkeypatch.setattr(layer, "narrow", lambda x, down: seen.append(x) or real(x, down))
    found = []
    shared.acting(lambda x: found.append(layer(x)))(x)
    kept(seen[0], x, 0.3)
    base = nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(found[0], base + seen[0] @ adapter.down.T @ adapter.up.T)
    assert torch.equal(layer(x), plain)  # outside a training pass


@pytest.mark.parametrize(
    ("kind", "shape", "axis"),
    [(nn.Linear(40, 24), (64, 5, 40), -1), (nn.Conv2d(4, 8, 3, padding=1), (64, 4, 6, 6), 1)],
    ids=["linear", "conv"],
)
def test_rank_dropout_is_one_mask_of_ranks_for_each_example(kind, shape, axis, monkeypatch):
    layer, adapter, x, shared = dropped(kind, shape, ranks=0.25)
    seen, real = [], layer.widen
    monkeypatch.setattr(layer, "widen", lambda x, up: seen.append(x) or real(x, up))
    shared.acting(layer)(x)
    mask = kept(seen[0], layer.narrow(x, adapter.down), 0.25).movedim(axis, 1).flatten(2)  # (B, rank, places)
    assert (mask.all(2) | ~mask.any(2)).all()


def test_layer_dropout_is_all_or_nothing_without_a_factor():
    layer, _, x, shared = dropped(layers=0.3)
    whole, base, found = layer(x), nn.functional.linear(x, layer.weight, layer.bias), []
    for _ in range(200):
        shared.renew()
        shared.acting(lambda x: found.append(layer(x)))(x)
    off = [torch.equal(y, base) for y in found]
    assert all(o or torch.allclose(y, whole, atol=1e-5) for o, y in zip(off, found, strict=True))
    assert sum(off) / len(off) == pytest.approx(0.3, abs=0.1)


def test_masks_are_even_and_differ_by_key_layer_and_process():
    shape = torch.Size([1000, 100])

    def numbers(layer="unet.0", seed=1, process=0):
        torch.manual_seed(seed)
        shared = Dropout(inputs=0.5, process=process)
        shared.renew()
        return LayerDropout(shared, layer).of_inputs(torch.ones(shape))

    first = numbers()
    assert torch.equal(first, numbers())
    for other in (numbers("unet.1"), numbers(seed=2), numbers(process=1)):
        assert torch.corrcoef(torch.stack([first.flatten(), other.flatten()]))[0, 1].abs() < 0.02
    for sums in (first.sum(0) / 1000, first.sum(1) / 100):  # of rows and of columns: binomial
        assert sums.mean().item() == pytest.approx(1, abs=0.02)
        assert sums.std().item() == pytest.approx(1 / math.sqrt(first.numel() / len(sums)), rel=0.25)


DROPOUTS = {"lora.dropout": 0.2, "lora.rank_dropout": 0.2, "lora.module_dropout": 0.1, "lora.ranks": ONE}


def test_with_dropout_4_steps_are_2_and_2_bit_for_bit_and_computing_twice_changes_nothing(
    tiny_folder, pictures
):
    config = config_for(tiny_folder("sd15"), pictures, **DROPOUTS, **{"optim.accumulation": 2})
    whole = body(train(config))
    train(config, stop_at(2))
    assert body(train(config, folder=run.list_runs()[0].folder)) == whole
    assert body(train(cfg.changed(config, {"machine.memory": "low"}))) == whole
    assert body(train(cfg.changed(config, dict.fromkeys(list(DROPOUTS)[:3], 0.0)))) != whole


def test_the_file_tells_of_dropout(tiny_folder, pictures):
    path = train(config_for(tiny_folder("sd15"), pictures, **DROPOUTS, **{"optim.steps": 1}))
    header = read_header(path).metadata
    assert header["ss_network_dropout"] == "0.2"
    assert json.loads(header["ss_network_args"])["rank_dropout"] == "0.2"


@pytest.mark.gpu
def test_recorded_steps_with_dropout_follow_plain_ones(tiny_folder, pictures):
    settings = {"machine.device": "cuda", "optim.learning_rate": 1e-3, "optim.steps": 12}
    config = config_for(tiny_folder("sd15"), pictures, **DROPOUTS, **settings)

    def losses(**changes):
        train(cfg.changed(config, {"machine.cuda_graph": False, **changes}))
        return [event.loss for event in told() if isinstance(event, events.Step) and event.step]

    assert losses(**{"machine.cuda_graph": True}) == pytest.approx(losses(), rel=0.02)


# -- how it learns -----------------------------------------------------------------------------------------------------


def vector_of(pairs):
    return Vector([LowRank("lora", pair) for pair in pairs], torch.float32)


def random_pairs():
    rng = torch.Generator().manual_seed(0)
    shapes = [((3, 6), (8, 3)), ((2, 4, 3, 3), (5, 2, 1, 1)), ((3, 6), (8, 3))]
    pairs = [Pair(*(torch.randn(shape, generator=rng) for shape in both), 1.5) for both in shapes]
    pairs[2] = pairs[2]._replace(up=pairs[2].up * 0.01)
    return pairs


def test_updates_beyond_the_largest_norm_are_cut_to_it_and_others_are_not_touched():
    pairs, limit = random_pairs(), 2.0
    vector = vector_of(pairs)
    limit_norms(vector.adapters, limit)
    for before, low_rank in zip(pairs, vector.adapters, strict=True):
        norm = torch.linalg.norm(delta_weight(before))
        expected = delta_weight(before) * min(limit / norm, 1)
        torch.testing.assert_close(delta_weight(low_rank.pair), expected)
        torch.testing.assert_close(low_rank.down.detach(), before.down * min(limit / norm, 1) ** 0.5)
    assert torch.equal(vector.adapters[2].up.detach(), pairs[2].up)  # a small one, bit for bit
    limit_norms(vector.adapters, 0.5)
    norms = [torch.linalg.norm(delta_weight(low_rank.pair)) for low_rank in vector.adapters]
    torch.testing.assert_close(norms[0], torch.tensor(0.5))


def test_a_run_keeps_to_its_largest_norm_and_says_so(tiny_folder, pictures):
    settings = {"lora.ranks": ONE, "optim.learning_rate": 0.1}
    free, held = (
        config_for(tiny_folder("sd15"), pictures, **settings, **more)
        for more in ({}, {"lora.max_norm": 0.05})
    )
    assert max(norms(train(free))) > 0.1
    path = train(held)
    assert max(norms(path)) == pytest.approx(0.05, rel=1e-4)
    assert read_header(path).metadata["ss_scale_weight_norms"] == "0.05"


def norms(path):
    tensors = load_file(path)
    downs = {key.removesuffix(".lora_down.weight"): t for key, t in tensors.items() if "lora_down" in key}
    pairs = [
        Pair(down, tensors[f"{name}.lora_up.weight"], float(tensors[f"{name}.alpha"]))
        for name, down in downs.items()
    ]
    return [torch.linalg.norm(delta_weight(pair)).item() for pair in pairs]


def test_lora_plus_is_an_optimizer_with_a_faster_group_for_up():
    vector = vector_of(random_pairs())
    theirs = [nn.Parameter(view.clone()) for view in vector.split(vector.values.data)]
    groups = [{"params": theirs[::2]}, {"params": theirs[1::2], "lr": 0.03 * 8}]
    adamw = torch.optim.AdamW(groups, lr=0.03, weight_decay=0.1)
    ours = optim.make("AdamW", [[vector.values]], learning_rate=0.03, weight_decay=0.1, arguments={})
    update = Update(
        vector, ours, max_grad_norm=0, scale=LossScale(False, torch.device("cpu")), plus_ratio=8.0
    )
    for seed in range(3):
        rng = torch.Generator().manual_seed(seed)
        for parameter in theirs:
            parameter.grad = torch.randn(parameter.shape, generator=rng)
        vector.gradient.copy_(vector.join([parameter.grad for parameter in theirs]))
        adamw.step()
        update(0.03)
    for view, parameter in zip(vector.split(vector.values.data), theirs, strict=True):
        torch.testing.assert_close(view, parameter.data, rtol=1e-5, atol=1e-6)


def test_a_run_with_lora_plus_learns_and_resumes(tiny_folder, pictures):
    settings = {"lora.ranks": ONE, "lora.plus_ratio": 8.0, "optim.steps": 2}
    config = config_for(tiny_folder("sd15"), pictures, **settings)
    whole = train(config)
    train(config, stop_at(1))
    assert body(train(config, folder=run.list_runs()[0].folder)) == body(whole)
    plain = load_file(train(cfg.changed(config, {"lora.plus_ratio": 1.0})))
    name = f"{QUERY}.lora_up.weight"
    assert load_file(whole)[name].abs().mean() > 4 * plain[name].abs().mean()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_first_matrix_that_does_not_learn_stays_as_it_began(tiny_folder, pictures, precision):
    settings = {"lora.train_down": False, "machine.precision": precision, "lora.ranks": ONE}
    config = config_for(tiny_folder("sd15"), pictures, **settings)
    path = train(config)
    tensors, began = load_file(path), config.seed
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    start = initial_pair(nn.Linear(32, 32), 2, 1.0, began, name)
    assert torch.equal(tensors[f"{QUERY}.lora_down.weight"], start.down)
    assert tensors[f"{QUERY}.lora_up.weight"].any()
    train(config, stop_at(2))
    assert body(train(config, folder=run.list_runs()[0].folder)) == body(path)


def test_half_of_the_numbers_learn_where_the_first_matrix_does_not(tiny_models):
    parts = tiny_models("sd15").parts()
    learns = layers.inject(
        parts, dict.fromkeys(targets.resolve(parts, "attention", rank=2), 2), 1.0, train_down=False
    )
    vector = Vector((low_rank for _, low_rank in layers.low_ranks(parts)), torch.bfloat16)
    assert sum(parameter.numel() for parameter in learns) == sum(math.prod(shape) for shape in vector.shapes)
    assert {kind for kind in vector.kinds} == {"up"}
