"""What the page does for people at other computers, asked in ways that no control of it offers."""

from pathlib import Path

import pytest

from app import drawing, form, loras, make_page, models, reach, sheet
from app.project import Choices, open_project
from lora_sd import config as cfg
from lora_sd import run

VALUES = {
    "prompt": "cat",
    "negative": "",
    "seed": 1,
    "steps": 2,
    "guidance": 5,
    "sampler": "euler",
    "size": "",
}


@pytest.fixture(autouse=True)
def open_to_others(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr(reach, "confined", True)
    (home / "link").symlink_to("/etc")


def with_setting(name: str, value: str) -> sheet.Sheet:
    project = open_project("mine")
    return sheet.fill(project, Choices(base="starter", changes={name: value}))


@pytest.mark.parametrize("name", [name for name in cfg.PATHS if name not in ("model.base", "data.images")])
@pytest.mark.parametrize(
    "path",
    [
        "/etc",
        "{home}/../etc",
        "{home}-of-another",
        "{home}/link/ssl",
        "{home}/thumbs/runs",
        "../..",
        "~/pictures",
        "\\\\server\\share",
        "starter:../../..",
        "starter:streamline/../../..",
    ],
)
def test_a_setting_leads_nowhere_but_into_our_home(name, path, home):
    with pytest.raises(ValueError, match=f"{name} is .*only what lies in the program's own folders"):
        with_setting(name, path.format(home=home)).config()


@pytest.mark.parametrize("part", ["path", "masks"])
def test_nor_does_a_folder_of_several(part):
    with pytest.raises(ValueError, match=rf"data\.folders\.1\.{part} is '/etc'"):
        with_setting(
            "data.folders", ["starter:streamline", {"path": "starter:streamline", part: "/etc"}]
        ).config()


@pytest.mark.parametrize(
    "path", ["", "starter:streamline", "starter:streamline/heldout", "{home}/projects/mine/images"]
)
def test_what_is_at_home_or_shipped_may_be_used(path, home):
    assert with_setting("validate.images", path.format(home=home)).config().data.images


def test_at_the_computer_itself_every_path_may_be_used(monkeypatch):
    monkeypatch.setattr(reach, "confined", False)
    assert with_setting("validate.images", "/etc").config().validate.images == "/etc"


def test_an_optimizer_is_of_the_menu_or_of_pytorch(monkeypatch):
    for name in ("Lion", "torch.optim.RAdam"):
        assert with_setting("optim.optimizer", name).config().optim.optimizer == name
    with pytest.raises(ValueError, match="only those of the menu"):
        with_setting("optim.optimizer", "antigravity.Fly").config()
    monkeypatch.setattr(reach, "confined", False)
    assert with_setting("optim.optimizer", "mine.Optimizer").config().optim.optimizer == "mine.Optimizer"


@pytest.mark.parametrize("source", ["/etc", "../models/x.safetensors", "owner/not-here"])
def test_a_base_model_is_one_of_the_menu(source):
    assert models.base("starter").source == "starter"
    with pytest.raises(ValueError, match="not in the menu"):
        models.base(source)
    with pytest.raises(ValueError, match="not in the menu"):
        drawing.job({**VALUES, "base": source, "on_cpu": True}, 0)


def test_a_lora_is_one_of_the_menu(home, tmp_path):
    ours, secret = home / "models" / "loras" / "mine.safetensors", tmp_path / "secret.safetensors"
    folder = run.create(cfg.TrainConfig())
    for path in (ours, secret, folder / "checkpoints" / "a.safetensors", folder / "state" / "b.safetensors"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert loras.file(str(ours)) == ours
    assert loras.file(f"{folder.name}/a.safetensors") == folder / "checkpoints" / "a.safetensors"
    up = "../" * 12
    for lora in (
        str(secret),
        f"{folder.name}/../state/b.safetensors",
        f"{folder.name}/{up}{secret}",
        f"{ours}/../x",
    ):
        with pytest.raises(ValueError, match="not in the menu"):
            loras.file(lora)


def test_no_file_outside_a_runs_checkpoints_is_taken_for_one_of_its_loras(monkeypatch):
    """Not even at the computer itself: the id of a LoRA is no path."""
    monkeypatch.setattr(reach, "confined", False)
    folder = run.create(cfg.TrainConfig())
    assert loras.run_of(f"{folder.name}/../config.toml") is None


def test_folders_are_named_at_the_computer_itself_only(tmp_path):
    with pytest.raises(ValueError, match="only at the computer itself"):
        reach.folder(str(tmp_path))


@pytest.mark.parametrize("name", ["/etc", "../..", "C:\\models", "owner/../../x"])
def test_only_a_hugging_face_name_is_downloaded(name):
    with pytest.raises(ValueError, match="is not a Hugging Face name"):
        models.Download().start(name)


def test_a_run_that_would_read_elsewhere_is_not_made(home):
    project = open_project("mine")
    project.add([Path(cfg.__file__).parent / "starter" / "sets" / "streamline" / "train"])
    facts = sheet.fill(project, Choices(base="starter"))
    values = {**form.show(facts.settings), "automatic": facts.automatic, "project": "mine", "trigger": "x"}
    values |= {"kind": "Style", "quality": "Quick", "base": "starter"}
    with pytest.raises(ValueError, match=r"output\.dir is '/tmp/x'"):
        make_page.create({**values, "output.dir": "/tmp/x"})
    assert not (home / "runs").exists()
