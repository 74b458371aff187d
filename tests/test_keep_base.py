"""What the base does is kept by a second term of the loss; the oracle is the same model without any LoRA on it."""

import pytest
import torch
from safetensors.torch import load_file
from small_runs import config_for

from lora_sd.lora import layers
from lora_sd.models import text
from lora_sd.training import diffusion, loop, prepare
from lora_sd.training.feed import Feed
from lora_sd.training.loss import Loss
from lora_sd.training.train import train
from lora_sd.training.update import LossScale
from lora_sd.training.vector import Vector

CAPTIONS = ["a cat", "a very red dog"]


def feed(models):
    rng = torch.Generator().manual_seed(1)
    return Feed(
        latents=torch.randn(2, 4, 16, 16, generator=rng),
        noise=torch.randn(2, 4, 16, 16, generator=rng),
        t=torch.tensor([100, 700]),
        sizes=torch.tensor([[128, 128, 0, 0, 128, 128]] * 2).float(),
        shares=torch.tensor([0.25, 0.75]),
        text=text.tokenize(models, CAPTIONS),
    )


def with_lora(models, *, started):
    """A LoRA on U-Net and text encoders: that of a beginning, which changes nothing, or one that has learnt."""
    parts = models.parts()
    names = [name for name in layers.named_layers(parts) if name.endswith(("to_q", "fc1", "attn1.to_out.0"))]
    layers.inject(parts, dict.fromkeys(names, 2), 1.0)
    for index, (_, low_rank) in enumerate(layers.low_ranks(parts)):
        if started:
            torch.nn.init.normal_(low_rank.up.data, std=0.3, generator=torch.Generator().manual_seed(index))
    return Vector((low_rank for _, low_rank in layers.low_ranks(parts)), models.dtype)


def sums(models, vector, how):
    """The gradient and loss of a pass."""
    scale = LossScale(False, torch.device("cpu"))
    vector.sums.zero_()
    loop.forward_backward(models, prepare.learning_text(models), vector, scale, how, feed(models))
    return vector.sums.clone()


@torch.no_grad()
def predicted(models):
    inputs = feed(models)
    noisy = diffusion.add_noise(inputs.latents, inputs.noise, models.alpha_bar[inputs.t])
    return models.predict(noisy, inputs.t, text.encode(models, CAPTIONS), inputs.sizes)


@pytest.mark.parametrize("name", ["sd15", "sd2-v", "sdxl"])
def test_the_second_term_is_the_distance_from_the_model_without_a_lora(tiny_models, name):
    models = tiny_models(name)
    alone = predicted(models)
    vector = with_lora(models, started=True)
    apart = (predicted(models) - alone).square().mean((1, 2, 3))
    weights = diffusion.min_snr_weight(models.alpha_bar[feed(models).t], 5.0, models.prediction)
    plain, kept = (sums(models, vector, Loss(min_snr=5.0, keep_base=k)) for k in (0.0, 2.0))
    wanted = 2 * (apart * weights * feed(models).shares).sum()
    assert wanted > 1e-4
    torch.testing.assert_close(kept[-1] - plain[-1], wanted, rtol=1e-3, atol=1e-6)
    assert not torch.equal(kept[:-1], plain[:-1])
    assert all(low_rank.strength == 1 for _, low_rank in layers.low_ranks(models.parts()))


def test_the_second_term_says_nothing_to_a_lora_that_has_not_begun(tiny_models):
    models = tiny_models("sd15")
    vector = with_lora(models, started=False)
    assert torch.equal(sums(models, vector, Loss(keep_base=2.0)), sums(models, vector, Loss()))


def test_its_gradient_is_that_of_a_distance_from_something_fixed(tiny_models):
    """Along the gradient of the term alone, the distance from the base falls as fast as its slope says."""
    models = tiny_models("sd15")
    alone = predicted(models)
    vector = with_lora(models, started=True)
    gradient = (sums(models, vector, Loss(keep_base=1.0)) - sums(models, vector, Loss()))[:-1]

    def apart():
        return ((predicted(models) - alone).square().mean((1, 2, 3)) * feed(models).shares).sum().item()

    before, small = apart(), 1e-3 / gradient.norm()
    vector.values.data -= small * gradient
    assert apart() - before == pytest.approx(-(small * gradient.square().sum()).item(), rel=0.05)


def test_a_run_that_keeps_the_base_changes_it_less_with_and_without_parts_computed_twice(
    tiny_folder, pictures
):
    def update(keep, rung="fast"):
        changes = {
            "loss.keep_base": keep,
            "machine.memory": rung,
            "lora.text_encoders": True,
            "optim.steps": 10,
        }
        return load_file(train(config_for(tiny_folder("sd15"), pictures, **changes)))

    free, kept, twice = update(0.0), update(10.0), update(10.0, "low")
    ups = [key for key in free if key.endswith("lora_up.weight")]
    size_free, size_kept = (sum(tensors[key].norm().item() for key in ups) for tensors in (free, kept))
    assert size_kept < 0.9 * size_free
    assert all(torch.equal(kept[key], twice[key]) for key in kept)
