"""Combined LoRAs against sums of dense ΔW, the papers' methods as peft has them, and the sampler that stacks files."""

import pytest
import torch
from workshop_files import deltas, random_pair, random_pairs, write

from lora_sd import __main__ as cli
from lora_sd.lora import formats
from lora_sd.lora.blocks import block_of
from lora_sd.lora.layers import attach, detach
from lora_sd.lora.pairs import delta_weight
from lora_sd.models.family import FAMILIES
from lora_sd.workshop import combine as module
from lora_sd.workshop.combine import Source, combine
from lora_sd.workshop.lora_file import open_lora
from lora_sd.workshop.resize import together

families = pytest.mark.parametrize("family", FAMILIES)
Q = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture
def three(tmp_path):
    """`three("sdxl")`: files of different ranks, alphas, layers and layouts, with their pairs."""

    def make(family: str):
        made = []
        for index, (rank, alpha, layout) in enumerate(
            [(4, 2.0, "kohya"), (3, 3.0, "peft"), (6, 1.0, "kohya")]
        ):
            pairs = random_pairs(family, rank=rank, alpha=alpha, seed=index, every=[80, 60, 90][index])
            made.append((write(tmp_path / f"{index}.safetensors", pairs, family, layout), pairs))
        return made

    return make


def summed(weighted) -> dict[str, torch.Tensor]:
    total: dict[str, torch.Tensor] = {}
    for pairs, weight in weighted:
        for name, delta in deltas(pairs).items():
            total[name] = total.get(name, 0) + weight * delta
    return total


def assert_close(path, expected, tolerance=1e-5):
    found = deltas(open_lora(path))
    assert found.keys() == expected.keys()
    for name, delta in expected.items():
        assert (found[name] - delta).norm() <= tolerance * delta.norm() + 1e-6, name


@families
@pytest.mark.parametrize("layout", ["kohya", "peft"])
def test_a_sum_is_the_sum_of_updates_and_ranks_add(family, layout, three, tmp_path):
    files, weights = three(family), [1.0, -0.5, 0.7]
    sources = [Source(path, weight) for (path, _), weight in zip(files, weights, strict=True)]
    done = combine(sources, tmp_path / "y.safetensors", layout=layout)
    assert_close(done.saved.path, summed(zip([p for _, p in files], weights, strict=True)))
    assert together(done.losses).part < 1e-6
    for name, rank in done.ranks.items():
        assert rank == sum(pairs[name].rank for _, pairs in files if name in pairs)


@families
def test_an_average_is_the_average_of_updates(family, three, tmp_path):
    files = three(family)[:2]
    done = combine([Source(path) for path, _ in files], tmp_path / "y.safetensors", method="average")
    assert_close(done.saved.path, summed((pairs, 0.5) for _, pairs in files))
    thirds = [Source(files[0][0], 2), Source(files[1][0], 1)]
    done = combine(thirds, tmp_path / "y.safetensors", method="average")
    assert_close(done.saved.path, summed(zip([p for _, p in files], [2 / 3, 1 / 3], strict=True)))


def test_two_of_one_kind_are_put_together_number_for_number(tmp_path):
    """Also in fp16: nothing is rounded a second time."""
    for name, seed in (("a", 0), ("b", 1)):
        halves = {
            n: p._replace(down=p.down.half().float(), up=p.up.half().float())
            for n, p in random_pairs("sd15", seed=seed, alpha=3.0).items()
        }
        write(tmp_path / f"{name}.safetensors", halves, "sd15")
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    done = combine([Source(p) for p in paths], tmp_path / "y.safetensors", dtype=torch.float16)
    a, b, both = map(open_lora, [*paths, done.saved.path])
    for name in both:
        assert torch.equal(both[name].down, torch.cat([a[name].down, b[name].down]))
        assert torch.equal(both[name].up, torch.cat([a[name].up, b[name].up], 1))
    assert together(done.losses).lost == 0


def test_what_is_taken_from_itself_is_nothing(three, tmp_path):
    path, _ = three("sd15")[0]
    done = combine([Source(path), Source(path, -1)], tmp_path / "y.safetensors", rank=2)
    assert all(delta.norm() < 1e-5 for delta in deltas(open_lora(done.saved.path)).values())


