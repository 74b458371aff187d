import json
import shutil

import pytest
from PIL import Image
from small_runs import body, config_for, notes, stop_at

from lora_sd import __main__ as cli
from lora_sd import config as cfg
from lora_sd import run
from lora_sd.training import sameness
from lora_sd.training.train import resume, train


@pytest.fixture
def stopped(tiny_folder, pictures):
    """A run of 6 steps that was stopped at the second, its settings and pictures."""
    config = config_for(tiny_folder("sd15"), pictures, **{"optim.steps": 6})
    train(config, stop_at(2))
    return run.list_runs()[0].folder


def refused(folder, **options) -> str:
    with pytest.raises(sameness.Changed) as caught:
        resume(folder, **options)
    return str(caught.value)


def another(path):
    Image.new("RGB", (128, 128), "red").save(path)


CHANGES = {
    "a picture is gone": (lambda folder: (folder / "1.png").unlink(), "1.png is gone"),
    "a picture is new": (lambda folder: shutil.copy(folder / "0.png", folder / "4.png"), "4.png is new"),
    "a picture is another": (lambda folder: another(folder / "0.png"), "0.png is another picture"),
    "a caption": (lambda folder: (folder / "2.txt").write_text("new words"), "2.png is captioned otherwise"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_pictures_or_captions_are_listed_and_asked_for(stopped, pictures, name):
    change, words = CHANGES[name]
    (pictures / "4.txt").write_text("picture 4")
    change(pictures)
    assert words in refused(stopped)
    assert run.read_events(stopped)[0][-1].code == "changed"
    assert resume(stopped, accept_changes=True).exists()
    assert any("Going on differently, as accepted" in note and words in note for note in notes(stopped))


def test_settings_that_change_the_mathematics_are_listed_and_asked_for(stopped):
    changes = {"optim.learning_rate": 5e-3, "loss.min_snr": 0.0, "save.every": 1}
    sentence = refused(stopped, changes=changes)
    assert (
        "optim.learning_rate was 0.01 and is 0.005" in sentence
        and "loss.min_snr was 5.0 and is 0.0" in sentence
    )
    assert "save.every" not in sentence and "--accept-changes" in sentence
    assert cfg.load(stopped / "config.toml").optim.learning_rate == 1e-2  # nothing was taken over
    assert run.read_state(stopped).status == "stopped"
    resume(stopped, changes=changes, accept_changes=True)
    assert cfg.load(stopped / "config.toml").optim.learning_rate == 5e-3


def test_a_setting_that_is_newer_than_the_run_is_a_change_unless_it_is_off(stopped):
    path = stopped / "state" / sameness.NAME
    facts = json.loads(path.read_text())
    kept = {name: value for name, value in facts["settings"].items() if not name.startswith("noise.")}
    path.write_text(json.dumps(facts | {"settings": kept}))
    assert "noise.offset was 0.0 and is 0.1" in refused(stopped, changes={"noise.offset": 0.1})
    assert resume(stopped).exists()


def test_every_setting_of_the_noise_and_the_loss_is_mathematics():
    of_both = {s.name for s in cfg.settings() if s.name.startswith(("noise.", "loss."))}
    assert of_both and of_both <= sameness.mathematics(cfg.TrainConfig()).keys()


def test_repeats_of_single_pictures_are_told_as_a_change_of_these_pictures(stopped):
    sentence = refused(stopped, changes={"data.repeats": {"0.png": 3, "1.png": 0, "2.png": 1}})
    assert "1.png is gone; 0.png is counted, cropped or masked otherwise. Put that back" in sentence
    assert resume(stopped, changes={"data.repeats": {"2.png": 1}}).exists()


def test_an_edited_settings_file_is_a_change_too(stopped):
    text = (stopped / "config.toml").read_text()
    (stopped / "config.toml").write_text(text.replace("seed = 42\n", "seed = 43\n", 1))
    assert "seed was 42 and is 43" in refused(stopped)


def test_a_trainer_that_the_page_started_writes_down_why_it_does_not_go_on(stopped, monkeypatch, capsys):
    text = (stopped / "config.toml").read_text()
    (stopped / "config.toml").write_text(text.replace("seed = 42\n", "seed = 43\n", 1))
    assert cli.main(["resume", str(stopped)]) == cli.BAD_INPUT
    assert "seed was 42 and is 43" in capsys.readouterr().err and run.read_state(stopped).status == "stopped"
    monkeypatch.setenv(run.CHILD, "1")
    assert cli.main(["resume", str(stopped)]) == cli.BAD_INPUT
    state = run.read_state(stopped)
    assert (state.status, state.step) == ("failed", 2) and "seed was 42 and is 43" in state.error
    assert run.read_events(stopped)[0][-1].code == "changed"


def test_another_base_model_is_a_change(stopped, tiny_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "other"
    shutil.copytree(tiny_folder("sd15"), copy)
    [file] = (copy / "unet").glob("*.safetensors")
    save_file({name: tensor + 0.01 for name, tensor in load_file(file).items()}, file)
    assert "the base model is another one" in refused(stopped, changes={"model.base": str(copy)})


def test_pictures_that_moved_and_settings_that_change_no_number_are_no_change(stopped, pictures, tmp_path):
    whole = train(cfg.changed(cfg.load(stopped / "config.toml"), {"output.name": "whole"}))
    moved = pictures.rename(tmp_path / "elsewhere")
    changes = {"data.images": str(moved), "save.every": 2, "preview.seed": 1, "output.name": "other"}
    assert body(resume(stopped, changes=changes)) == body(whole)


def test_before_the_first_step_everything_may_change(tiny_folder, pictures):
    folder = run.create(config_for(tiny_folder("sd15"), pictures))
    assert resume(folder, changes={"optim.learning_rate": 1e-3, "lora.rank": 1}).exists()
