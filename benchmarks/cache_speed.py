"""Pictures and captions encoded a second: `python benchmarks/cache_speed.py --model DIR`, without one the starter model.

Ours is the cache that training fills: read, encoded and written to disk at the same time. Beside it a plain loop as
example scripts have it, which keeps nothing: open, resize, encode, one after the other. Pictures are twice as large a side
as the model's resolution, as photographs are. The last rows are a second start and the batches of an epoch.
"""

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import make_images
import numpy as np
import torch
from PIL import Image
from train_speed import aligned

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lora_sd import hardware  # noqa: E402
from lora_sd.data import batches, buckets  # noqa: E402
from lora_sd.data.cache import Item, LatentCache, TextCache  # noqa: E402
from lora_sd.data.folder import find_examples  # noqa: E402
from lora_sd.models import text  # noqa: E402
from lora_sd.models.family import Models  # noqa: E402
from lora_sd.models.load import load  # noqa: E402


@torch.no_grad()
def plain_pictures(models: Models, items: list[Item]) -> None:
    for example, fit in items:
        picture = Image.open(example.path).convert("RGB").resize(fit.bucket, Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1
        models.vae.encode(pixels[None].to(models.device)).latent_dist.sample().cpu()


@torch.no_grad()
def plain_captions(models: Models, captions: list[str]) -> None:
    for caption in captions:
        text.encode(models, [caption]).tokens.cpu()


def text_cache(models: Models, folder: Path) -> TextCache:
    def num_chunks(captions: list[str]) -> list[int]:
        return [max(1, -(-count // text.CHUNK)) for count in text.token_counts(models, captions)]

    return TextCache(folder, "benchmark", functools.partial(text.encode, models), num_chunks=num_chunks)


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def rates(models: Models, items: list[Item], folder: Path) -> dict[str, float]:
    """Pictures or captions a second, of each way."""
    captions = [example.caption for example, _ in items]
    states = text_cache(models, folder)
    took = {
        "pictures, plain loop": seconds(lambda: plain_pictures(models, items)),
        "pictures, ours": seconds(lambda: LatentCache(folder, models.vae).fill(items)),
        "captions, plain loop": seconds(lambda: plain_captions(models, captions)),
        "captions, ours": seconds(lambda: states.fill(captions)),
    }
    latents = LatentCache(folder, models.vae)
    took["pictures, ours again"] = seconds(lambda: latents.fill(items))
    took["an epoch's batches"] = seconds(
        lambda: [batches.collate(items[start : start + 4], latents) for start in range(0, len(items), 4)]
    )
    return {name: len(items) / duration for name, duration in took.items()}


def items_of(folder: Path, resolution: int, step: int) -> list[Item]:
    sizes = buckets.make_buckets(resolution, step=buckets.step_for(resolution, step))
    examples = find_examples(folder).examples
    return [(e, buckets.fit(e.size, buckets.nearest(e.size, sizes))) for e in examples]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--resolution", type=int, help="side in pixels; the model's own unless given")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args(arguments)

    device, dtype = hardware.choose()
    models = load(asked.model, dtype=dtype, device=device)
    resolution = asked.resolution or models.resolution
    with tempfile.TemporaryDirectory() as folder:
        make_images.write(Path(folder) / "pictures", asked.pictures, 2 * resolution)
        items = items_of(Path(folder) / "pictures", resolution, models.family.bucket_step)
        rates(
            models, items[:8], Path(folder) / "warm"
        )  # kernels are chosen and libraries loaded at first use
        rounds = [rates(models, items, Path(folder) / str(number)) for number in range(asked.repeats)]
    print(f"{Path(asked.model).name} at {resolution} pixels, {device}, {asked.pictures} pictures")
    print(table({name: statistics.median(found[name] for found in rounds) for name in rounds[0]}))


def table(found: dict[str, float]) -> str:
    rows = [["", "a second", "× plain loop"]]
    for name, rate in found.items():
        plain = found.get(f"{name.split(',')[0]}, plain loop")
        rows.append(
            [name, f"{rate:.2f}" if rate < 100 else f"{rate:.0f}", f"{rate / plain:.2f}" if plain else "–"]
        )
    return aligned(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
