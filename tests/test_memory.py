import pytest
import torch
from real_shapes import real_parts

from lora_sd.footprint import FILL, RUNGS, Needs, predict
from lora_sd.lora.packed import Packed
from lora_sd.training import memory

GB = 2**30
CARD = torch.device("cuda")
NEEDS = Needs("sdxl", 1024**2, 1, 16, "transformer", text_encoders=False)


@pytest.fixture
def free(monkeypatch):
    """Sets how many bytes of a 16 GB card are free."""
    return lambda size: monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (size, 16 * GB))


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_a_card_gets_the_fastest_rung_that_fits_and_that_is_said(free, rung):
    free(int(predict(NEEDS, rung) / FILL) + 1)
    chosen, why = memory.choose_rung("auto", CARD, real_parts("sdxl")["unet"], NEEDS)
    assert chosen == rung and rung.title in why and f"{predict(NEEDS, rung) / GB:.1f} GB wanted" in why


def test_a_rung_that_was_set_is_taken(free):
    free(0)
    assert memory.choose_rung("low", CARD, real_parts("sdxl")["unet"], NEEDS) == (RUNGS[1], "")


def test_the_processor_and_the_starter_are_fast(free, starter):
    free(0)
    sdxl = real_parts("sdxl")["unet"]
    assert memory.choose_rung("auto", torch.device("cpu"), sdxl, NEEDS) == (RUNGS[0], "")
    assert memory.choose_rung("auto", CARD, starter.unet, NEEDS._replace(family="sd15")) == (RUNGS[0], "")


def test_below_each_rung_is_the_next():
    assert [memory.below(rung) for rung in RUNGS] == [*RUNGS[1:], None]


def test_a_rung_changes_the_unet_as_it_says(starter):
    for rung in RUNGS:
        memory.take_rung(starter.unet, rung)
        assert starter.unet.is_gradient_checkpointing == rung.checkpointing
        assert any(isinstance(module, Packed) for module in starter.unet.modules()) == rung.packed


def test_parts_go_back_when_their_work_is_done(tiny_models):
    models = tiny_models("sd15")
    where = []
    models.place = lambda device, *names: where.append((str(device), names))
    with pytest.raises(KeyError), memory.on_device(models, CARD, "vae"):
        raise KeyError
    assert where == [("cuda", ("vae",)), ("cpu", ("vae",))]
