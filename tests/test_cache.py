"""Cached latents and text states equal fresh ones, are never stale, and mend themselves."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from lora_sd.data import cache as cache_module
from lora_sd.data import images
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


def test_a_restart_goes_on_where_it_was(tmp_path: Path, vae, items):
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise Stopped

    first = Counting(vae)
    with pytest.raises(Stopped):
        LatentCache(tmp_path / "cache", first).fill(items, on_progress=stop)
    kept = len(list((tmp_path / "cache" / "latents").rglob("*.bin")))
    assert 2 <= kept <= len(first.seen)  # what was told is on disk

    told = []
    second = Counting(vae)
    LatentCache(tmp_path / "cache", second).fill(items, on_progress=lambda *counts: told.append(counts))
    assert told == [(done, 5) for done in range(kept, 6)]
    assert len(second.seen) == 5 - kept


def test_a_picture_counts_as_done_once_its_file_is_there(tmp_path: Path, vae, items):
    def check(done: int, total: int) -> None:
        assert len(list((tmp_path / "cache" / "latents").rglob("*.bin"))) >= done

    LatentCache(tmp_path / "cache", vae).fill(items, on_progress=check, batch_size=2)


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_the_work_and_each_can_load_all(tmp_path: Path, vae, items, size):
    caches = [LatentCache(tmp_path / "cache", Counting(vae)) for _ in range(size)]
    for rank, cache in enumerate(caches):
        cache.fill(items, share=(rank, size))
    assert sum(len(cache.vae.seen) for cache in caches) == len(items)
    assert max(len(cache.vae.seen) for cache in caches) == -(-len(items) // size)

    LatentCache(tmp_path / "alone", vae).fill(items)
    alone = LatentCache(tmp_path / "alone", vae)
    for item in items:
        for cache in caches:
            assert all(map(torch.equal, cache.load(*item), alone.load(*item)))
    assert sum(len(cache.vae.seen) for cache in caches) == len(items)


def test_the_processors_bits_do_not_depend_on_the_grouping(tmp_path: Path, vae, items):
    LatentCache(tmp_path / "some", vae).fill(items[3:])
    LatentCache(tmp_path / "some", vae).fill(items)
    LatentCache(tmp_path / "all", vae).fill(items)
    some, every = LatentCache(tmp_path / "some", vae), LatentCache(tmp_path / "all", vae)
    assert all(torch.equal(some.load(*item)[0], every.load(*item)[0]) for item in items)


class Small(Counting):
    """A VAE on a card with room for so many pixels."""

    def __init__(self, vae, pixels: int):
        super().__init__(vae)
        self.pixels = pixels
        self.use_tiling, self.tile_sample_min_size, self.tile_latent_min_size = False, 512, 64

    def encode(self, pixels):
        tile = min(pixels.shape[2], self.tile_sample_min_size if self.use_tiling else 512)
        if len(pixels) * tile * tile > self.pixels:
            raise torch.OutOfMemoryError
        return super().encode(pixels)


def test_batches_are_halved_until_they_fit(tmp_path: Path, vae, items):
    small, square = Small(vae, pixels=2 * 32 * 32), fit((48, 32), (32, 32))
    items = [(example, square) for example, _ in items]
    cache = LatentCache(tmp_path / "cache", small)
    cache.fill(items, batch_size=4)
    assert [shape[0] for shape in small.seen] == [2, 2, 1]
    assert cache.pixels_at_once == 2 * 32 * 32  # what an automatic batch holds from then on
    again = LatentCache(tmp_path / "cache", vae)
    assert all(torch.equal(cache.load(*item)[0], again.load(*item)[0]) for item in items)


def test_a_picture_alone_too_large_is_encoded_in_tiles_or_refused(tmp_path: Path, vae, items):
    item = (items[0][0], fit((48, 32), (64, 64)))
    LatentCache(tmp_path / "cache", tiled := Small(vae, pixels=32 * 32)).fill([item])
    assert len(tiled.seen) == 1 and not tiled.use_tiling
    with pytest.raises(ValueError, match=r"encode 0\.png at 64x64 pixels; close other programs"):
        LatentCache(tmp_path / "other", Small(vae, pixels=31 * 31)).fill([item])


def test_tiles_give_about_the_same_latents(starter):
    pixels = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        whole = starter.vae.encode(pixels).latent_dist.mean
        with cache_module._tiled(starter.vae, 64):
            tiles = starter.vae.encode(pixels).latent_dist.mean
    assert tiles.shape == whole.shape
    assert torch.corrcoef(torch.stack([tiles.flatten(), whole.flatten()]))[0, 1] > 0.8


@pytest.mark.gpu
def test_a_card_encodes_as_the_processor_does(tmp_path: Path, starter):
    made = []
    rng = np.random.default_rng(0)
    for number in range(5):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).resize((128, 128)).save(path)
        made.append((Example(path, "", (128, 128)), fit((128, 128), (128, 128))))
    slow = LatentCache(tmp_path / "slow", starter.vae)
    slow.fill(made)
    fast = LatentCache(tmp_path / "fast", starter.vae.to("cuda"))
    fast.fill(made)
    for item in made:  # convolutions in TF32: 10 bits
        torch.testing.assert_close(fast.load(*item)[0], slow.load(*item)[0], rtol=0.02, atol=0.02)


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


def test_a_second_start_reads_no_cache_file(tmp_path: Path, vae, items, monkeypatch):
    LatentCache(tmp_path, vae).fill(items)
    TextCache(tmp_path, "clip", Encoder(True)).fill(["a", "b"])
    monkeypatch.setattr(cache_module.store, "read", None)
    LatentCache(tmp_path, counting := Counting(vae)).fill(items)
    TextCache(tmp_path, "clip", encoder := Encoder(True)).fill(["a", "b"])
    assert counting.seen == [] and encoder.seen == []


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
    cache = LatentCache(tmp_path / "cache", vae, keep=0)
    cache.fill(items)
    (example, placed), *_ = items
    mean, std = cache.load(example, placed)
    for path in (tmp_path / "cache" / "latents").rglob("*.bin"):
        path.write_bytes(damage(path.read_bytes()))
    assert torch.equal(cache.load(example, placed)[0], mean)

    again = LatentCache(tmp_path / "cache", counting := Counting(vae))
    again.fill(items)
    loaded = [again.load(*item) for item in items]
    assert len(counting.seen) == 4
    assert torch.equal(loaded[0][1], std)


def test_a_file_removed_meanwhile_is_made_again(tmp_path: Path, vae, items):
    cache = LatentCache(tmp_path / "cache", vae, keep=0)
    cache.fill(items)
    mean, _ = cache.load(*items[0])
    for path in (tmp_path / "cache" / "latents").rglob("*.bin"):
        path.unlink()
    assert torch.equal(cache.load(*items[0])[0], mean)


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


def test_identity_is_that_of_config_and_weights(vae):
    same = AutoencoderKL.from_config(vae.config)
    same.load_state_dict(vae.state_dict())
    assert identity(same) == identity(vae)
    same.decoder.conv_out.bias.data[0] += 1e-6
    assert identity(same) != identity(vae)
    assert identity(vae.to(torch.bfloat16)) != identity(vae.to(torch.float32))


def test_one_optimizer_step_on_any_tensor_changes_the_identity():
    layer = torch.nn.Linear(600, 500)  # 300,000 values: of the weight only a sample is hashed
    layer.config = {}
    for parameter in layer.parameters():
        before = identity(layer)
        optimizer = torch.optim.AdamW([parameter], lr=1e-6)
        layer(torch.randn(2, 600)).square().sum().backward()
        optimizer.step()
        assert identity(layer) != before


class Encoder:
    """One chunk of 77 for each word; a state tells its caption's length and its chunk."""

    def __init__(self, pooled: bool):
        self.seen, self.calls, self.pooled = [], 0, pooled

    def __call__(self, captions: list[str]) -> Conditioning:
        self.seen += captions
        self.calls += 1
        [length] = {*chunks(captions)}  # only captions of equal length come together
        tokens = [[[len(caption) + n] * 77 for n in range(length)] for caption in captions]
        tokens = torch.tensor(tokens).float().flatten(1)[..., None].expand(-1, -1, 8)
        lengths = torch.tensor([[len(caption)] * 4 for caption in captions]).float()
        return Conditioning(tokens, lengths if self.pooled else None)