@pytest.mark.parametrize("cut", [{"rank": 5}, {"energy": 0.9}])
def test_cut_it_is_the_dense_svd_of_the_sum(cut, three, tmp_path):
    files = three("sd15")
    done = combine([Source(path) for path, _ in files], tmp_path / "y.safetensors", **cut)
    expected = {}
    for name, delta in summed((pairs, 1.0) for _, pairs in files).items():
        u, s, v = torch.linalg.svd(delta, full_matrices=False)
        k = done.ranks[name]
        expected[name] = (u[:, :k] * s[:k]) @ v[:k]
        assert done.losses[name].part == pytest.approx((s[k:].norm() / s.norm()).item(), rel=1e-3, abs=1e-5)
    assert_close(done.saved.path, expected, 1e-4)


def test_weights_of_blocks_are_factors_of_their_layers(three, tmp_path):
    (first, a), (second, b), _ = three("sd15")
    sources = [Source(first, 1.0, {"TE1": 0, "IN*": 0.5}), Source(second, 0.5, {"IN*": 0})]
    done = combine(sources, tmp_path / "y.safetensors")
    expected = {}
    for pairs, weight, factors in ((a, 1.0, {"TE": 0, "IN": 0.5}), (b, 0.5, {"IN": 0})):
        for name, delta in deltas(pairs).items():
            factor = factors.get(block_of(name, FAMILIES["sd15"])[:2], 1.0)
            if factor:
                expected[name] = expected.get(name, 0) + weight * factor * delta
    assert_close(done.saved.path, expected)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
