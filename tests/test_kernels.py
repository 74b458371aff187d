"""Whether kernels run is found out, and a device where they don't is told of once."""

import importlib.util

import torch

from lora_sd.models import kernels

CARD = torch.device("cuda", 7)


class Broken:
    trials = 0

    @staticmethod
    def trial(device, dtype):
        Broken.trials += 1
        raise RuntimeError("no C compiler")


class Working:
    @staticmethod
    def trial(device, dtype):
        assert (device, dtype) == (CARD, torch.float16)


def test_only_a_card_with_triton_is_tried(monkeypatch):
    assert not kernels.run(Broken, torch.device("cpu"), torch.float32)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not kernels.run(Broken, CARD, torch.float32)
    assert Broken.trials == 0


def test_kernels_that_work_are_used_and_others_told_of_once(monkeypatch, caplog):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found")
    assert kernels.run(Working, CARD, torch.float16)
    assert not kernels.run(Broken, CARD, torch.float16) and not kernels.run(Broken, CARD, torch.float16)
    assert Broken.trials == 1
    assert [record.getMessage() for record in caplog.records] == [
        "The fast Broken does not run here, so steps take longer: no C compiler"
    ]
