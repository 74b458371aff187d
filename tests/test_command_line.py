"""The command line, called as `python -m lora_sd` calls it."""

import subprocess
import sys

import pytest
from PIL import Image

from lora_sd import __main__ as cli
from lora_sd import config as cfg
from lora_sd import events, flags, run

QUICK = ["--optim.steps", "2", "--lora.rank", "2", "--preview.every", "0", "--save.every", "0"]


def saved_lora(capsys, tmp_path):
    assert (
        cli.main(["train", "--data.images", "starter:streamline", "--output.dir", str(tmp_path), *QUICK]) == 0
    )
    [found] = run.list_runs(tmp_path)
    [path] = run.checkpoints(found.folder)
    capsys.readouterr()
    return path


def test_train_inspect_and_generate(capsys, tmp_path):
    path = saved_lora(capsys, tmp_path)
    assert cli.main(["inspect", str(path)]) == 0
    told = capsys.readouterr().out
    assert "88" in told and "rank" in told.lower()
    out = tmp_path / "pictures"
    prompt = ["generate", "cat face", "--steps", "2", "--out", str(out)]
    assert cli.main([*prompt, "--lora", f"{path}:0.5"]) == 0
    assert cli.main([*prompt, "--lora", str(path)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["cat_face-2.png", "cat_face.png"]
    assert Image.open(out / "cat_face.png").size == (128, 128)


def test_generate_paints_in_a_picture(tiny_folder, pictures, tmp_path):
    Image.new("L", (160, 96), 255).save(tmp_path / "mask.png")
    picture = ["--image", str(pictures / "1.png"), "--mask", str(tmp_path / "mask.png")]
    model = ["--model", str(tiny_folder("sd15-inpainting")), "--steps", "1", "--out", str(tmp_path)]
    assert cli.main(["generate", "cat", *model, *picture]) == 0
    assert Image.open(tmp_path / "cat.png").size == (192, 128)


def test_flags_go_over_the_file(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(cli, "_train", lambda config, folder: seen.append(config) or 0)
    (tmp_path / "run.toml").write_text('[lora]\nrank = 4\n[data]\ntrigger = "abc"\n')
    assert cli.main(["train", str(tmp_path / "run.toml"), "--lora.rank", "8", "--save.every", "10%"]) == 0
    assert cfg.differences(seen[0]) == {"data.trigger": "abc", "lora.rank": 8, "save.every": "10%"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["trian"], "no command 'trian'"),
        (["train", "gone.toml"], "no settings file"),
        (["train", "--lora.rank", "0"], "lora.rank is 0; it must be at least 1."),
        (["train", "--lora.rnk", "8"], "did you mean 'lora.rank'?"),
        (["train", "--data.images", "/nowhere", *QUICK], "There is no folder at"),
        (["train", *QUICK], "data.images is not set"),
        (["resume", "/nowhere"], "no run at /nowhere"),
        (["resume"], "Give the run's folder"),
        (["pause", "/nowhere"], "no run at /nowhere"),
        (["inspect", "/nowhere.safetensors"], "/nowhere.safetensors"),
        (["inspect"], "Give one LoRA or textual-inversion file"),
        (["generate", "a cat", "--model", "/nowhere.safetensors"], "/nowhere.safetensors"),
        (["generate", "a cat", "--sampler", "magic"], "no sampler 'magic'"),
        (["generate", "a cat", "--rescale", "2"], "The rescale is 2.0; it must be 0 to 1."),
        (["generate", "a cat", "--mask", "mask.png"], "Give both --image and --mask"),
        (["generate", "a cat", "--lora", "/nowhere.safetensors:0.5", "--steps", "1"], "/nowhere.safetensors"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(capsys, arguments, sentence):
    assert cli.main(arguments) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("cat.safetensors:0.8", ("cat.safetensors", 0.8)),
        ("cat.safetensors", ("cat.safetensors", 1.0)),
        (r"C:\loras\cat.safetensors", (r"C:\loras\cat.safetensors", 1.0)),
        (r"C:\loras\cat.safetensors:-1", (r"C:\loras\cat.safetensors", -1.0)),
    ],
)
def test_a_strength_stands_after_the_last_colon(text, parsed):
    assert flags.strength_of(text) == parsed


def test_a_stopped_run_exits_with_3_and_can_be_resumed(tmp_path, monkeypatch):
    config = cfg.changed(
        cfg.TrainConfig(),
        {
            "data.images": "starter:streamline",
            "optim.steps": 3,
            "preview.every": 0,
            "output.dir": str(tmp_path),
            "lora.rank": 2,
        },
    )
    folder = run.create(config)
    step = cli.Progress.step

    def stop_at_1(self, event):
        step(self, event)
        if event.step == 1:
            run.command(folder, "stop")

    monkeypatch.setattr(cli.Progress, "step", stop_at_1)
    assert cli.main(["resume", str(folder)]) == cli.STOPPED
    assert cli.main(["resume", str(folder)]) == cli.DONE
    assert run.read_state(folder).status == "finished"


def test_ctrl_c_stops_and_saves(tmp_path):
    """The real process, the real signal: it ends with 3, and its files are there."""
    flags = [
        "--data.images",
        "starter:streamline",
        "--output.dir",
        str(tmp_path),
        "--lora.rank",
        "2",
        "--preview.every",
        "0",
    ]
    child = subprocess.Popen(
        [sys.executable, "-m", "lora_sd", "train", *flags], stderr=subprocess.PIPE, text=True
    )
    for line in child.stderr:
        if "/1000" in line:
            child.send_signal(2)
            break
    rest = child.stderr.read()
    assert child.wait(120) == cli.STOPPED and "resume" in rest
    [found] = run.list_runs(tmp_path)
    assert found.state.status == "stopped" and run.checkpoints(found.folder)


def test_progress_counts_down_in_words(capsys):
    progress = cli.Progress(run.home())
    progress(events.Step(step=50, total=100, loss=0.1, seconds=2.0))
    told = capsys.readouterr().err
    assert "50/100" in told and "2.0 s/step" in told and "1 min 40 s left" in told


def test_importing_the_package_does_not_import_torch():
    code = (
        "import sys, lora_sd, lora_sd.config, lora_sd.run, lora_sd.__main__; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_settings_of_sd_scripts_are_printed_or_written_as_ours(tmp_path, capsys):
    theirs, ours = tmp_path / "theirs.toml", tmp_path / "ours.toml"
    theirs.write_text('network_dim = 8\ntrain_data_dir = "cats"\nxformers = true')
    assert cli.main(["import", str(theirs)]) == 0
    told = capsys.readouterr()
    assert "Ignored (1):\n  xformers = true: attention" in told.err
    assert cli.main(["import", str(theirs), "-o", str(ours)]) == 0
    assert ours.read_text() == told.out and capsys.readouterr().out == ""
    config = cfg.load(ours)
    assert (config.lora.rank, config.data.images) == (8, str(tmp_path / "cats"))
    for wrong in (
        ["import"],
        ["import", "-o"],
        ["import", str(theirs), "-o"],
        ["import", str(theirs), "-o", str(ours)],
    ):
        assert cli.main(wrong) == 2
