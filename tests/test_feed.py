import pytest
import torch

from lora_sd.data.batches import Batch
from lora_sd.training import diffusion
from lora_sd.training.feed import Part, Text, feeds
from lora_sd.training.noise import PLAIN, Noise

TEXT = Text(
    tensors=lambda captions: (torch.tensor([[float(len(caption))] for caption in captions]),),
    conditioning=None,
)


def batch(count, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return Batch(
        mean=torch.randn(count, 4, 8, 8, generator=rng),
        std=torch.rand(count, 4, 8, 8, generator=rng),
        captions=["a" * (index + 1) for index in range(count)],
        sizes=torch.arange(count).float()[:, None].expand(count, 6),
        weights=torch.rand(count, generator=rng),
        masks=torch.rand(count, 1, 8, 8, generator=rng),
    )


def some(whole, positions):
    """A process's part of a batch."""
    picked = Batch(*(x[positions] if torch.is_tensor(x) else [x[i] for i in positions] for x in whole))
    return Part(picked if positions else None, positions, len(whole.captions))


EVERYTHING = Noise(
    offset=0.1,
    offset_random=True,
    offset_adaptive=0.05,
    pyramid=6,
    perturbation=0.1,
    perturbation_random=True,
    max_timestep=900,
    density="logit_normal",
    shift=2.0,
)


def made(parts, how=PLAIN):
    return list(feeds(parts, TEXT, seed=7, step=3, num_timesteps=1000, how=how))


def test_noise_with_every_setting_off_is_what_it_has_always_been():
    """The first three draws of a generator of (seed, step, index), which runs of earlier versions were trained with."""
    [feed] = made([some(batch(2), [0, 1])])
    for index in range(2):
        rng = diffusion.generator(7, 3, index)
        assert feed.t[index] == torch.randint(1000, (), generator=rng)
        assert torch.equal(feed.noise[index], torch.randn(4, 8, 8, generator=rng))
        posterior = torch.randn(4, 8, 8, generator=rng)
        assert torch.equal(feed.latents[index], batch(2).mean[index] + batch(2).std[index] * posterior)
    assert feed.perturbation is None and len(feed.tensors()) == 7  # with the masks


def test_a_feed_with_a_perturbation_has_one_tensor_more():
    [feed] = made([some(batch(2), [0, 1])], EVERYTHING)
    assert len(feed.tensors()) == 8 and feed.tensors()[-2] is feed.perturbation
    assert feed.shapes == feed.to(torch.device("cpu")).shapes


@pytest.mark.parametrize("how", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_the_parts_of_two_processes_are_the_whole(how):
    whole = batch(5)
    [alone] = made([some(whole, list(range(5)))], how)
    [first], [second] = made([some(whole, [0, 2, 4])], how), made([some(whole, [1, 3])], how)
    for name in ("latents", "noise", "t", "sizes", "shares", "masks") + ("perturbation",) * (
        how is EVERYTHING
    ):
        joined = torch.cat([getattr(first, name), getattr(second, name)])
        assert torch.equal(joined[[0, 3, 1, 4, 2]], getattr(alone, name))


def test_the_shares_of_a_step_are_the_weights_over_all_its_examples():
    first, second = batch(3, seed=1), batch(2, seed=2)
    parts = [some(first, [0, 1, 2]), some(second, [0, 1])]
    shares = torch.cat([feed.shares for feed in made(parts)])
    torch.testing.assert_close(shares, torch.cat([first.weights, second.weights]) / 5)


def test_a_batch_collected_in_two_draws_what_it_draws_as_one():
    whole = batch(4)
    [together] = made([some(whole, [0, 1, 2, 3])])
    apart = made([some(Batch(*(x[:2] for x in whole)), [0, 1]), some(Batch(*(x[2:] for x in whole)), [0, 1])])
    for name in ("latents", "noise", "t", "shares"):
        assert torch.equal(torch.cat([getattr(feed, name) for feed in apart]), getattr(together, name))


def test_a_process_without_an_example_has_no_feed():
    assert made([some(batch(1), [])]) == []


def test_latents_are_a_sample_of_the_gaussian_of_the_vae():
    whole = batch(1)
    still = whole._replace(std=torch.zeros_like(whole.std))
    assert torch.equal(made([some(still, [0])])[0].latents, still.mean)
    assert not torch.equal(made([some(whole, [0])])[0].latents, whole.mean)


def test_masks_are_inputs_like_all_others_and_none_are_no_input():
    [masked] = made([some(batch(2), [0, 1])])
    plain = masked._replace(masks=None)
    assert len(masked.tensors()) == len(plain.tensors()) + 1 and masked.shapes != plain.shapes
    assert torch.equal(masked.to("cpu").masks, masked.masks) and plain.to("cpu").masks is None
