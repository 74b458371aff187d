"""The drawing process: one real worker on a tiny model, driven through its client."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops
from safetensors.torch import load_file, save_file

from lora_sd.lora import beside, formats, layers, targets
from lora_sd.lora.beside import Named
from lora_sd.worker import Client
from lora_sd.workshop.resize import resize


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        client = Client()
        yield client
        client.free()


@pytest.fixture
def job(tiny_folder, tmp_path: Path) -> dict[str, Any]:
    return {
        "base": str(tiny_folder("sd15")),
        "loras": [],
        "prompt": "a cat",
        "negative": "",
        "seed": 7,
        "steps": 2,
        "guidance": 4.0,
        "sampler": "ddim",
        "size": [64, 64],
        "out": str(tmp_path / "out"),
    }


@pytest.fixture
def lora(tiny_models, tmp_path: Path) -> str:
    """A LoRA file with a visible effect."""
    models = tiny_models("sd15")
    parts = models.parts()
    names = [name for name in layers.named_layers(parts) if "attn" in name and "to_q" in name]
    layers.inject(parts, dict.fromkeys(names, 4), 1.0)
    pairs = layers.adapters(parts)
    strong = {
        name: pair._replace(up=torch.randn(pair.up.shape, generator=torch.Generator().manual_seed(1)) * 20)
        for name, pair in pairs.items()
    }
    path = tmp_path / "strong.safetensors"
    formats.save(path, strong, models.family, metadata={})
    return str(path)


def draw(client: Client, job: dict[str, Any]) -> tuple[Image.Image, dict[str, Any]]:
    *_, picture, done = client.generate(**job)
    assert (picture["kind"], done["kind"]) == ("picture", "done"), done
    return Image.open(picture["path"]), done


def same(a: Image.Image, b: Image.Image) -> bool:
    return ImageChops.difference(a, b).getbbox() is None


def test_a_picture_comes_with_its_progress(client, job):
    messages = list(client.generate(**job))
    assert [m["kind"] for m in messages] == ["progress", "progress", "picture", "done"]
    assert [(m["done"], m["total"]) for m in messages[:2]] == [(1, 2), (2, 2)]
    assert Image.open(messages[2]["path"]).size == (64, 64)


def test_another_strength_loads_nothing_and_changes_the_picture(client, job, lora):
    without, first = draw(client, job)
    at_zero, second = draw(client, {**job, "loras": [[lora, 0.0]]})
    at_one, third = draw(client, {**job, "loras": [[lora, 1.0]]})
    by_part, _ = draw(client, {**job, "loras": [[lora, {"whole": 1.0, "blocks": {"mid": 0}}]]})
    again, fourth = draw(client, job)
    assert not same(by_part, at_one) and not same(by_part, without)
    assert third["counts"]["loras"] == second["counts"]["loras"] == first["counts"]["loras"] + 1
    assert (
        third["counts"]["prompts"] == second["counts"]["prompts"]
    )  # this LoRA leaves the text encoder alone
    assert (
        first["counts"]["models"]
        == second["counts"]["models"]
        == third["counts"]["models"]
        == fourth["counts"]["models"]
    )
    assert same(without, at_zero) and same(without, again)
    assert not same(without, at_one)


def test_a_text_encoder_of_another_strength_encodes_anew(client, job, tiny_models, tmp_path):
    models = tiny_models("sd15")
    path = tmp_path / "both.safetensors"
    found = models.parts()
    layers.inject(found, targets.resolve(found, "attention-qv", rank=2, text_encoders=True), 1.0)
    pairs = {name: p._replace(up=torch.full_like(p.up, 0.5)) for name, p in layers.adapters(found).items()}
    formats.save(path, pairs, models.family, metadata={})
    strengths = [1.0, {"unet": 0.5}, {"unet": 0.5, "text": 0.0}, {"text": 0.0}, 1.0]
    seen = [draw(client, {**job, "loras": [[str(path), given]]}) for given in strengths]
    counts = [done["counts"]["prompts"] for _, done in seen]
    assert [count - counts[0] for count in counts] == [0, 0, 1, 1, 1]
    assert same(seen[0][0], seen[4][0]) and not same(seen[0][0], seen[3][0])


def test_a_model_can_be_loaded_before_a_picture_is_asked_for(job):
    client = Client()
    try:
        assert not client.ready
        done = client.load(base=job["base"], loras=[], device="auto")
        assert client.ready and done["counts"]["models"] == 1
        assert draw(client, job)[1]["counts"]["models"] == 1
    finally:
        client.free()


def test_a_picture_says_how_it_was_made(client, job, lora):
    picture, _ = draw(client, {**job, "loras": [[lora, 0.5]]})
    assert picture.info["parameters"].startswith(
        "a cat <lora:strong:0.5>\nSteps: 2, Sampler: DDIM, CFG scale: 4, Seed: 7"
    )


def test_two_loras_have_their_own_strengths(client, job, lora):
    twin = Path(lora).with_name("twin.safetensors")
    twin.write_bytes(Path(lora).read_bytes())
    halves, _ = draw(client, {**job, "loras": [[lora, 0.5], [str(twin), 0.5]]})
    opposed, _ = draw(client, {**job, "loras": [[lora, 1.0], [str(twin), -1.0]]})
    whole, _ = draw(client, {**job, "loras": [[lora, 1.0]]})
    without, _ = draw(client, job)
    assert max(high for _, high in ImageChops.difference(halves, whole).getextrema()) <= 1
    assert max(high for _, high in ImageChops.difference(opposed, without).getextrema()) <= 1


def test_a_lora_cut_to_a_rank_draws_as_the_file_that_the_workshop_writes(client, job, lora, tmp_path):
    whole = tmp_path / "whole.safetensors"
    save_file(load_file(lora), whole, {"lora_sd.family": "sd15"})
    resize(whole, tmp_path / "cut.safetensors", rank=1)
    expected, _ = draw(client, {**job, "loras": [[str(tmp_path / "cut.safetensors"), 1.0]]})
    cut, _ = draw(client, {**job, "loras": [[str(whole), 1.0]], "rank": 1})
    uncut, _ = draw(client, {**job, "loras": [[str(whole), 1.0]]})
    assert same(cut, expected) and not same(cut, uncut)
    *_, failed = client.generate(**{**job, "loras": [[str(whole), 1.0]], "rank": 5})
    assert failed["text"] == "whole.safetensors has rank 4, so it can't be cut to 5; choose 4 or less."


def test_a_word_that_is_laid_beside_its_lora_is_known_from_then_on(client, job, lora, tmp_path):
    save_file({"emb_params": torch.ones(2, 32)}, tmp_path / "mycat.safetensors")
    named = Named("mycat.safetensors", "mycat", 2, beside.body_hash(tmp_path / "mycat.safetensors"))
    weak = tmp_path / "elsewhere" / "weak.safetensors"
    weak.parent.mkdir()
    save_file(load_file(lora), weak, {beside.KEY: str(named)})
    job = {**job, "prompt": "mycat", "loras": [[str(weak), 1e-3]]}
    without, _ = draw(client, job)
    shutil.copy(tmp_path / "mycat.safetensors", weak.parent)
    with_it, _ = draw(client, job)
    off, _ = draw(client, {**job, "loras": [[str(weak), 0.0]]})
    plain, _ = draw(client, {**job, "loras": []})
    assert not same(without, with_it) and same(off, plain)


def test_bad_input_is_one_sentence_and_the_worker_lives_on(client, job):
    *_, last = client.generate(**{**job, "sampler": "magic"})
    assert last["kind"] == "failed" and "no sampler 'magic'" in last["text"]
    *_, last = client.generate(**{**job, "base": "/nowhere/model.safetensors"})
    assert last["kind"] == "failed" and "/nowhere/model.safetensors" in last["text"]
    draw(client, job)


def test_a_running_picture_can_be_cancelled(client, job):
    kinds = []
    for message in client.generate(**{**job, "steps": 100}):
        kinds.append(message["kind"])
        if len(kinds) == 2:
            client.cancel()
    assert kinds[-1] == "cancelled" and len(kinds) < 100
    draw(client, job)


def test_leaving_early_cancels(client, job):
    events = client.generate(**{**job, "steps": 100})
    next(events)
    events.close()
    draw(client, job)


def test_a_crash_is_told_and_the_next_picture_starts_a_new_worker(client, job):
    events = client.generate(**{**job, "steps": 100})
    next(events)
    client.process.kill()
    *_, last = events
    assert last["kind"] == "failed" and "Try again" in last["text"]
    _, done = draw(client, job)
    assert done["counts"]["models"] == 1


def test_free_ends_the_process_and_with_it_all_its_memory(client, job):
    draw(client, job)
    process = client.process
    client.free()
    assert process.poll() is not None and not client.alive


def test_the_client_needs_no_torch():
    code = "import sys, lora_sd.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
