"""The analysis of a file against dense matrices, by layer, block and whole; and two LoRAs beside each other."""

import json

import pytest
import torch
from workshop_files import deltas, random_pair, random_pairs, write

from lora_sd import __main__ as cli
from lora_sd.lora import blocks
from lora_sd.lora.pairs import Pair, delta_weight
from lora_sd.models.family import FAMILIES, SD15, SDXL
from lora_sd.workshop import similarity
from lora_sd.workshop.analysis import analyse, analyse_file
from lora_sd.workshop.checkpoint import open_checkpoint
from lora_sd.workshop.randomised import top_directions

LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.mark.parametrize("family", FAMILIES)
def test_norms_and_energies_are_the_dense_ones(family):
    pairs = random_pairs(family, every=60)
    found, whole = analyse(pairs, FAMILIES[family]), deltas(pairs)
    assert found.norm == pytest.approx(sum(d.square().sum().item() for d in whole.values()) ** 0.5, rel=1e-5)
    values = {name: torch.linalg.svdvals(delta) for name, delta in whole.items()}
    kept = [sum(v[:k].square().sum().item() for v in values.values()) / found.norm**2 for k in range(1, 5)]
    assert found.energies().tolist() == pytest.approx(kept, rel=1e-5)
    assert found.numbers() == sum(p.down.numel() + p.up.numel() for p in pairs.values())
    assert sum(b.share for b in found.by_block().values()) == pytest.approx(1)
    assert sum(b.layers for b in found.by_block().values()) == len(pairs)


def test_blocks_have_the_names_of_block_weights():
    named = {
        ("unet.conv_in", SD15): "IN00",
        ("unet.down_blocks.0.attentions.1.proj_in", SD15): "IN02",
        ("unet.down_blocks.2.downsamplers.0.conv", SD15): "IN09",
        ("unet.mid_block.resnets.1.conv1", SD15): "MID",
        ("unet.up_blocks.0.upsamplers.0.conv", SD15): "OUT02",
        ("unet.up_blocks.3.attentions.2.proj_in", SD15): "OUT11",
        ("unet.time_embedding.linear_1", SDXL): "EMB",
        ("unet.conv_out", SDXL): "OUT",
        ("unet.up_blocks.1.attentions.2.proj_in", SDXL): "OUT05",
        ("text_encoder.text_model.encoder.layers.0.mlp.fc1", SDXL): "TE1",
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", SDXL): "TE2",
    }
    assert {key: blocks.block_of(*key) for key in named} == named


def test_weights_by_block_or_layer_and_the_last_pattern_decides():
    layers = [
        "unet.mid_block.resnets.0.conv1",
        "unet.up_blocks.0.resnets.0.conv1",
        "unet.up_blocks.0.resnets.0.conv2",
    ]
    weights = blocks.weights_of(layers, SD15, {"OUT*": 0.5, "*.conv2": 0.25})
    assert list(weights.values()) == [1, 0.5, 0.25]
    with pytest.raises(ValueError, match=r"No block or layer is named 'IN01'; the blocks are MID, OUT00\."):
        blocks.weights_of(layers, SD15, {"IN01": 0})


def test_what_it_uses_and_the_size_that_would_save(tmp_path):
    """Rank 32 of which 6 are strong is what the issue's sentence is about."""
    pairs = {}
    for name, pair in random_pairs("sd15", rank=32, alpha=32, every=10).items():
        left, right = torch.linalg.qr(pair.up.flatten(1)).Q, torch.linalg.qr(pair.down.flatten(1).T).Q.T
        k = min(left.shape[1], right.shape[0])
        sizes = torch.tensor([1.0] * 6 + [0.01] * 26)[:k]
        up, down = torch.zeros(len(pair.up), 32), torch.zeros(32, pair.down[0].numel())
        up[:, :k], down[:k] = left[:, :k] * sizes, right[:k]
        pairs[name] = Pair(down.view_as(pair.down), up.view_as(pair.up), 32.0)
    path = write(tmp_path / "x.safetensors", pairs, "sd15")
    report = analyse_file(path)
    assert report.analysis.rank_for() == 6
    assert report.sentence().startswith(
        "This rank-32 LoRA uses about 6: rank 6 keeps 99% of its energy and would take "
    )
    cut = {n: Pair(p.down[:6].clone(), p.up[:, :6].clone(), 6.0) for n, p in pairs.items()}
    small = write(tmp_path / "small.safetensors", cut, "sd15")
    assert report.size_at(6) == pytest.approx(small.stat().st_size, rel=0.02)


# -- two LoRAs, and one with its base ----------------------------------------------------------------------------------


