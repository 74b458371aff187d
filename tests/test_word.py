"""A trigger word that learns, with a LoRA and alone."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from small_runs import body, config_for, notes, stop_at, told

from lora_sd import config as cfg
from lora_sd import events, run, sample
from lora_sd.data.folder import find_examples
from lora_sd.lora import beside, layers
from lora_sd.lora.inspection import read_header
from lora_sd.models import text
from lora_sd.training import loop, prepare, sameness, word
from lora_sd.training.feed import feeds
from lora_sd.training.loss import Inputs, Loss, denoising_loss
from lora_sd.training.train import resume, train
from lora_sd.training.update import LossScale
from lora_sd.training.vector import Vector

LEARNS = {"data.trigger": "mycat", "embedding.tokens": 2, "embedding.rate": 1e-2}
ALONE = {**LEARNS, "lora.targets": "none"}


def folder():
    return run.list_runs()[0].folder


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_the_word_learns_with_the_lora_and_its_file_lies_beside(tiny_folder, pictures, tiny_models, name):
    path = train(config_for(tiny_folder(name), pictures, **LEARNS))
    assert any(tensor.any() for key, tensor in load_file(path).items() if "lora_up" in key)
    found = beside.of(path)
    assert found == path.parent / "embeddings" / "mycat.safetensors"
    models = tiny_models(name)
    begun = word.begin(models, config_for("", "", **LEARNS))
    keys = {spec.embedding: spec.attribute for spec in models.family.text_encoders}
    for key, vectors in load_file(found).items():
        assert vectors.shape == begun[keys[key]].vectors.shape
        moved = (vectors - begun[keys[key]].vectors).abs()
        assert (moved > 1e-3).float().mean() > 0.9 and moved.max() <= 4.1e-2  # four steps of AdamW


def test_alone_it_is_the_only_thing_that_learns_and_all_that_is_saved(tiny_folder, pictures):
    path = train(config_for(tiny_folder("sd15"), pictures, **ALONE, **{"save.every": 2}))
    files = sorted(file.name for file in (folder() / "checkpoints").rglob("*"))
    assert files == ["mycat-000002.safetensors", "mycat.safetensors"] and path.name == "mycat.safetensors"
    assert load_file(path).keys() == {"emb_params"}
    assert read_header(path).metadata["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion"
    assert not any("network" in key for key in read_header(path).metadata)
    assert [event.modules for event in told() if isinstance(event, events.Saved)] == [{}, {}]


@pytest.mark.parametrize("changes", [LEARNS, ALONE], ids=["with_a_lora", "alone"])
def test_4_steps_are_2_and_2_bit_for_bit(tiny_folder, pictures, changes):
    config = config_for(
        tiny_folder("sd15"), pictures, **changes, **{"captions.shuffle": True, "captions.dropout": 0.2}
    )
    whole = train(config)
    train(config, stop_at(2))
    resumed = train(config, folder=folder())
    assert body(whole) == body(resumed)
    assert bool(beside.of(whole)) == (changes is LEARNS)
    if changes is LEARNS:
        assert body(beside.of(whole)) == body(beside.of(resumed))


def test_a_run_that_is_trained_longer_keeps_both_files_of_its_earlier_end(tiny_folder, pictures):
    train(config_for(tiny_folder("sd15"), pictures, **LEARNS, **{"optim.steps": 2}))
    last = resume(folder(), extend=1)
    earlier = last.with_name("lora-000002.safetensors")
    assert beside.of(earlier).name == "mycat-000002.safetensors"
    assert beside.of(last).name == "mycat.safetensors"


def test_a_run_begins_with_the_word_of_the_lora_that_it_starts_from(tiny_folder, pictures, tmp_path):
    first = train(config_for(tiny_folder("sd15"), pictures, **LEARNS))
    slow = {"lora.start": str(first), "optim.steps": 1, "embedding.rate": 1e-6, "optim.learning_rate": 1e-6}
    second = train(config_for(tiny_folder("sd15"), pictures, **{**LEARNS, **slow}))
    ours, theirs = (load_file(beside.of(path))["emb_params"] for path in (second, first))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1.1e-6)
    alone = shutil.copy(first, tmp_path / "alone.safetensors")
    train(config_for(tiny_folder("sd15"), pictures, **{**LEARNS, **slow, "lora.start": str(alone)}))
    assert any("does not lie beside it; its word starts anew" in note for note in notes())


def test_a_word_that_no_caption_has_is_said_at_once(tiny_folder, pictures):
    folders = [{"path": str(pictures), "trigger": "mydog"}]
    config = config_for(tiny_folder("sd15"), "", **LEARNS, **{"data.folders": folders})
    with pytest.raises(ValueError, match="No caption has the word 'mycat'"):
        train(config)


def test_the_gradient_of_a_step_is_that_of_tokens_added_to_the_model(tiny_models, pictures):
    """Against transformers' own way: a tokenizer and a token embedding that were made larger."""
    models, plain = tiny_models("sdxl"), tiny_models("sdxl")
    rows = word.begin(models, config_for("", "", **LEARNS))
    layers.inject(models.parts(), {"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k": 2}, 1.0)
    vector = Vector((low for _, low in layers.low_ranks(models.parts())), torch.float32, rows.values())
    for tokenizer, (part, one) in zip(plain.tokenizers, rows.items(), strict=True):
        tokenizer.add_tokens(["mycat", "mycat_1"])
        encoder = plain.parts()[part]
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        encoder.get_input_embeddings().weight.data[-2:] = one.vectors.data
        encoder.get_input_embeddings().requires_grad_(True)

    examples = find_examples(pictures, trigger="mycat").examples
    data = prepare.prepare(examples, models, 128, pictures.parent / "cache")
    part = data.part([0, 2], [0, 0])
    [feed] = feeds([part], prepare.learning_text(models), seed=0, step=1, num_timesteps=1000)
    loop.forward_backward(
        models, prepare.learning_text(models), vector, LossScale(False, torch.device("cpu")), Loss(), feed
    )

    captions = [caption.replace("mycat", "mycat mycat_1") for caption in part.batch.captions]
    inputs = Inputs(feed.latents, text.encode(plain, captions), feed.sizes)
    (denoising_loss(plain, inputs, feed.t, feed.noise).mean()).backward()
    found = dict(zip(rows, vector.split(vector.gradient)[-len(rows) :], strict=True))
    for part, gradient in found.items():
        theirs = plain.parts()[part].get_input_embeddings().weight.grad[-2:]
        assert theirs.abs().max() > 0
        torch.testing.assert_close(gradient, theirs)


