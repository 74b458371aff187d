"""Captions become the same text states as diffusers' pipelines make, on every family."""

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from lora_sd.models import text
from lora_sd.models.text import encode, token_counts

CAPTIONS = ["a photo of a cat", "", "Straße, 猫 & 🐱 — “x”!", "red " * 75]
LONG = "one two three four five six seven " * 20  # 140 tokens


def _theirs(folder, name, captions, clip_skip=None):
    kind = StableDiffusionXLPipeline if name == "sdxl" else StableDiffusionPipeline
    pipe = kind.from_pretrained(folder, safety_checker=None)
    common = dict(
        device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False, clip_skip=clip_skip
    )
    tokens, _, *pooled = pipe.encode_prompt(captions, **common)
    return tokens, pooled[0] if pooled else None


@pytest.mark.parametrize("name", ["sd15", "sd2", "sdxl"])
def test_encoding_equals_diffusers(tiny_folder, tiny_models, name):
    ours = encode(tiny_models(name), CAPTIONS)
    tokens, pooled = _theirs(tiny_folder(name), name, CAPTIONS)
    torch.testing.assert_close(ours.tokens, tokens, rtol=0, atol=0)
    if name == "sdxl":
        torch.testing.assert_close(ours.pooled, pooled)
    else:
        assert ours.pooled is None


@pytest.mark.parametrize("skip", [1, 2, 3])
def test_clip_skip_is_an_encoder_without_its_last_layers(tiny_models, skip):
    """diffusers can't be the oracle here: with transformers 5 its clip_skip looks for a level that is gone."""
    skipped, shorter = tiny_models("sd15", clip_skip=skip), tiny_models("sd15")
    layers = shorter.text_encoders[0].encoder.layers
    del layers[len(layers) - skip + 1 :]
    torch.testing.assert_close(encode(skipped, CAPTIONS).tokens, encode(shorter, CAPTIONS).tokens)


def test_clip_skip_of_sdxl_equals_diffusers(tiny_folder, tiny_models):
    """diffusers counts from the layer that SDXL uses anyway: its 1 is our 3."""
    tokens, pooled = _theirs(tiny_folder("sdxl"), "sdxl", CAPTIONS, clip_skip=1)
    ours = encode(tiny_models("sdxl", clip_skip=3), CAPTIONS)
    torch.testing.assert_close(ours.tokens, tokens)
    torch.testing.assert_close(ours.pooled, pooled)


def test_clip_skip_two_is_what_sdxl_does_anyway(tiny_models):
    skipped, plain = tiny_models("sdxl", clip_skip=2), tiny_models("sdxl")
    assert torch.equal(encode(skipped, CAPTIONS).tokens, encode(plain, CAPTIONS).tokens)


def test_the_number_of_chunks_is_that_of_the_encoding(tiny_models):
    models = tiny_models("sdxl")
    for caption in ["", "a cat", LONG, " ".join(["cat"] * 75), " ".join(["cat"] * 76)]:
        assert text.num_chunks(models, [caption]) == [encode(models, [caption]).tokens.shape[1] // 77]


@pytest.mark.parametrize("name", ["sd15", "sd2", "sdxl"])
def test_a_long_caption_is_chunks_encoded_by_themselves(tiny_models, name):
    models = tiny_models(name)
    words = LONG.split()
    whole = encode(models, [LONG])
    first, second = encode(models, [" ".join(words[:75])]), encode(models, [" ".join(words[75:])])
    assert whole.tokens.shape[1] == 2 * 77
    torch.testing.assert_close(whole.tokens, torch.cat([first.tokens, second.tokens], dim=1))
    if name == "sdxl":
        torch.testing.assert_close(whole.pooled, first.pooled)


@pytest.mark.parametrize("name", ["sd15", "sd2", "sdxl"])
def test_short_captions_are_filled_up_with_empty_chunks(tiny_models, name):
    models = tiny_models(name)
    both, cat, empty = (encode(models, captions) for captions in (["a cat", LONG], ["a cat"], [""]))
    torch.testing.assert_close(both.tokens[:1], torch.cat([cat.tokens, empty.tokens], dim=1))
    torch.testing.assert_close(encode(models, ["a cat"], chunks=2).tokens, both.tokens[:1])


def test_the_pooled_state_is_at_the_first_end_token(tiny_models):
    """An added token has a larger id than the end token; the end is still where it was."""
    models = tiny_models("sdxl")
    before = encode(models, ["a cat"]).pooled
    models.tokenizers[1].add_tokens(["mycat_lx"])
    models.text_encoders[1].resize_token_embeddings(len(models.tokenizers[1]), mean_resizing=False)
    assert torch.equal(encode(models, ["a cat"]).pooled, before)
    assert not torch.equal(encode(models, ["mycat_lx cat"]).pooled, encode(models, ["mycat_lx dog"]).pooled)


def test_tokens_are_counted_without_start_and_end(tiny_models):
    assert token_counts(tiny_models("sd15"), ["", "a cat", LONG]) == [0, 2, 140]


def test_gradients_reach_a_text_encoder_that_is_taught(tiny_models):
    models = tiny_models("sd15")
    models.text_encoders[0].requires_grad_(True)
    encode(models, ["a cat"]).tokens.sum().backward()
    assert all(p.grad is not None for p in models.text_encoders[0].parameters() if p.requires_grad)


def test_the_starter_encodes_with_its_own_vocabulary(starter):
    assert encode(starter, ["a red bus, streamline style"]).tokens.shape == (1, 77, 192)
