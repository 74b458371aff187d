"""What the README says to type works as written, only shorter."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lora_sd import __main__ as cli
from lora_sd import config as cfg
from lora_sd import run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python -m lora_sd (.+)$", README, re.MULTILINE)
[PYTHON] = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
SHORTER = ["--optim.steps", "1", "--preview.every", "0", "--validate.images", "", "--lora.rank", "2"]


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder like a clone's root to run commands in."""
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_run_one_after_the_other(clone, capsys):
    for command in COMMANDS:
        name = next((found.folder.name for found in run.list_runs() if found.state.status == "finished"), "")
        words = shlex.split(command.replace("RUN", name).replace("--extend 500", "--extend 1"))
        if words[0] == "train" and "--help" not in words:
            assert cli.main([*words, *SHORTER]) == 0
            [found] = run.list_runs()
            shutil.copy(run.checkpoints(found.folder)[-1], clone)
        else:
            assert cli.main([*words, *(["--steps", "1"] if words[0] == "generate" else [])]) == 0
    assert [words.split()[0] for words in COMMANDS] == [
        *("train", "generate", "inspect", "train", "resume", "queue", "queue")
    ]
    assert (clone / "icons.safetensors").exists()


def test_the_python_runs(clone):
    preset = clone / "presets" / "starter_quick.toml"
    quick = {"optim.steps": 1, "preview.every": 0, "validate.images": "", "lora.rank": 2}
    preset.write_text(cfg.dumps(cfg.changed(cfg.load(preset), quick)))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", PYTHON], check=True, cwd=clone, env=env, timeout=300)
    assert (clone / "koala.png").exists()


def test_the_set_up_commands_are_the_two_of_launch_py():
    assert "```\npython launch.py\npython launch.py test\n```" in README


@pytest.mark.parametrize(
    "path",
    sorted(set(re.findall(r"`((?:lora_sd|presets|app|docs|tools|tests|benchmarks)/[\w./]*)`", README))),
)
def test_every_path_it_names_is_there(path):
    assert (ROOT / path).exists()


def test_every_link_of_its_own_is_there():
    links = [link for link in re.findall(r"\]\((?!http)([^)]+)\)", README)]
    assert links and all((ROOT / link).exists() for link in links)
