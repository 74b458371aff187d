import shutil

import pytest
from PIL import Image
from small_runs import body, config_for, notes, stop_at

from lora_sd import config as cfg
from lora_sd import length, run
from lora_sd.length import Epoch
from lora_sd.lora.inspection import read_header
from lora_sd.settings import OptimSettings
from lora_sd.training.train import resume, train

PLAIN = Epoch(pictures=20, shown=100, prior=0, batches=25, batch_size=4, accumulation=1)


@pytest.mark.parametrize(
    ("settings", "epoch", "said", "steps"),
    [
        (
            {"epochs": 10},
            PLAIN,
            "20 pictures × 5 repeats = 100 an epoch ÷ batch 4 = 25 steps; 10 epochs = 250 steps",
            250,
        ),
        (
            {"images_seen": 5000},
            PLAIN,
            "20 pictures × 5 repeats = 100 an epoch ÷ batch 4 = 25 steps; 5,000 pictures seen = 1,250 steps",
            1250,
        ),
        (
            {"steps": 30},
            PLAIN,
            "20 pictures × 5 repeats = 100 an epoch ÷ batch 4 = 25 steps; 30 steps = 1.2 epochs",
            30,
        ),
        (
            {},
            Epoch(1, 1, 0, 1, 1, 1),
            "1 picture an epoch ÷ batch 1 = 1 step; 1,000 steps = 1,000 epochs",
            1000,
        ),
        (
            {"epochs": 1},
            Epoch(10, 17, 17, 10, 4, 4),
            "10 pictures, with their repeats 17 + 17 for regularisation = 34 an epoch ÷ batch 4, each batch of one shape, "
            "= 10 batches ÷ accumulation 4 = 2.5 steps; 1 epoch = 3 steps",
            3,
        ),
    ],
    ids=["epochs", "pictures seen", "steps", "nothing set", "everything at once"],
)
def test_a_length_is_counted_and_said(settings, epoch, said, steps):
    assert length.sentence(OptimSettings(**settings), epoch) == said
    assert length.total(OptimSettings(**settings), epoch) == steps


def test_a_length_of_too_many_steps_says_so():
    with pytest.raises(ValueError, match=r"optim\.epochs is 50000, which is 1,250,000 steps.*set it lower"):
        length.total(OptimSettings(epochs=50_000), PLAIN)


def test_one_length_replaces_another_and_two_are_refused():
    config = cfg.changed(cfg.TrainConfig(), {"optim.steps": 50})
    config = cfg.changed(config, {"optim.epochs": 4})
    assert (config.optim.steps, config.optim.epochs, config.optim.known_steps) == (None, 4, 0)
    assert cfg.changed(config, {"optim.images_seen": 10, "lora.rank": 2}).optim.epochs is None
    assert cfg.changed(config, {"lora.rank": 2}).optim.epochs == 4
    with pytest.raises(ValueError, match=r"optim\.steps is 9 and optim\.epochs is 4; a run has one length"):
        cfg.parse({"optim": {"steps": 9, "epochs": 4}})


def last():
    return run.list_runs()[0].folder


@pytest.fixture
def everything(tiny_folder, pictures, tmp_path):
    """A folder whose pictures count twice, another that counts three times, one held out, regularisation, accumulation."""
    twice = pictures / "2_more"
    twice.mkdir()
    shutil.copy(pictures / "0.png", twice / "again.png")
    shutil.copy(pictures / "0.txt", twice / "again.txt")
    for name in ("other", "any"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (96, 160), (80 * number, 9, 9)).save(tmp_path / name / f"{number}.png")
    return config_for(
        tiny_folder("sd15"),
        pictures,
        **{
            "data.trigger": "sks",
            "data.folders": [{"path": str(tmp_path / "other"), "repeats": 3}],
            "data.regularisation": str(tmp_path / "any"),
            "data.regularisation_caption": "a square",
            "validate.split": 0.15,
            "optim.batch_size": 4,
            "optim.accumulation": 2,
            "optim.epochs": 1,
        },
    )


def test_all_that_counts_is_counted_as_training_does_it(everything, monkeypatch):
    """By hand, from the pictures that a whole epoch shows: the batches of the epoch are those that were drawn."""
    from lora_sd.training.prepare import Dataset

    drawn, part = [], Dataset.part
    monkeypatch.setattr(
        Dataset, "part", lambda self, indices, *rest: drawn.append(indices) or part(self, indices, *rest)
    )
    header = read_header(train(everything)).metadata
    num_batches, num_steps = int(header["ss_num_batches_per_epoch"]), int(header["ss_max_train_steps"])
    epoch = [index for batch in drawn[:num_batches] for index in batch]
    shown = int(header["ss_num_train_images"])
    assert len(epoch) == 2 * shown and int(header["ss_num_reg_images"]) == shown
    assert num_steps == -(-num_batches // 2) == len({*range(1, num_steps + 1)})
    assert (header["ss_epoch"], header["ss_num_epochs"]) == (str(-(-2 * num_steps // num_batches)),) * 2
    [said] = [note for note in notes() if "an epoch ÷" in note]
    assert (
        f"6 pictures, with their repeats {shown} + {shown} for regularisation = {2 * shown} an epoch" in said
    )
    assert said.endswith(f"1 epoch = {num_steps} step{'s' if num_steps > 1 else ''}.")


def test_a_run_in_epochs_is_that_of_as_many_steps_also_stopped_and_made_longer(tiny_folder, pictures):
    """Three pictures of two shapes are two batches of two."""
    plain = train(config_for(tiny_folder("sd15"), pictures, **{"optim.steps": 6}))
    config = config_for(tiny_folder("sd15"), pictures, **{"optim.epochs": 2})
    waiting = run.read_state(run.create(config))
    assert waiting.total == 0 and waiting.place == "step 0"
    train(config, stop_at(3))
    folder = last()
    assert run.read_state(folder).place == "step 3 of 4"
    resume(folder)
    with pytest.raises(ValueError, match="all its 4 steps are done"):
        resume(folder)
    longer = resume(folder, extend="1 epoch")
    assert body(longer) == body(plain)
    assert "This run was to have 4 steps and now has 6." in notes(folder)
    names = [path.name for path in run.checkpoints(folder)]
    assert names == ["lora-000003.safetensors", "lora-000004.safetensors", "lora.safetensors"]
    assert cfg.load(folder / "config.toml").optim.epochs == 3
    resume(folder, extend=1)
    assert cfg.load(folder / "config.toml").optim.steps == 7 and run.read_state(folder).total == 7


def test_epochs_are_not_added_to_a_length_in_steps():
    from lora_sd.training.resuming import extended

    with pytest.raises(ValueError, match="length is not set in epochs; give a number of steps"):
        extended(cfg.TrainConfig(), "2 epochs")
    with pytest.raises(ValueError, match="not counted yet"):
        extended(cfg.changed(cfg.TrainConfig(), {"optim.epochs": 2}), 5)
