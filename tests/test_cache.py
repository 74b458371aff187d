"""Cached latents and text states equal fresh ones, are never stale, and mend themselves."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from lora_sd.data import images, store
from lora_sd.data.buckets import fit
from lora_sd.data.cache import LatentCache, TextCache, identity
from lora_sd.data.folder import Example
from lora_sd.models.family import Conditioning


@pytest.fixture(scope="module")
def vae(tiny_folder) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(tiny_folder("sd15"), subfolder="vae")


@pytest.fixture
def items(tmp_path: Path) -> list:
    """Five noisy pictures, three wide and two tall, in their buckets."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(5):
        w, h = (48, 32) if number % 2 == 0 else (32, 48)
        path = tmp_path / "pictures" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)).save(path)
        made.append((Example(path, f"caption {number}", (w, h)), fit((w, h), (w, h))))
    return made


class Counting:
    """A VAE or text encoder that counts what passes through it."""

    def __init__(self, vae):
        self.vae, self.config, self.seen = vae, vae.config, []
        self.parameters, self.state_dict = vae.parameters, vae.state_dict

    def encode(self, pixels):
        self.seen.append(tuple(pixels.shape))
        return self.vae.encode(pixels)


def test_latents_are_the_vaes_moments_times_its_scale(tmp_path: Path, vae, items):
    cache = LatentCache(tmp_path / "cache", vae)
    cache.fill(items, batch_size=2)
    for example, placed in items:
        with torch.no_grad():
            moments = vae.encode(images.load(example.path, placed)[None]).latent_dist
        mean, std = cache.load(example, placed)
        assert mean.dtype == std.dtype == torch.float32
        torch.testing.assert_close(mean, moments.mean[0] * vae.config.scaling_factor)
        torch.testing.assert_close(std, moments.std[0] * vae.config.scaling_factor)


def test_pictures_are_encoded_in_batches_of_one_bucket(tmp_path: Path, vae, items):
    counting = Counting(vae)
    LatentCache(tmp_path / "cache", counting).fill(items, batch_size=2)
    assert counting.seen == [(2, 3, 48, 32), (2, 3, 32, 48), (1, 3, 32, 48)]


def test_progress_counts_to_the_end_and_a_restart_goes_on(tmp_path: Path, vae, items):
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        LatentCache(tmp_path / "cache", vae).fill(items, on_progress=stop)
    told = []
    LatentCache(tmp_path / "cache", vae).fill(items, on_progress=lambda *counts: told.append(counts))
    assert told == [(2, 5), (3, 5), (4, 5), (5, 5)]


def test_a_full_cache_needs_neither_vae_nor_picture(tmp_path: Path, vae, items):
    LatentCache(tmp_path / "cache", vae).fill(items)
    counting = Counting(vae)
    cache = LatentCache(tmp_path / "cache", counting)
    cache.fill(items)
    for example, _ in items:
        example.path.unlink()
    for item in items:
        cache.load(*item)
    assert counting.seen == []


@pytest.mark.parametrize("change", ["picture", "fit", "vae"])
def test_what_changed_is_encoded_anew(tmp_path: Path, vae, items, change):
    LatentCache(tmp_path / "cache", vae).fill(items)
    (example, placed), *_ = items
    if change == "picture":
        Image.new("RGB", (48, 32), "red").save(example.path)
    if change == "fit":
        placed = fit(example.size, (32, 32))
    if change == "vae":
        vae = AutoencoderKL.from_config(vae.config)
    counting = Counting(vae)
    LatentCache(tmp_path / "cache", counting).fill([(example, placed)])
    assert len(counting.seen) == 1


def test_a_moved_picture_is_not_encoded_again(tmp_path: Path, vae, items):
    LatentCache(tmp_path / "cache", vae).fill(items)
    (example, placed), *_ = items
    moved = example.path.rename(tmp_path / "moved.png")
    counting = Counting(vae)
    LatentCache(tmp_path / "cache", counting).fill([(Example(moved, "", example.size), placed)])
    assert counting.seen == []


