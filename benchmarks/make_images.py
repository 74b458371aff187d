"""Smooth random pictures with captions: `python benchmarks/make_images.py OUT 32 512`, in OUT/1_sks.

`--shapes 10` gives them ten sizes of about equal area, each exactly a bucket of its own. A caption file lies beside every
picture, and a metadata.jsonl for programs that read that.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lora_sd.data import buckets  # noqa: E402


def sizes(resolution: int, count: int) -> list[buckets.Size]:
    """The `count` bucket sizes (w, h) nearest to a square, the square first."""
    found = buckets.make_buckets(resolution, step=buckets.step_for(resolution, 64))
    if count > len(found):
        raise ValueError(
            f"--shapes is {count}; at {resolution} pixels there are {len(found)} buckets at most."
        )
    return sorted(found, key=lambda size: (max(size) / min(size), size))[:count]


def write(out: Path, count: int, resolution: int, *, shapes: int = 1, repeats: int = 1) -> None:
    """`count` pictures, the shapes in turn; the same pixels every time."""
    folder = out / f"{repeats}_sks"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    captions = {}
    for index in range(count):
        size = sizes(resolution, shapes)[index % shapes]
        coarse = Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{index:03d}.png")
        captions[f"{index:03d}.png"] = caption = f"sks style, a picture number {index}"
        (folder / f"{index:03d}.txt").write_text(caption)
    lines = [json.dumps({"file_name": name, "text": caption}) for name, caption in captions.items()]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("resolution", type=int, help="side in pixels of a square of equal area")
    parser.add_argument("--shapes", type=int, default=1, help="how many sizes")
    parser.add_argument("--repeats", type=int, default=1, help="the N of the subfolder N_sks")
    asked = parser.parse_args(arguments)
    write(asked.out, asked.count, asked.resolution, shapes=asked.shapes, repeats=asked.repeats)
    print(f"{asked.out}: {asked.count} pictures of {asked.shapes} sizes at {asked.resolution}")


if __name__ == "__main__":
    main(sys.argv[1:])
