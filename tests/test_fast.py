"""The U-Net with fast blocks is the U-Net it was. On the CPU their norms are PyTorch's; test_norm.py has the kernels."""

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from lora_sd.lora.layers import inject, low_ranks, pack
from lora_sd.lora.targets import resolve
from lora_sd.models import fast
from lora_sd.models.family import Conditioning

FAMILIES = ["sd15", "sd2", "sdxl"]


def adapted(models, preset: str):
    """The models with LoRAs that do something, ready to learn."""
    inject(models.parts(), resolve(models.parts(), preset, rank=2), 1.0)
    torch.manual_seed(1)
    for _, low_rank in low_ranks(models.parts()):
        nn.init.normal_(low_rank.up, std=0.1)
    return models


def results(models) -> dict[str, torch.Tensor]:
    """The prediction, and the gradient of the input and of every adapter."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    x = draw(2, 4, 16, 16).to(models.device).requires_grad_()
    pooled = draw(2, 64).to(models.device) if models.family.size_conditioning else None
    tokens = draw(2, 77, models.unet.config.cross_attention_dim).to(models.device)
    t, sizes = torch.tensor([10, 900]).to(models.device), torch.tensor([[128.0, 128, 0, 0, 128, 128]] * 2)
    prediction = models.predict(x, t, Conditioning(tokens, pooled), sizes)
    prediction.square().sum().backward()
    learned = {
        name: parameter.grad for name, parameter in models.unet.named_parameters() if parameter.requires_grad
    }
    return {"prediction": prediction.detach(), "x": x.grad, **learned}


def made_fast(models):
    fast.change_blocks(models.unet.to(memory_format=torch.channels_last))
    return models


@pytest.mark.parametrize("preset", ["transformer", "full"])
@pytest.mark.parametrize("name", FAMILIES)
def test_predictions_and_gradients_are_the_same(tiny_models, name, preset):
    expected = results(adapted(tiny_models(name), preset))
    found = results(adapted(made_fast(tiny_models(name)), preset))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", [pack, lambda unet: unet.enable_gradient_checkpointing(), nn.Module.train])
def test_they_stay_the_same_when_the_model_is_changed_after(tiny_models, change):
    expected, found = adapted(tiny_models("sd15"), "full"), adapted(made_fast(tiny_models("sd15")), "full")
    for models in (expected, found):
        change(models.unet)
    torch.testing.assert_close(results(found), results(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_names_and_weights_stay(tiny_models, name):
    models = tiny_models(name)
    names = [path for path, _ in models.unet.named_modules()]
    weights = models.unet.state_dict()
    made_fast(models)
    assert [path for path, _ in models.unet.named_modules()] == names
    torch.testing.assert_close(dict(models.unet.state_dict()), dict(weights), rtol=0, atol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_block_is_known(tiny_models, name):
    kinds = {type(module) for module in made_fast(tiny_models(name)).unet.modules()}
    assert kinds.isdisjoint(fast.FAST) and kinds >= {fast.NormSiLU, *(ours for ours, _ in fast.FAST.values())}


def test_a_block_of_another_kind_is_left_alone():
    block = ResnetBlock2D(in_channels=8, groups=4, temb_channels=8, time_embedding_norm="scale_shift")
    learning = ResnetBlock2D(in_channels=8, groups=4, temb_channels=8)
    model = nn.ModuleDict({"conv_norm_out": nn.Identity(), "a": block, "b": learning})
    fast.change_blocks(model)
    assert type(block) is type(learning) is ResnetBlock2D


@pytest.mark.parametrize("name", FAMILIES)
def test_no_picture_leaves_the_layout_of_the_card(tiny_models, name):
    """Nor does a transformer copy one to make tokens of it."""
    models = adapted(made_fast(tiny_models(name)), "transformer")
    left, copied = [], []

    def watch(path: str, module: nn.Module):
        def see(_module, inputs, output):
            left.extend(
                path for x in (inputs[0], output) if not x.is_contiguous(memory_format=torch.channels_last)
            )

        module.register_forward_hook(see)

    def watch_tokens(module: BasicTransformerBlock):
        module.register_forward_pre_hook(lambda _, inputs: copied.append(not inputs[0].is_contiguous()))

    for path, module in models.unet.named_modules():
        if isinstance(module, ResnetBlock2D | nn.Conv2d):
            watch(path, module)
        elif isinstance(module, BasicTransformerBlock):
            watch_tokens(module)
    results(models)
    assert set(left) <= {"conv_in"} and copied and not any(copied)


@pytest.mark.parametrize("name", ["sd15", "sd2"])
def test_tokens_are_the_picture_itself(tiny_models, name):
    models = made_fast(tiny_models(name))
    transformer = next(m for m in models.unet.modules() if isinstance(m, Transformer2DModel))
    x = torch.randn(2, transformer.in_channels, 4, 4).to(memory_format=torch.channels_last)
    assert fast.tokens(x).data_ptr() == fast.picture(fast.tokens(x), 4, 4).data_ptr() == x.data_ptr()


@pytest.mark.gpu
@pytest.mark.parametrize("name", FAMILIES)
def test_predictions_and_gradients_are_the_same_on_a_card(tiny_models, name, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    expected, found = (adapted(tiny_models(name, device="cuda"), "full") for _ in range(2))
    fast.speed_up(found.unet)
    torch.testing.assert_close(results(found), results(expected), rtol=1e-3, atol=1e-3)