def test_similarity_is_equation_4_of_the_paper():
    a, b = (random_pair((30, 20), 6, 6.0, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    u_a, u_b = (torch.linalg.svd(delta_weight(p)).Vh[:6].T for p in (a, b))  # right-singular vectors of ΔW
    phi = similarity.subspace_similarity(similarity.directions(a), similarity.directions(b))
    for i, j in ((1, 1), (2, 5), (6, 3), (6, 6)):
        expected = (u_a[:, :i].T @ u_b[:, :j]).square().sum() / min(i, j)
        assert phi[i - 1, j - 1].item() == pytest.approx(expected.item(), rel=1e-3)
    of_down = torch.linalg.svd(a.down).Vh[:6].double()
    torch.testing.assert_close(similarity.directions(a, "down").abs(), of_down.abs(), rtol=1e-3, atol=1e-4)


def test_similarity_of_an_update_with_itself_is_1_however_it_is_split():
    a = random_pair((30, 20), 4, 4.0, torch.Generator().manual_seed(0))
    mix = torch.randn(4, 4, generator=torch.Generator().manual_seed(1)) + 3 * torch.eye(4)
    b = Pair(mix @ a.down, a.up @ torch.linalg.inv(mix), a.alpha)
    phi = similarity.subspace_similarity(similarity.directions(a), similarity.directions(b))
    torch.testing.assert_close(phi.diag(), torch.ones(4, dtype=torch.float64), rtol=1e-4, atol=1e-4)
    relation = similarity.relate(a, b)
    assert relation.cosine == pytest.approx(1, abs=1e-6) and relation.change < 1e-4


def test_similarity_of_random_directions_is_what_chance_gives():
    generator = torch.Generator().manual_seed(0)
    drawn = [similarity.directions(random_pair((50, 60), 12, 1.0, generator)) for _ in range(40)]
    phi = torch.stack(
        [similarity.subspace_similarity(a, b) for a, b in zip(drawn[::2], drawn[1::2], strict=True)]
    )
    assert phi.mean(0)[3, 11].item() == pytest.approx(similarity.chance(4, 12, 60), rel=0.1)


def test_amplification_is_the_papers_ratio_of_norms():
    generator = torch.Generator().manual_seed(0)
    weight, pair = torch.randn(90, 70, generator=generator), random_pair((90, 70), 5, 5.0, generator)
    found = similarity.amplification(pair, weight, 3)
    u, s, v = torch.linalg.svd(delta_weight(pair))
    own = (u[:, :3].T @ weight @ v[:3].T).norm()
    assert found.factor == pytest.approx((s[:3].norm() / own).item(), rel=1e-3)
    assert found.top == pytest.approx(torch.linalg.svdvals(weight)[:3].norm().item(), rel=1e-2)
    assert found.base == pytest.approx(weight.norm().item(), rel=1e-5)
    assert found.random < found.top


def test_top_directions_are_the_dense_ones():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(200, 150, generator=generator) @ torch.diag(0.9 ** torch.arange(150.0))
    u, s, v = torch.linalg.svd(matrix)
    left, values, right = top_directions(matrix, 8)
    torch.testing.assert_close(values, s[:8], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close((left * values) @ right, (u[:, :8] * s[:8]) @ v[:8], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("family", ["sdxl"])
def test_the_base_models_weights_are_read_without_a_model(family, tiny_models, tiny_folder):
    from lora_sd.lora.layers import named_layers

    base = open_checkpoint(str(tiny_folder(family)))
    layers = named_layers(tiny_models(family).parts())
    assert base.places.keys() == layers.keys() - {"text_encoder_2.text_projection"}
    assert all(torch.equal(base.weight(name), layers[name].weight) for name in base.places)


# -- the command -----------------------------------------------------------------------------------------------------


def test_analyse_tells_of_one_two_and_the_base(tmp_path, capsys, starter):
    from lora_sd.lora import formats, layers

    torch.manual_seed(0)
    for name in ("a", "b"):
        parts = starter.parts()
        named = layers.named_layers(parts)
        pairs = {
            n: random_pair(named[n].weight.shape, 4, 4.0, torch.Generator().manual_seed(ord(name)))
            for n in [LAYER]
        }
        formats.save(tmp_path / name, pairs, SD15, metadata={"lora_sd.family": "sd15"})
    one, two = str(tmp_path / "a"), str(tmp_path / "b")
    assert cli.main(["analyse", one, two, "--base", "starter", "--layers"]) == 0
    told = capsys.readouterr().out
    assert (
        "uses about 4" in told
        and "MID" in told
        and LAYER in told
        and "by chance" in told
        and "factor" in told
    )
    assert cli.main(["analyse", one, one, "--json", "--base", "starter"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["compared"][LAYER]["cosine"] == pytest.approx(1) and table["uses"] == 4
    assert len(table["layers"][LAYER]["singular_values"]) == 4 and table["amplification"][LAYER]["factor"] > 0


def test_bad_inputs_of_analyse_are_sentences(tmp_path, capsys):
    a = write(tmp_path / "a.safetensors", random_pairs("sd15", every=100), "sd15")
    b = write(tmp_path / "b.safetensors", random_pairs("sdxl", every=100), "sdxl")
    for words, sentence in [
        ([a, b], "no layers in common"),
        ([a, "--base", "starter"], "is not the base model of this LoRA"),
        ([a, "--directions", "0"], "--directions is 0"),
        (["nowhere.safetensors"], "There is no file at"),
        ([], "the following arguments are required: file"),
    ]:
        assert cli.main(["analyse", *map(str, words)]) == 2
        assert sentence in capsys.readouterr().err