@torch.no_grad()
def test_stacked_in_the_model_they_do_what_the_combined_file_does(family, tiny_models, tmp_path):
    from test_formats import random_pairs as of_model
    from test_formats import text_output, unet_output

    models = tiny_models(family)
    parts, paths, strengths = models.parts(), [], (0.7, -0.4)
    for index, rank in enumerate((2, 5)):
        pairs = of_model(models, rank=rank, scale=0.25 * (index + 1))
        paths.append(tmp_path / f"{index}.safetensors")
        metadata = {"lora_sd.family": family}
        formats.save(paths[-1], pairs, models.family, metadata=metadata, dtype=torch.float32)
    done = combine([Source(*item) for item in zip(paths, strengths, strict=True)], tmp_path / "y.safetensors")

    def outputs():
        pooled = models.text_encoders[-1].config.projection_dim
        return [unet_output(models.unet, pooled), *map(text_output, models.text_encoders)]

    for path, strength in zip(paths, strengths, strict=True):
        pairs = formats.load(path, parts, models.family).pairs
        attach(parts, pairs, adapter=path.name, strength=strength)
    stacked = outputs()
    for path in paths:
        detach(parts, path.name)
    attach(parts, formats.load(done.saved.path, parts, models.family).pairs, adapter="both")
    for ours, theirs in zip(outputs(), stacked, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


# -- TIES and DARE -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_ties_is_pefts_on_dense_updates(density):
    from peft.utils.merge_utils import ties

    generator = torch.Generator().manual_seed(0)
    found = [delta_weight(random_pair((30, 20), 4, 4.0, generator)) for _ in range(3)]
    theirs = ties(found, torch.ones(3), density, majority_sign_method="total")
    torch.testing.assert_close(module.ties(found, density), theirs)


def test_dare_drops_and_rescales_by_seed_and_keeps_the_mean():
    delta = torch.ones(400, 500)
    found = module.dare([delta], 0.25, [0])
    assert set(found.unique().tolist()) == {0.0, 4.0} and found.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(found, module.dare([delta], 0.25, [0]))
    assert not torch.equal(found, module.dare([delta], 0.25, [1]))
    assert torch.equal(module.dare([delta, delta], 1.0, [0, 1]), 2 * delta)


@pytest.mark.parametrize("method", ["ties", "dare"])
def test_they_are_kept_at_a_rank_as_near_as_can_be_and_the_error_is_told(method, tmp_path):
    generator, paths, found = torch.Generator().manual_seed(0), [], []
    for index in range(2):
        pair = random_pair((90, 120), 3, 3.0, generator)
        paths.append(
            write(tmp_path / f"{index}.safetensors", {Q: pair}, "sd15", **{"lora_sd.family": "sd15"})
        )
        found.append(delta_weight(pair) * (index + 1))
    done = combine(
        [Source(paths[0]), Source(paths[1], 2)],
        tmp_path / "y.safetensors",
        method=method,
        density=0.4,
        rank=5,
    )
    seeds = [module.stable_seed(0, f"{number} {Q}") for number in range(2)]
    whole = module.ties(found, 0.4) if method == "ties" else module.dare(found, 0.4, seeds)
    s = torch.linalg.svdvals(whole)
    best = (s[5:].norm() / s.norm()).item()
    assert done.losses[Q].part == pytest.approx(best, rel=0.02)
    told = (deltas(open_lora(done.saved.path))[Q] - whole).norm() / whole.norm()
    assert told.item() == pytest.approx(done.losses[Q].part, rel=1e-3)
    full = combine([Source(p) for p in paths], tmp_path / "z.safetensors", method=method, rank=90)
    assert full.losses[Q].part < 1e-5


# -- files and the command -----------------------------------------------------------------------------------------------


def test_the_header_names_what_it_was_made_of_and_all_trigger_words(tmp_path):
    for name in ("cat", "dog"):
        pairs = random_pairs("sd15", every=90)
        metadata = {
            "modelspec.trigger_phrase": f"my{name}",
            "ss_tag_frequency": "{}",
            "ss_base_model_version": "sd_v1",
        }
        write(tmp_path / f"{name}.safetensors", pairs, "sd15", **metadata)
    done = combine(
        [Source(tmp_path / f"{n}.safetensors") for n in ("cat", "dog")], tmp_path / "y.safetensors"
    )
    told = open_lora(done.saved.path).metadata
    assert told["modelspec.merged_from"] == "cat, dog" and told["modelspec.trigger_phrase"] == "mycat, mydog"
    assert told["ss_output_name"] == told["modelspec.title"] == "y"
    assert "ss_tag_frequency" not in told and told["ss_network_dim"] == "8"


def test_the_command_writes_the_same_bytes_as_python(three, tmp_path, capsys):
    a, b = (str(path) for path, _ in three("sd15")[:2])
    combine([Source(a, 0.8, {"OUT*": 0.5}), Source(b, -1)], tmp_path / "one" / "a.safetensors", rank=4)
    out = str(tmp_path / "a.safetensors")
    assert cli.main(["combine", out, f"{a}:0.8", f"{b}:-1", "--blocks", "1:OUT*=0.5", "--rank", "4"]) == 0
    assert "of rank " in capsys.readouterr().out
    assert (tmp_path / "one" / "a.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


def test_bad_inputs_are_sentences(three, tmp_path, capsys):
    a, b = (str(path) for path, _ in three("sd15")[:2])
    other = str(write(tmp_path / "xl.safetensors", random_pairs("sdxl", every=90), "sdxl"))
    wide = {
        n: random_pair((90, p.down[0].numel()), 2, 2.0, torch.Generator())
        for n, p in random_pairs("sd15").items()
    }
    wider = str(write(tmp_path / "wide.safetensors", {n: p for n, p in wide.items() if "attn2" in n}, "sd15"))
    for words, sentence in [
        ([a, other], "no layers in common"),
        ([a, wider], "made for different base models"),
        ([a, f"{b}:-1", "--method", "average"], "add up to 0"),
        ([f"{a}:0"], "Every weight is 0"),
        ([f"{a}:nan"], "The weight of 0.safetensors is nan"),
        ([a, b, "--rank", "0"], "The rank is 0"),
        ([a, b, "--method", "ties", "--energy", "0.9"], "give a rank instead of an energy"),
        ([a, b, "--method", "ties", "--density", "0"], "The density is 0"),
        ([a, b, "--blocks", "NOSE=1"], "No block or layer is named 'NOSE'"),
        ([a, b, "--blocks", "OUT"], "write it as OUT*=0.5"),
    ]:
        assert cli.main(["combine", str(tmp_path / "y.safetensors"), *words]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "y.safetensors").exists()
