"""A short version of kills.py, on a tiny model: each kill at a random file operation or moment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

KILLS = Path(__file__).parent / "kills.py"
NUM_KILLS = 10

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture
def settings(tiny_folder, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, size in enumerate([(128, 128), (160, 96), (128, 128), (96, 160)]):
        noise = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(index))
        Image.fromarray(noise.to(torch.uint8).numpy()).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"picture {index}")
    return {
        "model.base": str(tiny_folder("sd15")),
        "data.images": str(folder),
        "validate.split": 0.25,
        "validate.every": 2,
        "lora.rank": 2,
        "optim.steps": 10,
        "optim.batch_size": 2,
        "optim.accumulation": 2,
        "optim.schedule": "cosine",
        "optim.ema": 0.9,
        "save.every": 2,
        "save.keep_last": 2,
        "save.keep_best": True,
        "save.state_every": 2,
        "preview.every": 5,
        "preview.steps": 1,
        "preview.prompts": ["a cat"],
    }


def test_a_run_that_is_killed_again_and_again_ends_with_the_bytes_of_one_that_was_not(settings):
    """In a process of its own: one in which torch has worked already can't be forked."""
    command = [sys.executable, str(KILLS), "--kills", str(NUM_KILLS), "--settings", json.dumps(settings)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=500
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"{NUM_KILLS} kills (")
