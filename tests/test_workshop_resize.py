"""Shrinking and growing against the dense SVD, to a rank, an energy and a size; and what is told of it."""

import json

import pytest
import safetensors.torch
import torch
from workshop_files import deltas, random_pair, random_pairs, write

from lora_sd import __main__ as cli
from lora_sd.lora.formats import TooLarge
from lora_sd.lora.inspection import inspect
from lora_sd.lora.pairs import Pair, delta_weight
from lora_sd.models.family import FAMILIES
from lora_sd.workshop import resize as module
from lora_sd.workshop.lora_file import open_lora
from lora_sd.workshop.resize import resize

families = pytest.mark.parametrize("family", FAMILIES)
layouts = pytest.mark.parametrize("layout", ["kohya", "peft"])


@pytest.fixture
def source(tmp_path):
    """`source("sdxl")` is a file of random pairs in fp32 and those pairs."""

    def make(family: str, layout: str = "kohya", **options):
        pairs = random_pairs(family, every=80, **options)
        return write(tmp_path / "x.safetensors", pairs, family, layout), pairs

    return make


def assert_close(path, expected, tolerance=1e-5):
    found = deltas(open_lora(path))
    assert found.keys() == expected.keys()
    for name, delta in expected.items():
        assert (found[name] - delta).norm() <= tolerance * delta.norm(), name


@families
@layouts
def test_to_a_rank_it_is_the_dense_svd_cut_there(family, layout, source, tmp_path):
    path, pairs = source(family, layout)
    done = resize(path, tmp_path / "y.safetensors", rank=2)
    expected = {}
    for name, delta in deltas(pairs).items():
        u, s, v = torch.linalg.svd(delta, full_matrices=False)
        expected[name] = (u[:, :2] * s[:2]) @ v[:2]
        assert done.losses[name].part == pytest.approx((s[2:].norm() / s.norm()).item(), rel=1e-3, abs=1e-6)
    assert_close(done.saved.path, expected)
    found = inspect(done.saved.path)
    assert found.layout == layout and found.ranks == {2: len(pairs)} and found.strengths == {1.0: len(pairs)}


@families
@layouts
def test_all_of_the_energy_is_the_update_to_rounding(family, layout, source, tmp_path):
    path, pairs = source(family, layout, alpha=3.0)
    done = resize(path, tmp_path / "y.safetensors", energy=1)
    assert_close(done.saved.path, deltas(pairs), 1e-6)
    assert module.together(done.losses).part < 1e-6


def test_ranks_that_say_nothing_go_at_no_cost(tmp_path):
    """Rank 8 whose last 5 repeat the first 3: at 100 % of the energy 3 are left."""
    generator = torch.Generator().manual_seed(0)
    three = random_pair((30, 40), 3, 3.0, generator)
    mix = torch.randn(3, 8, generator=generator)
    pair = Pair(torch.linalg.pinv(mix) @ three.down, three.up @ mix, 8.0)
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    path = write(tmp_path / "x.safetensors", {name: pair}, "sd15", **{"lora_sd.family": "sd15"})
    done = resize(path, tmp_path / "y.safetensors", energy=1)
    assert done.ranks == {name: 3}
    assert_close(done.saved.path, {name: delta_weight(pair)}, 1e-5)


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.99])
def test_to_an_energy_every_layer_keeps_it_with_the_smallest_rank(energy, source, tmp_path):
    path, pairs = source("sd15", rank=6)
    done = resize(path, tmp_path / "y.safetensors", energy=energy)
    for name, delta in deltas(pairs).items():
        squares = torch.linalg.svdvals(delta).square()
        kept = squares.cumsum(0) / squares.sum()
        assert done.ranks[name] == int((kept < energy).sum()) + 1
        assert 1 - done.losses[name].part ** 2 >= energy - 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_to_a_size_the_file_fits_and_loses_less_than_one_rank_for_all(dtype, source, tmp_path):
    path, _ = source("sdxl", rank=8)
    flat = resize(path, tmp_path / "flat.safetensors", rank=3, dtype=dtype)
    done = resize(path, tmp_path / "y.safetensors", size=flat.saved.size, dtype=dtype)
    assert 0.9 * flat.saved.size < done.saved.path.stat().st_size <= flat.saved.size
    assert module.together(done.losses).lost <= module.together(flat.losses).lost
    assert len(set(done.ranks.values())) > 1