def test_at_the_start_the_word_is_read_as_the_model_always_did(tiny_models):
    """With as many vectors as the word has tokens."""
    models, plain = tiny_models("sdxl"), tiny_models("sdxl")
    tokens = len(text.token_ids(plain, "mycat")[0])
    word.begin(models, config_for("", "", **{**LEARNS, "embedding.tokens": tokens}))
    ours, theirs = (text.encode(one, ["a mycat hat"]) for one in (models, plain))
    assert torch.equal(ours.tokens, theirs.tokens)


def test_it_starts_as_the_words_that_are_given(tiny_models):
    models = tiny_models("sd15")
    rows = word.begin(models, config_for("", "", **LEARNS, **{"embedding.initial": "young woman"}))
    young, woman = text.token_ids(models, "young woman")[0]
    weight = models.text_encoders[0].get_input_embeddings().weight
    assert torch.equal(rows["text_encoder"].vectors, weight[[young, woman]])


def test_pictures_know_the_word_of_a_lora_by_the_file_beside_it(
    tiny_folder, tiny_models, pictures, tmp_path, caplog
):
    path = train(config_for(tiny_folder("sd15"), pictures, **LEARNS))
    models = tiny_models("sd15")

    def drawn(lora, strength=1.0, **others):
        loras = {lora: strength} if lora else {}
        [picture] = sample.generate(models, "mycat asleep", loras=loras, steps=1, **others)
        return picture.tobytes()

    whole = drawn(path)
    alone = shutil.copy(path, tmp_path / "alone.safetensors")
    assert drawn(alone) != whole
    assert "does not lie beside it" in caplog.text and "mycat" in caplog.text
    assert drawn(alone, embeddings=[beside.of(path)]) == whole
    shutil.copy(beside.of(path), tmp_path / "its word.safetensors")
    assert drawn(alone) == whole
    assert drawn(path, 0.0) == drawn(None)
    assert type(models.text_encoders[0].get_input_embeddings()) is torch.nn.Embedding


def test_what_was_learned_alone_is_used_like_a_lora(tiny_folder, tiny_models, pictures):
    path = train(config_for(tiny_folder("sdxl"), pictures, **ALONE))
    models = tiny_models("sdxl")
    plain, once, off = (
        sample.generate(models, "mycat", steps=1, loras=loras)[0].tobytes()
        for loras in ({}, {path: 1.0}, {path: 0.0})
    )
    assert once != plain == off


def test_settings_that_change_the_word_are_told_before_going_on(tiny_folder, pictures):
    config = config_for(tiny_folder("sd15"), pictures, **LEARNS)
    train(config, stop_at(2))
    with pytest.raises(sameness.Changed, match=r"embedding\.tokens was 2 and is 3"):
        train(cfg.changed(config, {"embedding.tokens": 3}), folder=folder())
    with pytest.raises(ValueError, match=r"put embedding\.tokens back"):
        train(cfg.changed(config, {"embedding.tokens": 3}), folder=folder(), accept_changes=True)


def test_half_precision_learns_nearly_the_same(tiny_folder, pictures):
    config = config_for(
        tiny_folder("sdxl"), pictures, **{**LEARNS, "embedding.rate": 1e-3, "optim.learning_rate": 1e-3}
    )

    def losses(precision):
        train(cfg.changed(config, {"machine.precision": precision}))
        return [e.loss for e in told() if isinstance(e, events.Step) and e.step]

    assert losses("bf16") == pytest.approx(losses("fp32"), rel=0.02)
