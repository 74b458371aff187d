"""The table behind the prediction of memory is what the real shapes take, counted without a card."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lora_sd.footprint import (
    DORA,
    FILL,
    FOOTPRINTS,
    LATENT_SIDE,
    RUNGS,
    Footprint,
    Needs,
    choose_rung,
    predict,
)
from lora_sd.models.family import FAMILIES, SD15, SDXL

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import footprint
import make_images
import memory

GB = 2**30
FAST, LOW, LOWEST = RUNGS
REMEDY = "the step changed: paste what `python benchmarks/memory.py --count` prints into lora_sd/footprint.py"


def test_alive_counts_what_is_held_at_once():
    """1 MiB before; two more at the peak (the product and its exponential), one of them left at the end."""
    there = torch.zeros(256, 1024, device="meta")
    with footprint.Alive([there]) as alive:
        product = there * 2
        left = product.exp()
        del product
        left.view(-1).add_(1)
    assert (alive.before, alive.peak, alive.now) == (2**20, 3 * 2**20, 2 * 2**20)


def test_alive_sees_what_the_backward_pass_needs():
    """The input of exp is not kept, its result is: 1 MiB for each of ten, and one gradient beside them."""
    layers = nn.Sequential(*(Exponential() for _ in range(10)))
    x = torch.zeros(256, 1024, device="meta", requires_grad=True)
    with footprint.Alive([x]) as alive:
        layers(x).sum().backward()
    assert 11 * 2**20 <= alive.peak - alive.before <= 12 * 2**20 + 1024


class Exponential(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.exp()


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_and_adapters_of_the_table_are_the_real_ones(family):
    counted, table = footprint.weights(FAMILIES[family]), FOOTPRINTS[family]
    for name in ("unet", "packed", "text", "adapters", "text_adapters"):
        assert getattr(counted, name) == getattr(table, name), name


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_what_a_pass_keeps_is_what_the_table_says(rung):
    counted = footprint.unet_pass(SD15, "transformer", rung, side=64) / 64**2
    assert counted == pytest.approx(FOOTPRINTS["sd15"].kept["transformer"][RUNGS.index(rung)], rel=0.03), (
        REMEDY
    )


def test_dora_keeps_as_many_times_more_as_the_table_says():
    counted = footprint.unet_pass(SD15, "transformer", LOW, side=64, dora=True) / 64**2
    assert counted / FOOTPRINTS["sd15"].kept["transformer"][1] == pytest.approx(
        DORA["transformer"][1], rel=0.03
    )


def test_a_pass_grows_in_step_with_pictures_and_pixels():
    one = footprint.unet_pass(SD15, "attention", FAST, side=64)
    four_of_a_quarter = footprint.unet_pass(SD15, "attention", FAST, side=32, batch=4)
    assert four_of_a_quarter == pytest.approx(one, rel=0.02)


def test_learning_text_encoders_keep_what_the_table_says():
    assert footprint.text_pass(SD15) == pytest.approx(FOOTPRINTS["sd15"].text_kept, rel=0.03), REMEDY


# GiB reserved on one H100 by a step in one CUDA graph with diffusers' own blocks, rank 16 on the transformer layers
MEASURED = {
    SD15: {1: 3.3, 4: 6.2, 8: 10.0},
    SDXL: {1: 13.4, 4: 32.9},
}


@pytest.mark.parametrize(
    "family", [SD15, pytest.param(SDXL, marks=pytest.mark.slow)], ids=lambda family: family.name
)
def test_the_prediction_is_what_was_measured_of_plain_blocks(family, monkeypatch):
    side = family.resolution // LATENT_SIDE
    plain = footprint.unet_pass(family, "transformer", FAST, side=side, plain=True) / side**2
    row = FOOTPRINTS[family.name]._replace(kept={"transformer": (plain, 0, 0)})
    monkeypatch.setitem(FOOTPRINTS, family.name, row)
    for batch, gigabytes in MEASURED[family].items():
        needs = Needs(family.name, family.resolution**2, batch, 16, "transformer", text_encoders=False)
        assert predict(needs, FAST) / GB == pytest.approx(gigabytes, rel=0.05)


def test_a_counted_row_is_python_that_gives_the_row():
    row = FOOTPRINTS["sdxl"]
    assert eval("{" + footprint.as_python("sdxl", row) + "}", {"Footprint": Footprint}) == {"sdxl": row}


def test_without_a_card_the_predictions_are_shown_and_nothing_is_measured(tiny_folder, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    memory.main(["--model", str(tiny_folder("sd15")), "--resolution", "512", "--batch", "1", "4"])
    shown = capsys.readouterr().out
    assert "nothing is measured" in shown
    needs = Needs("sd15", 512**2, 4, 16, "transformer", text_encoders=False)
    assert all(f"{predict(needs, rung) / GB:.2f}" in shown for rung in RUNGS)


def test_a_run_of_the_benchmark_trains_on_the_rung_and_tells_its_peak(tiny_folder, tmp_path):
    make_images.write(tmp_path, 2, 128)
    run = memory.Run(str(tiny_folder("sd15")), str(tmp_path), 128, 2, "lowest")
    assert memory.measured(run) > 2**20


ONE_SD15 = Needs("sd15", 512**2, 1, 16, "transformer", text_encoders=False)
ONE_SDXL = Needs("sdxl", 1024**2, 1, 16, "transformer", text_encoders=False)


@pytest.mark.parametrize("family", FOOTPRINTS)
@pytest.mark.parametrize("targets", ["attention-qv", "attention", "transformer", "full"])
def test_every_rung_takes_less_than_the_one_before(family, targets):
    needs = Needs(family, 512**2, 2, 32, targets, text_encoders=True)
    fast, low, lowest = (predict(needs, rung) for rung in RUNGS)
    assert fast > low > lowest


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
@pytest.mark.parametrize(
    "more",
    [{"pixels": 768**2}, {"batch_size": 2}, {"rank": 32}, {"targets": "full"}, {"text_encoders": True}, {"bytes_per_weight": 4}, {"dora": True}],
    ids=lambda more: next(iter(more)),
)  # fmt: skip
def test_more_of_anything_takes_more_memory(rung, more):
    needs = ONE_SD15._replace(**more)
    assert predict(needs, rung) - predict(ONE_SD15, rung) > 2**20


def test_the_lowest_rung_is_small():
    assert predict(ONE_SD15, LOWEST) < 2.5 * GB
    assert predict(ONE_SDXL, LOWEST) < 6 * GB


def test_the_fastest_rung_that_fits_is_chosen_and_else_the_last():
    for rung in RUNGS:
        enough = int(predict(ONE_SDXL, rung) / FILL) + 1
        assert choose_rung(enough, ONE_SDXL) == rung
        assert choose_rung(enough - 2**20, ONE_SDXL) != rung or rung == LOWEST
    assert choose_rung(0, ONE_SDXL) == LOWEST


def test_a_card_of_4_gb_trains_sd15_and_one_of_8_gb_sdxl():
    """With half a gigabyte for the driver."""
    assert predict(ONE_SD15, choose_rung(int(3.5 * GB), ONE_SD15)) < 3.5 * GB
    assert predict(ONE_SDXL, choose_rung(int(7.5 * GB), ONE_SDXL)) < 7.5 * GB
