import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
import torch

from lora_sd import hardware
from lora_sd.hardware import Device

GB = 2**30


class NVML(SimpleNamespace):
    """NVIDIA's library on a machine with two cards."""

    CARDS = ("NVIDIA A", 24 * GB, 20 * GB), ("NVIDIA B", 8 * GB, 7 * GB)

    def nvmlDeviceGetCount(self):
        return len(self.CARDS)

    def nvmlDeviceGetHandleByIndex(self, index):
        return self.CARDS[index]

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return self.CARDS[{"GPU-a": 0, "GPU-b": 1}[uuid]]

    def nvmlDeviceGetName(self, handle):
        return handle[0]

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(total=handle[1], free=handle[2])


@pytest.fixture
def two_cards(monkeypatch):
    monkeypatch.setattr(hardware, "_nvml", NVML)
    monkeypatch.setattr(hardware, "backend", lambda: "cuda")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def no_card(monkeypatch):
    monkeypatch.setattr(hardware, "_nvml", lambda: None)


def test_cards_come_first_and_the_processor_last(two_cards):
    cards = [Device("cuda", *card) for card in NVML.CARDS]
    assert hardware.devices()[:-1] == cards
    assert hardware.devices()[-1].kind == "cpu"
    assert hardware.best() == cards[0]


@pytest.mark.parametrize(
    "visible, names",
    [("1", ["NVIDIA B"]), ("1,0", ["NVIDIA B", "NVIDIA A"]), ("GPU-b", ["NVIDIA B"]), ("", []), ("-1", [])],
)
def test_only_the_cards_that_programs_may_use_count(two_cards, monkeypatch, visible, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [card.name for card in hardware.nvidia_cards()] == names


def test_the_processor_has_the_computers_memory():
    device = hardware.processor()
    assert device.total == psutil.virtual_memory().total
    assert 0 < device.free <= device.total


def test_backend_is_what_torch_was_built_for():
    built_for = "hip" if torch.version.hip else "cuda" if torch.version.cuda else hardware.backend()
    assert hardware.backend() == built_for in ("hip", "cuda", "mps", "cpu")


@pytest.mark.parametrize(
    "gigabytes, meaning",
    [(24, "SDXL too"), (15.99, "SDXL too"), (7.99, "sdxl_8gb"), (4, "512"), (2, "starter")],
)
def test_describe_says_what_a_card_is_enough_for(monkeypatch, gigabytes, meaning):
    monkeypatch.setattr(hardware, "best", lambda: Device("cuda", "NVIDIA A", int(gigabytes * GB), 0))
    assert meaning in hardware.describe()


def test_describe_proposes_the_starter_without_a_card(no_card):
    assert "No NVIDIA graphics card found" in hardware.describe()
    assert "starter" in hardware.describe()


def test_describe_tells_when_the_card_waits_for_another_pytorch(two_cards, monkeypatch):
    monkeypatch.setattr(hardware, "backend", lambda: "cpu")
    assert "NVIDIA A is here" in hardware.describe()
    assert "python launch.py repair" in hardware.describe()


@pytest.fixture(params=[(7, 5), (8, 0), (9, 0)])
def capability(request, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: request.param)
    return request.param


def test_a_card_takes_bf16_from_compute_capability_8_on(capability):
    dtype = torch.bfloat16 if capability >= (8, 0) else torch.float16
    assert hardware.choose() == (torch.device("cuda"), dtype)


def test_the_processor_takes_fp32():
    assert hardware.choose("cpu") == (torch.device("cpu"), torch.float32)


def test_an_asked_for_precision_is_kept(capability):
    assert hardware.choose("cuda", "fp32") == (torch.device("cuda"), torch.float32)


def test_a_missing_device_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"machine.device is 'cuda'.*finds none here; choose 'auto'"):
        hardware.choose("cuda")


def test_the_processor_refuses_fp16():
    with pytest.raises(ValueError, match=r"machine.precision is 'fp16'.*choose 'auto' or 'fp32'"):
        hardware.choose("cpu", "fp16")


def test_memory_used_grows_with_what_is_held():
    before = hardware.memory_used()
    held = bytearray(200 * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    assert hardware.memory_used() - before > 100 * 2**20


def test_looking_at_the_machine_does_not_import_torch():
    code = "import sys; from lora_sd import hardware; hardware.describe(); hardware.memory_used(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_real_card_is_the_one_torch_sees():
    card = hardware.best()
    assert card.name == torch.cuda.get_device_name()
    assert card.total >= torch.cuda.get_device_properties(0).total_memory
    assert 0 < card.free <= card.total
