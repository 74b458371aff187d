"""Two processes on the CPU, started as people start them, against one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lora_sd import config as cfg
from lora_sd import events, run
from lora_sd.training import world
from lora_sd.training.train import train

ROOT = Path(__file__).parent.parent
LAUNCHER = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node",
    "2",
    "-m",
    "lora_sd",
]


@pytest.fixture
def config(tiny_folder, tmp_path):
    """Five pictures of two shapes: batches that two processes can't share evenly, one of them of a single picture."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, size in enumerate([(128, 128)] * 4 + [(160, 96)]):
        noise = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(index))
        Image.fromarray(noise.to(torch.uint8).numpy()).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"picture {index}")
    settings = {
        "model.base": str(tiny_folder("sd15")),
        "data.images": str(folder),
        "validate.images": str(folder),
        "validate.every": 4,
        "lora.rank": 2,
        "optim.steps": 4,
        "optim.batch_size": 3,
        "optim.accumulation": 2,
        "optim.learning_rate": 1e-2,
        "preview.every": 4,
        "preview.steps": 1,
        "save.every": 2,
        "save.dtype": "fp32",
        "machine.device": "cpu",
    }
    return cfg.changed(cfg.TrainConfig(), settings)


def launch(*arguments, home):
    environment = {**os.environ, "LORA_SD_HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*LAUNCHER, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def steps_of(folder):
    return [e for e in run.read_events(folder)[0] if isinstance(e, events.Step)]


def test_two_processes_train_what_one_does(config, home, tmp_path_factory):
    alone = load_file(train(config))
    wanted = steps_of(run.list_runs()[0].folder)
    shared_home = tmp_path_factory.mktemp("shared")
    file = shared_home / "run.toml"
    file.write_text(cfg.dumps(config))
    _, said = (process := launch("train", file, home=shared_home)).communicate()
    assert process.returncode == 0, said
    [folder] = (shared_home / "runs").iterdir()
    together = load_file(run.checkpoints(folder)[-1])
    assert_the_same(together, alone)
    told = steps_of(folder)
    assert [e.loss for e in told[1:]] == pytest.approx([e.loss for e in wanted[1:]], rel=1e-5)
    measured = [[e.held_out for e in steps if e.held_out] for steps in (told, wanted)]
    assert measured[0] == pytest.approx(measured[1], rel=1e-5) and len(measured[0]) == 2
    assert len(list((folder / "previews").iterdir())) == 6 and len(run.checkpoints(folder)) == 2
    assert run.read_state(folder).status == "finished"


def assert_the_same(weights, wanted):
    """To 2 % of a step: AdamW divides by the gradient's size, so where that is nearly 0 rounding is all there is."""
    for key, tensor in wanted.items():
        torch.testing.assert_close(weights[key], tensor, rtol=1e-4, atol=2e-4)


def test_two_processes_stop_together_and_one_goes_on_where_they_were(config, home):
    config = cfg.changed(
        config, {"preview.every": 0, "validate.images": "", "optim.steps": 30, "save.every": 0}
    )
    whole = load_file(train(config))
    folder = run.create(config)
    process = launch("resume", folder, home=home)
    while process.poll() is None and run.read_state(folder).step < 2:
        time.sleep(0.05)
    run.command(folder, "stop")
    _, said = process.communicate()
    assert run.read_state(folder).status == "stopped" and 2 <= run.read_state(folder).step < 30, said
    assert_the_same(load_file(train(config, folder=folder)), whole)


def test_every_process_says_in_a_sentence_what_is_wrong(home):
    _, said = (process := launch("train", "--data.images", home / "nowhere", home=home)).communicate()
    sentences = [line for line in said.splitlines() if "nowhere" in line]
    assert process.returncode != 0 and "Process 1: " in said and len(sentences) == 2
    assert "lora_sd/training" not in said  # no traceback of ours


def test_without_a_launcher_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = world.join("cpu")
    assert (
        alone == (0, 1, 0, 1)
        and alone.first
        and alone.agree("stop") == "stop"
        and alone.total(2.5, "cpu") == 2.5
        and alone.most(3, "cpu") == 3
    )
    numbers = torch.ones(3)
    alone.add_up(numbers)
    alone.wait()
    assert numbers.tolist() == [1, 1, 1]


def test_a_launcher_tells_in_the_environment(monkeypatch):
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert world.told() == world.World(rank=5, size=8, local_rank=1, local_size=4)
    assert not world.told().first and world.told().here == (1, 4)
