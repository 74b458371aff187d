"""A word of vectors is read as transformers reads tokens that were added to it."""

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import nn

from lora_sd.models import text, words

PROMPTS = ["a photo of mycat, asleep", "mycat", "a cat", "MyCat's hat (mycat) and mycats", ""]
PIPELINES = {"sd15": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}


def vectors_for(models, count):
    rng = torch.Generator().manual_seed(count)
    widths = {
        spec.attribute: encoder.get_input_embeddings().embedding_dim
        for spec, encoder in zip(models.family.text_encoders, models.text_encoders, strict=True)
    }
    return {part: torch.randn(count, width, generator=rng) for part, width in widths.items()}


@pytest.fixture
def taught(tiny_models):
    """`taught("sdxl", 3)` are models that know mycat as 3 vectors of each encoder, and its rows."""

    def make(name, count, **options):
        models = tiny_models(name, **options)
        return models, words.add(models, "mycat", vectors_for(models, count), "a file")

    return make


def by_encoder(models, rows):
    return {
        spec.attribute: one.vectors.data for spec, one in zip(models.family.text_encoders, rows, strict=True)
    }


def added_to(folder, name, vectors):
    """The pipeline with the vectors as tokens mycat, mycat_1, … in its tokenizers and token embeddings."""
    pipeline = PIPELINES[name].from_pretrained(folder)
    for spec, rows in vectors.items():
        tokenizer, encoder = (
            getattr(pipeline, spec.replace("text_encoder", "tokenizer")),
            getattr(pipeline, spec),
        )
        tokenizer.add_tokens(["mycat", *(f"mycat_{i}" for i in range(1, len(rows)))])
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        encoder.get_input_embeddings().weight.data[-len(rows) :] = rows
    return pipeline


def by_diffusers(pipeline, prompts):
    tokens, _, *pooled = pipeline.encode_prompt(
        prompts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    return text.Conditioning(tokens, pooled[0] if pooled else None)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_word_is_read_as_added_tokens_and_only_its_rows_get_their_gradient(taught, tiny_folder, name):
    models, rows = taught(name, 2)
    for one in rows:
        one.requires_grad_(True)
    prompts = ["a photo of mycat, asleep", "mycat and mycat ,"]
    ours = text.encode(models, prompts)
    weigh(ours).backward()
    learnt = [p for encoder in models.text_encoders for p in encoder.parameters() if p.grad is not None]
    assert {id(p) for p in learnt} == {id(one.vectors) for one in rows}

    pipeline = added_to(tiny_folder(name), name, by_encoder(models, rows))
    theirs = by_diffusers(pipeline, prompts)
    weigh(theirs).backward()
    assert torch.equal(ours.tokens, theirs.tokens)
    for part, one in zip(by_encoder(models, rows), rows, strict=True):
        wanted = getattr(pipeline, part).get_input_embeddings().weight.grad[-2:]
        assert wanted.abs().max() > 0
        torch.testing.assert_close(one.vectors.grad, wanted)


def weigh(found):
    """A number that every text state counts in, each differently."""
    parts = [part for part in found if part is not None]
    return sum((part * torch.linspace(-1, 1, part.numel()).view_as(part)).sum() for part in parts)


def test_a_word_is_what_the_captions_take_for_it(taught):
    models, _ = taught("sd15", 2)
    own = [49408, 49409]
    start = {
        "mycats": False,
        "MYCAT": True,
        "(mycat)": True,
        "mycat's": True,
        "mycat_2": False,
        "it:mycat": True,
    }
    for prompt, known in start.items():
        [ids] = text.token_ids(models, prompt)
        assert (own[0] in ids, own[1] in ids) == (known, known), prompt


def test_a_weight_is_that_of_all_its_vectors(taught):
    models, _ = taught("sd15", 3, weighted=True)
    ids, weights = text.tokenize(models, ["a (mycat:1.5) hat"])
    assert weights[ids >= 49408].tolist() == [1.5, 1.5, 1.5]
    assert weights[ids < 49408].unique().tolist() == [1.0]


def test_its_vectors_count_as_tokens_and_long_captions_have_chunks(taught):
    models, _ = taught("sdxl", 3)
    assert text.token_counts(models, ["mycat", "a mycat", " ".join(["mycat"] * 30)]) == [3, 4, 90]
    assert text.encode(models, [" ".join(["mycat"] * 30)]).tokens.shape[1] == 2 * 77


def test_two_words_are_told_apart(taught):
    models, _ = taught("sd15", 2)
    words.add(models, "mycat-2", vectors_for(models, 1), "another file")
    assert text.token_ids(models, "mycat-2")[0] == [49410]
    assert text.token_ids(models, "mycat, mycat-2")[0][:2] == [49408, 49409]
    with pytest.raises(ValueError, match="'MyCat' is brought by two files"):
        words.add(models, "MyCat", vectors_for(models, 1), "a third")


def test_a_model_without_its_words_is_as_it_was(taught, tiny_models):
    models, _ = taught("sdxl", 2)
    plain = text.encode(tiny_models("sdxl"), PROMPTS)
    words.know(models, "a file", False)
    assert torch.equal(text.encode(models, PROMPTS).tokens, plain.tokens)
    words.know(models, "a file", True)
    assert not torch.equal(text.encode(models, PROMPTS).tokens, plain.tokens)
    words.remove(models, "a file")
    assert torch.equal(text.encode(models, PROMPTS).tokens, plain.tokens)
    assert [type(encoder.get_input_embeddings()) for encoder in models.text_encoders] == [nn.Embedding] * 2


@pytest.mark.parametrize("sign", ["ſ", "İ", "ß"])
def test_letters_with_several_small_forms_do_no_harm(tiny_models, sign):
    models = tiny_models("sd15")
    words.add(models, f"a{sign}b", vectors_for(models, 1), "a file")
    assert text.token_ids(models, f"A{sign}B, asb, aib, ASSB")[0]