def chunks(captions: list[str]) -> list[int]:
    return [max(1, len(caption.split())) for caption in captions]


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
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]  # the empty caption is one of them
    encoder = Encoder(False)
    TextCache(tmp_path, "clip", encoder).fill(["a", "b!"])
    assert encoder.seen == ["b!"]
    TextCache(tmp_path, "clip, skip 2", encoder).fill(["a"])
    assert encoder.seen == ["b!", "a", ""]


def test_captions_of_equal_length_are_encoded_together(tmp_path: Path):
    texts = ["a", "b c", "d e", "f", "g h i"]
    encoder = Encoder(True)
    batched = TextCache(tmp_path / "batched", "clip", encoder, num_chunks=chunks)
    batched.fill(texts, batch_size=2)
    assert encoder.calls == 4  # three of one chunk, with the empty one; two of two; one of three
    one_by_one = TextCache(tmp_path / "single", "clip", Encoder(True))
    for text in texts:
        assert all(map(torch.equal, batched.load([text]), one_by_one.load([text])))
    assert encoder.calls == 4


def test_processes_share_captions(tmp_path: Path):
    encoders = [Encoder(False), Encoder(False)]
    for rank, encoder in enumerate(encoders):
        TextCache(tmp_path, "clip", encoder).fill(["a", "b", "c d"], share=(rank, 2))
    assert sorted(encoders[0].seen + encoders[1].seen) == ["", "a", "b", "c d"]
    assert len(encoders[0].seen) == 2


def test_damaged_text_states_are_made_again(tmp_path: Path):
    encoder = Encoder(True)
    cache = TextCache(tmp_path, "clip", encoder, keep=0)
    cache.fill(["a"])
    for path in tmp_path.rglob("*.bin"):
        path.write_bytes(path.read_bytes()[:30])
    cache.load(["a"])
    assert encoder.seen == ["a", "", "a"]