def test_unchanged_pictures_are_hashed_once(tmp_path: Path, vae, items, monkeypatch):
    LatentCache(tmp_path / "cache", vae).fill(items)
    monkeypatch.setattr("hashlib.file_digest", None)
    LatentCache(tmp_path / "cache", vae).fill(items)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-8], lambda data: b"", lambda data: data[:200] + b"x" + data[201:]]
)
def test_a_damaged_file_is_made_again(tmp_path: Path, vae, items, damage):
    cache = LatentCache(tmp_path / "cache", vae)
    cache.fill(items)
    (example, placed), *_ = items
    mean, std = cache.load(example, placed)
    for path in (tmp_path / "cache" / "latents").rglob("*.bin"):
        path.write_bytes(damage(path.read_bytes()))
    assert torch.equal(cache.load(example, placed)[0], mean)

    again = LatentCache(tmp_path / "cache", counting := Counting(vae))
    again.fill(items)
    assert len(counting.seen) == 4
    assert torch.equal(again.load(example, placed)[1], std)


def test_damaged_memory_of_hashes_is_only_forgotten(tmp_path: Path, vae, items):
    LatentCache(tmp_path / "cache", vae).fill(items)
    (tmp_path / "cache" / "pictures.json").write_text('{"cut')
    LatentCache(tmp_path / "cache", counting := Counting(vae)).fill(items)
    assert counting.seen == []


def test_latents_that_are_not_finite_are_refused_by_name(tmp_path: Path, vae, items):
    broken = AutoencoderKL.from_config(vae.config)
    broken.quant_conv.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"not finite of 0\.png"):
        LatentCache(tmp_path / "cache", broken).fill(items[:1])
    assert not list((tmp_path / "cache").rglob("*.bin"))


def test_a_picture_damaged_meanwhile_is_named(tmp_path: Path, vae, items):
    items[0][0].path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"0\.png is empty"):
        LatentCache(tmp_path / "cache", vae).fill(items)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        store.write(tmp_path / "a.bin", {"x": torch.ones(3)})
    assert not list(tmp_path.iterdir())


def test_identity_is_that_of_config_and_weights(vae):
    same = AutoencoderKL.from_config(vae.config)
    same.load_state_dict(vae.state_dict())
    assert identity(same) == identity(vae)
    same.decoder.conv_out.bias.data[0] += 1e-6
    assert identity(same) != identity(vae)


class Encoder:
    """One chunk of 77 for each word; a state tells its caption's length and its chunk."""

    def __init__(self, pooled: bool):
        self.seen, self.pooled = [], pooled

    def __call__(self, captions: list[str]) -> Conditioning:
        self.seen += captions
        [caption] = captions
        chunks = [torch.full((77, 8), float(len(caption) + n)) for n in range(max(1, len(caption.split())))]
        return Conditioning(
            torch.cat(chunks)[None], torch.full((1, 4), float(len(caption))) if self.pooled else None
        )


@pytest.mark.parametrize("pooled", [True, False])
def test_text_states_are_padded_with_empty_chunks(tmp_path: Path, pooled):
    cache = TextCache(tmp_path, "clip", Encoder(pooled))
    found = cache.load(["one two three", "one", ""])
    assert found.tokens.shape == (3, 3 * 77, 8)
    assert found.tokens[:, ::77, 0].tolist() == [[13, 14, 15], [3, 0, 0], [0, 0, 0]]
    assert (found.pooled.tolist() == [[13] * 4, [3] * 4, [0] * 4]) if pooled else found.pooled is None


def test_texts_are_encoded_once_and_edited_ones_anew(tmp_path: Path):
    told = []
    TextCache(tmp_path, "clip", Encoder(False)).fill(["a", "b", "a"], on_progress=lambda *n: told.append(n))
    assert told == [(1, 3), (2, 3), (3, 3)]  # the empty caption is one of them
    encoder = Encoder(False)
    TextCache(tmp_path, "clip", encoder).fill(["a", "b!"])
    assert encoder.seen == ["b!"]
    TextCache(tmp_path, "clip, skip 2", encoder).fill(["a"])
    assert encoder.seen == ["b!", "a", ""]


def test_damaged_text_states_are_made_again(tmp_path: Path):
    encoder = Encoder(True)
    cache = TextCache(tmp_path, "clip", encoder)
    cache.fill(["a"])
    for path in tmp_path.rglob("*.bin"):
        path.write_bytes(path.read_bytes()[:30])
    cache.load(["a"])
    assert encoder.seen == ["a", "", "a"]
