import shutil
from types import SimpleNamespace

import pytest

from lora_sd import doctor, hardware, torch_build
from lora_sd.doctor import Check
from lora_sd.hardware import Device

GB = 2**30


@pytest.fixture
def card_here(monkeypatch):
    monkeypatch.setattr(hardware, "nvidia_cards", lambda: [Device("cuda", "NVIDIA A", 24 * GB, 20 * GB)])
    monkeypatch.setattr(hardware, "nvidia_driver", lambda: "580.65")


@pytest.fixture
def no_card(monkeypatch):
    monkeypatch.setattr(hardware, "nvidia_cards", list)


def test_a_machine_that_runs_the_tests_can_train(capsys):
    assert doctor.main() == 0
    printed = capsys.readouterr().out
    for name in ("Python", "Packages", "Memory", "Disk", "Graphics card", "PyTorch", "Training", "peft"):
        assert name in printed
    assert printed.endswith("This machine can train.\n")


def test_what_is_needed_and_broken_gives_1(monkeypatch, capsys):
    checks = [
        Check("Disk", "0.1 GB free", "free 2 GB"),
        Check("Memory", "1 GB", "close programs", needed=False),
    ]
    monkeypatch.setattr(doctor, "report", lambda: iter(checks))
    assert doctor.main() == 1
    assert "-> free 2 GB" in capsys.readouterr().out


def test_a_tip_alone_does_not_stop_anyone(monkeypatch, capsys):
    monkeypatch.setattr(
        doctor, "report", lambda: iter([Check("Memory", "1 GB", "close programs", needed=False)])
    )
    assert doctor.main() == 0
    assert capsys.readouterr().out.startswith("tip  Memory")


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", ["torch", "no-such-package"])
    assert doctor.packages() == Check("Packages", "missing: no-such-package", "python launch.py repair")


def test_a_full_disk_is_told_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=GB))
    check = doctor.disk(tmp_path / "not" / "there" / "yet")
    assert check.mark == "FIX"
    assert "1.0 GB free" in check.found and "LORA_SD_HOME" in check.remedy


def test_the_card_is_told_with_memory_and_driver(card_here):
    assert doctor.card() == Check("Graphics card", "NVIDIA A, 20.0 GB of 24.0 GB free; driver 580.65")


def test_a_card_without_driver_is_told(no_card, monkeypatch):
    monkeypatch.setattr(torch_build, "display_vendors", lambda: iter(["nvidia"]))
    assert torch_build.DRIVERS in doctor.card().remedy


def test_a_build_for_the_processor_beside_a_card_is_told(card_here, monkeypatch):
    import torch

    monkeypatch.setattr(torch.version, "cuda", None)
    check = doctor.pytorch()
    assert check.mark == "tip" and check.remedy == "python launch.py repair"


@pytest.mark.parametrize(
    "capability, arch_list, runs",
    [
        ((8, 9), ["sm_80", "sm_90"], True),  # the same generation, older
        ((8, 0), ["sm_86", "sm_90"], False),  # the same generation, newer
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_80", "compute_90"], True),  # PTX is translated
        ((6, 1), ["sm_75", "compute_120"], False),
        ((12, 1), ["sm_90a", "sm_120"], True),
    ],
)
def test_a_build_runs_on_its_generation_or_through_ptx(capability, arch_list, runs):
    assert doctor.runs_on(arch_list, capability) is runs


def test_training_that_fails_is_told(monkeypatch):
    import torch

    def broken(*args, **kwargs):
        raise RuntimeError("no kernel image is available\nmore")

    monkeypatch.setattr(torch.nn, "Linear", broken)
    check = doctor.training()
    assert check.mark == "FIX" and "no kernel image is available" in check.found
