"""A problem report: what helps is in it, and nothing that tells who made it or of what."""

import getpass
import json
import zipfile
from pathlib import Path

import pytest

from lora_sd import __main__ as cli
from lora_sd import config, events, report, run
from lora_sd.recorder import Recorder

CAPTION = "portrait of Anna Müller on her red sofa, evening light, in her flat"
PROMPT = 'Anna "the cat" Müller in the rain'
TOKEN = "hf_abcdefghijklmnopqrstuvwx"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """A run that failed, whose log and events are full of personal things."""
    monkeypatch.setattr(getpass, "getuser", lambda: "annam")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/annam"))
    monkeypatch.setenv("LORA_SD_PASSWORD", "correct horse")
    pictures = tmp_path / "anna at home"
    pictures.mkdir()
    (pictures / "IMG_2024.png").touch()
    (pictures / "IMG_2024.txt").write_text(CAPTION)
    settings = {
        "data.images": str(pictures),
        "data.trigger": "annamuller_lx",
        "preview.prompts": [PROMPT],
        "output.name": "anna",
        "lora.rank": 12,
    }
    recorder = Recorder(run.create(config.changed(config.TrainConfig(), settings)), 100)
    recorder(events.Step(step=1, total=100, loss=0.125, seconds=1.0))
    recorder(events.Preview(step=1, prompt=PROMPT, index=0, path="previews/000001-0.png"))
    recorder(events.Note(f"The caption '{CAPTION[:40]}…' of IMG_2024.png has 90 tokens"))
    log = f"{pictures}/IMG_2024.png\nC:\\Users\\Someone\\x.py\n/home/annam/lora_sd/a.py: annam\nsavannah\ntoken={TOKEN}\n"
    (recorder.folder / "log.txt").write_text(
        f"{log}correct horse\nnetwork: token is not set\nloss 0.125\n{PROMPT}\n"
    )
    recorder(events.Failed(f"No room in {recorder.folder}", details=f"Traceback {TOKEN}", code="disk"))
    recorder.close()
    return recorder.folder


def test_nothing_personal_is_in_it(folder, tmp_path):
    report.save(report.parts(folder), tmp_path / "out" / "report.zip")
    with zipfile.ZipFile(tmp_path / "out" / "report.zip") as archive:
        text = "\n".join(archive.read(name).decode() for name in archive.namelist())
    words = [
        "annam",
        "Anna",
        "Müller",
        "M\\u00fcller",
        "Someone",
        "red sofa",
        "portrait",
        "IMG_2024",
        TOKEN,
        "the cat",
        "correct horse",
        str(tmp_path),
        str(run.home()),
        folder.name,
        "annamuller_lx",
    ]
    assert [word for word in words if word.lower() in text.lower().replace("savannah", "")] == []


def test_what_helps_is_in_it(folder):
    found = {part.name: part.text for part in report.parts(folder)}
    assert json.loads(found["settings.json"])["lora.rank"] == 12
    assert json.loads(found["versions.json"])["python"] and "Disk" in found["doctor.txt"]
    assert "loss 0.125" in found["log.txt"] and "savannah" in found["log.txt"]
    told = [json.loads(line) for line in found["events.jsonl"].splitlines()]
    assert [event["kind"] for event in told] == ["step", "preview", "note", "failed"]
    assert told[0]["loss"] == 0.125 and told[1]["prompt"] == "(prompt)" and told[3]["code"] == "disk"


def test_a_damaged_run_has_a_report_too(folder):
    (folder / "config.toml").write_text("[data\n")
    (folder / "events.jsonl").write_bytes(b'\xff\n{"kind": "no"}\n[]\n')
    (folder / "versions.json").unlink()
    assert {"state.json", "log.txt"} <= {part.name for part in report.parts(folder)}


def test_the_command_says_what_it_saved_and_writes_over_nothing(folder, tmp_path, capsys):
    out = tmp_path / "a.zip"
    assert cli.main(["report", str(folder), "-o", str(out)]) == 0
    assert "settings.json" in capsys.readouterr().out and zipfile.is_zipfile(out)
    assert cli.main(["report", str(folder), "-o", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
