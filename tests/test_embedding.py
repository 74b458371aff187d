"""Textual-inversion files: diffusers loads ours and reads prompts with them as we do; theirs are read here."""

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from lora_sd.lora import embedding
from lora_sd.lora.inspection import inspect
from lora_sd.models import text, words
from lora_sd.models.family import FAMILIES, SD2, SD15, SDXL

PROMPTS = ["a photo of mycat, asleep", "mycat and a cat", "a cat"]
WIDTHS = {"sd15": {"text_encoder": 32}, "sdxl": {"text_encoder": 32, "text_encoder_2": 64}}
HEADER = {"lora_sd.word": "mycat"}


def vectors(widths, count):
    rng = torch.Generator().manual_seed(count)
    return {part: torch.randn(count, width, generator=rng) for part, width in widths.items()}


def loaded_by_diffusers(folder, path):
    """The pipeline as its users load a file: that of SDXL encoder by encoder."""
    if folder.name != "sdxl":
        pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
        pipeline.load_textual_inversion(str(path.parent), weight_name=path.name, token="mycat")
        return pipeline
    pipeline, tensors = StableDiffusionXLPipeline.from_pretrained(folder), load_file(path)
    for key, part in (("clip_l", ""), ("clip_g", "_2")):
        encoder, tokenizer = (getattr(pipeline, f"{kind}{part}") for kind in ("text_encoder", "tokenizer"))
        pipeline.load_textual_inversion(
            tensors[key], token="mycat", text_encoder=encoder, tokenizer=tokenizer
        )
    return pipeline


@pytest.mark.parametrize(("name", "count"), [("sd15", 1), ("sd15", 3), ("sdxl", 2)])
def test_diffusers_loads_it_and_reads_prompts_as_we_do(tiny_folder, tiny_models, tmp_path, name, count):
    path = tmp_path / "mycat.safetensors"
    embedding.save(path, vectors(WIDTHS[name], count), FAMILIES[name], metadata=HEADER)
    pipeline = loaded_by_diffusers(tiny_folder(name), path)
    tokens, _, *pooled = pipeline.encode_prompt(
        PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    models = tiny_models(name)
    words.add(models, *embedding.load(path, models.family), "it")
    ours = text.encode(models, PROMPTS)
    assert torch.equal(ours.tokens, tokens)
    torch.testing.assert_close(ours.pooled, pooled[0] if pooled else None)


@pytest.mark.parametrize(
    ("family", "keys"), [(SD15, {"emb_params"}), (SD2, {"emb_params"}), (SDXL, {"clip_l", "clip_g"})]
)
def test_what_is_written_is_read_again_and_inspected(tmp_path, family, keys):
    path = tmp_path / "mycat-000050.safetensors"
    made = vectors({spec.attribute: 8 for spec in family.text_encoders}, 4)
    embedding.save(path, made, family, metadata=HEADER)
    assert load_file(path).keys() == keys
    word, there = embedding.load(path, family)
    assert word == "mycat" and all(torch.equal(there[part], made[part]) for part in made)
    told = inspect(path)
    assert (told.kinds, told.word.vectors, told.word.text) == (["textual inversion"], 4, "mycat")
    assert "mycat, 4 vectors" in str(told)


def test_a_file_of_diffusers_has_its_word_as_key_and_one_of_others_in_its_name(tmp_path):
    """A single vector may be without the dimension of how many there are."""
    save_file({"<cat-toy>": torch.ones(768)}, tmp_path / "learned_embeds.safetensors")
    assert embedding.load(tmp_path / "learned_embeds.safetensors", SD15).word == "<cat-toy>"
    save_file({"emb_params": torch.ones(2, 768).half()}, tmp_path / "EasyNegative.safetensors")
    word, rows = embedding.load(tmp_path / "EasyNegative.safetensors", SD15)
    assert word == "EasyNegative" and torch.equal(rows["text_encoder"], torch.ones(2, 768))


def test_a_word_in_pointed_brackets_is_read(tiny_models):
    models = tiny_models("sd15")
    words.add(models, "<cat-toy>", vectors(WIDTHS["sd15"], 1), "it")
    assert 49408 in text.token_ids(models, "a <cat-toy> backpack")[0]


def test_vectors_that_are_no_numbers_are_not_saved(tmp_path):
    with pytest.raises(ValueError, match="not finite numbers"):
        embedding.save(
            tmp_path / "a.safetensors", {"text_encoder": torch.full((1, 8), torch.nan)}, SD15, metadata={}
        )
    assert not list(tmp_path.iterdir())


def test_the_same_vectors_are_the_same_bytes(tmp_path):
    """The library writes metadata in another order each time."""
    vectors = {"text_encoder": torch.ones(2, 768), "text_encoder_2": torch.ones(2, 1280)}
    metadata = {f"ss_{letter}": letter for letter in "abcdefgh"}
    for name in ("a", "b"):
        embedding.save(tmp_path / f"{name}.safetensors", vectors, FAMILIES["sdxl"], metadata=metadata)
    a, b = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("a", "b"))
    assert a == b and a.index(b"clip_g") < a.index(b"clip_l")
