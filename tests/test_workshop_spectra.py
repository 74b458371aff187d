"""Spectra in rank space are those of the dense matrix."""

import pytest
import torch
from workshop_files import random_pair

from lora_sd.lora.pairs import Pair, delta_weight
from lora_sd.workshop import spectra

SHAPES = [
    (40, 24),
    (12, 9),
    (3, 50),
    (16, 8, 3, 3),
    (20, 12, 1, 1),
]  # out, in; with ranks below and above the sides
of_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def pair_of(shape: tuple[int, ...], rank: int = 10, seed: int = 0) -> Pair:
    return random_pair(shape, rank, 7.0, torch.Generator().manual_seed(seed))


def dense(pair: Pair) -> torch.Tensor:
    return delta_weight(Pair(pair.down.double(), pair.up.double(), pair.alpha)).double()


@of_shape
def test_singular_values_are_the_dense_ones(shape):
    expected = torch.linalg.svdvals(dense(pair_of(shape)))
    found = spectra.singular_values(pair_of(shape))
    assert len(found) == min(10, *dense(pair_of(shape)).shape)
    torch.testing.assert_close(found, expected[: len(found)], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(spectra.decompose(pair_of(shape)).values, found)


@of_shape
def test_the_parts_make_the_whole_and_are_orthonormal(shape):
    pair = pair_of(shape)
    left, values, right = spectra.decompose(pair)
    torch.testing.assert_close(left @ values.diag() @ right, dense(pair), rtol=1e-5, atol=1e-4)
    for rows in (left.T, right):
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows), dtype=torch.float64))


@of_shape
@pytest.mark.parametrize("rank", [1, 3])
def test_cut_to_a_rank_it_is_the_dense_svd_cut_there(shape, rank):
    pair = pair_of(shape)
    cut = spectra.truncated(spectra.decompose(pair), rank, pair.down.shape[1:])
    u, s, v = torch.linalg.svd(dense(pair), full_matrices=False)
    torch.testing.assert_close(
        delta_weight(cut).double(), u[:, :rank] @ s[:rank].diag() @ v[:rank], rtol=1e-4, atol=1e-4
    )
    assert (cut.rank, cut.alpha, cut.down.shape[1:]) == (rank, rank, pair.down.shape[1:])
    assert cut.up.shape == (shape[0], rank, *(1,) * (len(shape) - 2))


@of_shape
def test_products_and_distances_are_the_dense_ones(shape):
    a, b = pair_of(shape), pair_of(shape, rank=4, seed=1)
    assert spectra.inner(a, b) == pytest.approx((dense(a) * dense(b)).sum().item(), rel=1e-5)
    assert spectra.distance(a, b) == pytest.approx((dense(a) - dense(b)).norm().item(), rel=1e-5)
    assert spectra.distance(a, a) <= 1e-6 * dense(a).norm()


def test_effective_rank_counts_equal_values_and_not_the_small_ones():
    assert spectra.effective_rank(torch.tensor([2.0, 2, 2, 2, 0, 0])) == pytest.approx(4)
    assert spectra.effective_rank(torch.tensor([1.0, 1e-9, 1e-9])) == pytest.approx(1, abs=1e-6)
    assert spectra.effective_rank(torch.zeros(4)) == 0
    values = torch.tensor([3.0, 2, 1])
    shares = values / 6
    assert spectra.effective_rank(values) == pytest.approx(torch.exp(-(shares * shares.log()).sum()).item())


def test_the_rank_for_an_energy_is_the_smallest_that_keeps_it():
    values = torch.tensor([3.0, 2, 1, 0], dtype=torch.float64)  # energies 9, 4, 1 of 14
    energies = [(0.0, 1), (9 / 14 - 1e-9, 1), (9 / 14 + 1e-9, 2), (13 / 14 - 1e-9, 2), (0.999, 3), (1.0, 3)]
    assert [spectra.rank_for(values, energy) for energy, _ in energies] == [rank for _, rank in energies]
    assert spectra.rank_for(torch.zeros(5), 0.9) == spectra.rank_for(torch.zeros(5), 1) == 1


def test_a_layer_that_has_not_learnt_is_zero_and_finite():
    pair = pair_of((40, 24))._replace(up=torch.zeros(40, 10))
    cut = spectra.truncated(spectra.decompose(pair), 4, pair.down.shape[1:])
    assert not spectra.singular_values(pair).any() and not delta_weight(cut).any()