@families
def test_growing_changes_nothing_and_leaves_something_to_learn(family, source, tmp_path):
    path, pairs = source(family)
    done = resize(path, tmp_path / "y.safetensors", rank=9)
    assert_close(done.saved.path, deltas(pairs), 1e-6)
    for pair in open_lora(done.saved.path).values():
        assert pair.rank == 9 and pair.down[4:].any(dim=1).all() and not pair.up[:, 4:].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_alpha_becomes_the_rank_in_every_number_format_and_rounding_is_told(dtype, source, tmp_path):
    path, pairs = source("sd15", alpha=1.0)
    done = resize(path, tmp_path / "y.safetensors", dtype=dtype)
    assert inspect(done.saved.path).strengths == {1.0: len(pairs)}
    lost = module.together(done.losses).part
    half = {torch.float16: (1e-5, 1e-3), torch.bfloat16: (1e-4, 1e-2), torch.float32: (0, 1e-7)}
    assert half[dtype][0] <= lost <= half[dtype][1]
    assert open_lora(done.saved.path).dtype == dtype
    assert_close(done.saved.path, deltas(pairs), max(1e-6, 1.01 * max(x.part for x in done.losses.values())))


def test_one_alpha_for_layers_of_different_ranks_as_diffusers_needs_it(source, tmp_path):
    path, _ = source("sd15", rank=6)
    done = resize(path, tmp_path / "y.safetensors", energy=0.7)
    file = open_lora(done.saved.path)
    assert len(set(done.ranks.values())) > 1 and len({file.alpha(name) for name in file}) == 1


def test_the_header_tells_the_new_rank_and_keeps_the_rest(tmp_path):
    pairs = random_pairs("sd15", every=60)
    metadata = {
        "ss_output_name": "cat",
        "ss_network_dim": "4",
        "ss_network_args": '{"conv_dim": "4"}',
        "sshs_model_hash": "old",
        "lora_adapter_metadata": '{"unet.r": 4}',
        "ss_base_model_version": "sd_v1_v",
    }
    path = write(tmp_path / "x.safetensors", pairs, "sd15", **metadata)
    done = resize(path, tmp_path / "y.safetensors", rank=2)
    with safetensors.safe_open(done.saved.path, "pt") as file:
        told = file.metadata()
    assert (told["ss_output_name"], told["ss_network_dim"], told["ss_network_alpha"]) == ("cat", "2", "2.0")
    assert json.loads(told["ss_network_args"])["conv_dim"] == "2"
    assert told["ss_base_model_version"] == "sd_v1_v" and "lora_adapter_metadata" not in told
    assert len(told["sshs_model_hash"]) == 64


def test_tensors_of_no_known_layer_are_told(source, tmp_path, capsys):
    path, _ = source("sd15")
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file({**tensors, "lora_unet_nose.lora_up.weight": torch.ones(2, 2)}, path)
    assert cli.main(["resize", str(path), str(tmp_path / "y.safetensors"), "--rank", "2"]) == 0
    assert cli.main(["analyse", str(path)]) == 0
    told = "1 tensors of x.safetensors belong to no layer that is known and are left out: lora_unet_nose"
    assert capsys.readouterr().out.count(told) == 2


def test_the_same_input_gives_the_same_bytes(source, tmp_path):
    path, _ = source("sd15")
    for name in ("a", "b"):
        resize(path, tmp_path / f"{name}.safetensors", rank=6)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_numbers_beyond_fp16_are_told_and_nothing_is_written(source, tmp_path):
    path, pairs = source("sd15")
    big = {name: pair._replace(up=pair.up * 1e9) for name, pair in pairs.items()}
    write(path, big, "sd15")
    with pytest.raises(TooLarge, match="choose bf16 or fp32"):
        resize(path, tmp_path / "y.safetensors", dtype=torch.float16)
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_the_command_writes_the_same_bytes_as_python(source, tmp_path, capsys):
    path, _ = source("sd15")
    resize(path, tmp_path / "a.safetensors", energy=0.8)
    words = ["resize", str(path), str(tmp_path / "b.safetensors"), "--energy", "0.8"]
    assert cli.main(words) == 0
    assert "its energy is kept); most in " in capsys.readouterr().out
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_bad_inputs_are_sentences(source, tmp_path, capsys):
    path, _ = source("sd15")
    out = str(tmp_path / "y.safetensors")
    for words, sentence in [
        ([out, "--rank", "0"], "The rank is 0; it must be at least 1."),
        ([out, "--energy", "95"], "The energy is 95; it must be above 0 and at most 1"),
        ([out, "--size", "0.001"], "allow a larger file"),
        ([out, "--rank", "2", "--size", "1"], "not allowed with argument"),
        ([str(path), "--rank", "2"], "would replace what it is made from"),
        (["y.bin", "--rank", "2"], "must end in .safetensors"),
        ([out, "--dtype", "fp8"], "invalid choice: 'fp8'"),
    ]:
        assert cli.main(["resize", str(path), *words]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "y.safetensors").exists()
