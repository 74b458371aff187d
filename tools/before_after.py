"""The README's picture: what a LoRA of the example set changes.

Row 1: the starter model. Row 2: asked for a style whose name it has never seen. Row 3: the same prompts and seed with the LoRA.

    python tools/before_after.py LORA.safetensors docs/before_after.png
"""

import argparse
from pathlib import Path

from PIL import Image

from lora_sd import sample
from lora_sd.models.load import load

PROMPTS = ("cat face", "red apple", "house", "rocket", "octopus", "fire engine")
STYLE = "streamline style"


def sheet(rows: list[list[Image.Image]], *, side: int = 160, gap: int = 8) -> Image.Image:
    """Pictures in rows on white."""
    width, height = len(rows[0]) * (side + gap) + gap, len(rows) * (side + gap) + gap
    page = Image.new("RGB", (width, height), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            resized = picture.resize((side, side), Image.Resampling.LANCZOS)
            page.paste(resized, (gap + x * (side + gap), gap + y * (side + gap)))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lora", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    models = load("starter")
    styled = [f"{prompt}, {STYLE}" for prompt in PROMPTS]

    rows = [
        sample.generate(models, prompts, loras=loras, seeds=[asked.seed], guidance=4.0)
        for prompts, loras in ((PROMPTS, {}), (styled, {}), (styled, {asked.lora: 1.0}))
    ]
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(rows).save(asked.out)


if __name__ == "__main__":
    main()
