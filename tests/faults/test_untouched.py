"""A person's own pictures and captions are only ever read: seen from inside, at every file operation of a training."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import config_for

from lora_sd import run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="harness.py needs fork")

WATCHED = """
import json, sys
sys.path.insert(0, {here!r})
import harness
from app.project import open_project
from pathlib import Path
operations = []
harness.watch_files(operations.append)
code = harness.cli.main(["resume", {folder!r}])
open_project("mine").add([Path({pictures!r})])
open_project("mine").clear()
print(json.dumps([code, operations]))
"""


def contents(folder):
    return {
        path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns, path.stat().st_mode)
        for path in folder.iterdir()
    }


def test_no_operation_touches_them(tiny_folder, pictures):
    (pictures / "0.txt").write_bytes("\ufeffwith a mark".encode())
    (pictures / "damaged.png").write_bytes(b"\x89PNG")
    settings = {
        "data.on_bad_image": "skip",
        "data.trigger": "sks",
        "validate.images": str(pictures),
        "optim.steps": 1,
    }
    folder = run.create(config_for(tiny_folder("sd15"), pictures, **settings))
    before = contents(pictures)
    code = WATCHED.format(here=str(Path(__file__).parent), folder=str(folder), pictures=str(pictures))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    exit_code, operations = json.loads(done.stdout.splitlines()[-1])
    assert exit_code == 0 and len(operations) > 20
    assert [operation for operation in operations if str(pictures) in operation] == []
    assert contents(pictures) == before
