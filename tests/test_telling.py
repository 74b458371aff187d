"""A command with --events tells lines of JSON, and stops at "cancel" with nothing half made."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from workshop_files import random_pairs, write

from lora_sd import __main__ as cli

ROOT = Path(__file__).parents[1]


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    return write(tmp_path / "cat.safetensors", random_pairs("sd15", every=90), "sd15")


def test_progress_and_outcome_are_lines_of_json(lora, tmp_path, capsys):
    assert cli.main(["resize", str(lora), str(tmp_path / "new.safetensors"), "--rank", "2", "--events"]) == 0
    *progress, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert [message["done"] for message in progress] == list(range(1, last["layers"] + 1))
    assert last["kind"] == "done" and last["ranks"] == [2, 2] and 0 < last["error"] < 1
    assert last["size"] == (tmp_path / "new.safetensors").stat().st_size


def test_cancel_stops_it_and_leaves_nothing(lora, tmp_path):
    folder = tmp_path / "new"
    command = [
        sys.executable,
        "-m",
        "lora_sd",
        "resize",
        str(lora),
        str(folder / "new.safetensors"),
        "--events",
    ]
    done = subprocess.run(command, cwd=ROOT, input="cancel\n", capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and '"done", "lines"' not in done.stdout
    assert not folder.exists() or not [*folder.iterdir()]


def test_what_is_wrong_is_one_sentence_on_standard_error(tmp_path, capsys):
    assert cli.main(["check", str(tmp_path / "nowhere.safetensors"), "--events"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("There is no file at")
