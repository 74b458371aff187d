"""Regularisation pictures that the base model draws."""

import pytest
from PIL import Image
from small_runs import body, config_for, notes, stop_at

from lora_sd import config as cfg
from lora_sd import run, sample
from lora_sd.models.load import load
from lora_sd.training.train import resume, train

DRAWN = {
    "data.trigger": "mycat",
    "data.regularisation_draw": 3,
    "data.regularisation_caption": "a cat",
    "preview.steps": 2,
}


def drawn():
    return sorted((run.home() / "cache" / "drawn").rglob("*.png"))


def test_they_are_what_the_base_model_draws_and_are_kept_for_the_next_run(tiny_folder, pictures):
    train(config_for(tiny_folder("sd15"), pictures, **DRAWN))
    models = load(str(tiny_folder("sd15")))
    [expected] = sample.generate(
        models, "a cat", seeds=[1], steps=2, guidance=5.0, size=(models.resolution, models.resolution)
    )
    before = {path: path.stat().st_mtime_ns for path in drawn()}
    assert Image.open(list(before)[1]).tobytes() == expected.tobytes() and len(before) == 3
    assert any("for regularisation: 3 of 3" in note for note in notes())

    train(config_for(tiny_folder("sd15"), pictures, **DRAWN, **{"data.regularisation_weight": 0.5}))
    assert {path: path.stat().st_mtime_ns for path in drawn()} == before
    train(config_for(tiny_folder("sd15"), pictures, **{**DRAWN, "data.regularisation_draw": 2}))
    assert any("for regularisation: 2 of 2" in note for note in notes())


def test_they_train_as_the_same_pictures_in_a_folder_do(tiny_folder, pictures, tmp_path):
    ours = train(config_for(tiny_folder("sd15"), pictures, **DRAWN))
    folder = tmp_path / "class"
    folder.mkdir()
    for path in drawn():
        (folder / path.name).write_bytes(path.read_bytes())
    theirs = {**DRAWN, "data.regularisation_draw": 0, "data.regularisation": str(folder)}
    assert body(train(config_for(tiny_folder("sd15"), pictures, **theirs))) == body(ours)


def test_a_stopped_run_resumes_with_them(tiny_folder, pictures):
    config = config_for(tiny_folder("sd15"), pictures, **DRAWN)
    whole = body(train(config))
    train(config, on_event=stop_at(2))
    assert body(resume(run.list_runs()[0].folder)) == whole


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"data.regularisation_caption": " "}, "it needs data.regularisation_caption"),
        ({"data.regularisation": "folder"}, "it must be 0 where data.regularisation is a folder"),
    ],
)
def test_what_they_shall_show_must_be_said_once(changes, words):
    with pytest.raises(ValueError, match=words):
        cfg.changed(cfg.TrainConfig(), {**DRAWN, **changes})
