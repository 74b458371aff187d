import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_sd import config as cfg

PRESETS = sorted((Path(__file__).parent.parent / "presets").glob("*.toml"))


def test_defaults_survive_toml():
    assert cfg.parse(tomllib.loads(cfg.dumps(cfg.TrainConfig()))) == cfg.TrainConfig()


@given(
    rank=st.integers(1, 1024),
    alpha=st.none() | st.floats(0.01, 4096),
    trigger=st.text(st.characters(exclude_categories=["Cs"])),
    prompts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=3),
    every=st.one_of(st.integers(0, 999), st.sampled_from(["10%", "2 epochs", "off"])),
    ranks=st.dictionaries(st.sampled_from(["unet.mid_block.*", "*.to_q"]), st.integers(0, 64)),
)
def test_any_settings_survive_toml(rank, alpha, trigger, prompts, every, ranks):
    config = cfg.changed(
        cfg.TrainConfig(),
        {
            "lora.rank": rank,
            "lora.alpha": alpha,
            "lora.ranks": ranks,
            "data.trigger": trigger,
            "preview.prompts": prompts,
            "save.every": every,
        },
    )
    assert cfg.parse(tomllib.loads(cfg.dumps(config))) == config


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"lora": {"rank": 0}}, "lora.rank is 0; it must be at least 1."),
        ({"lora": {"rnk": 8}}, "There is no setting 'lora.rnk'; did you mean 'lora.rank'?"),
        ({"rank": 8}, "There is no setting 'rank'; did you mean 'lora.rank'?"),
        (
            {"lora": {"targets": "all"}},
            "lora.targets is 'all'; it must be one of 'attention', 'attention-qv', 'transformer', 'full' or 'none'.",
        ),
        (
            {"save": {"every": "often"}},
            'save.every is \'often\'; write a number of steps, a share like "10%", "2 epochs", "5 minutes", or 0 for off.',
        ),
        ({"lora": 3}, "lora is 3; it must be a section of settings, [lora]."),
        (
            {"noise": {"min_timestep": 500, "max_timestep": 500}},
            "noise.max_timestep is 500; it must be more than noise.min_timestep, which is 500.",
        ),
        ({"optim": {"learning_rate": 11}}, "optim.learning_rate is 11; it must be at most 10."),
    ],
)
def test_a_wrong_setting_gets_one_sentence(values, sentence):
    with pytest.raises(ValueError) as caught:
        cfg.parse(values)
    assert str(caught.value) == sentence


def test_one_rate_of_text_encoders_stands_for_all_and_arguments_are_a_table():
    text = "[optim]\ntext_encoder_rate = 5e-5\narguments = {betas = [0.9, 0.99], eps = 1e-8}"
    config = cfg.parse(tomllib.loads(text))
    assert config.optim.text_encoder_rate == [5e-5]
    assert config.optim.arguments == {"betas": [0.9, 0.99], "eps": 1e-8}
    assert cfg.parse(tomllib.loads(cfg.dumps(config))) == config


@pytest.mark.parametrize("value", [{}, None, float("nan"), [[1]], "\ud800"])
def test_an_argument_that_no_line_can_hold_is_refused(value):
    with pytest.raises(ValueError, match=r"optim\.arguments is .*'it' must be a number, true, false, a word"):
        cfg.parse({"optim": {"arguments": {"it": value}}})


def test_a_renamed_setting_fails_with_its_new_name(monkeypatch):
    monkeypatch.setitem(cfg.RENAMED, "lora.dim", "lora.rank")
    with pytest.raises(ValueError, match=r"lora\.dim is now called lora\.rank"):
        cfg.parse({"lora": {"dim": 4}})


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.stem)
def test_every_preset_loads_and_opens_with_its_claim(preset):
    assert cfg.load(preset) != cfg.TrainConfig()
    head = preset.read_text().split("\nversion")[0]
    assert all(word in head for word in ("# Card:", "# Time:", "# Expect:"))


def test_all_six_presets_are_there():
    names = {"starter_quick", "sd15_character", "sd15_style", "sdxl_character", "sdxl_style", "sdxl_8gb"}
    assert names == {p.stem for p in PRESETS}


def test_relative_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "run.toml").write_text('[data]\nimages = "cats"\n[model]\nbase = "model.safetensors"\n')
    config = cfg.load(tmp_path / "run.toml")
    assert config.data.images == str(tmp_path / "cats") and config.model.base == str(
        tmp_path / "model.safetensors"
    )


def test_names_of_shipped_sets_and_hub_models_are_no_paths(tmp_path):
    (tmp_path / "run.toml").write_text(
        '[data]\nimages = "starter:streamline"\n[model]\nbase = "some/model"\n'
    )
    config = cfg.load(tmp_path / "run.toml")
    assert (config.data.images, config.model.base) == ("starter:streamline", "some/model")


@pytest.mark.parametrize("text", ["[lora", "\x00", "rank = "])
def test_a_file_that_is_not_toml_is_named(tmp_path, text):
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(ValueError, match=r"run\.toml is not a TOML file"):
        cfg.load(tmp_path / "run.toml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="no settings file"):
        cfg.load(tmp_path / "gone.toml")


def test_a_change_is_validated():
    with pytest.raises(ValueError):
        cfg.changed(cfg.TrainConfig(), {"lora.rank": 0})


def test_differences_are_what_was_changed():
    assert cfg.differences(cfg.changed(cfg.TrainConfig(), {"lora.rank": 4, "seed": 42})) == {"lora.rank": 4}


def test_every_setting_has_a_label_and_one_sentence():
    for setting in cfg.settings():
        assert setting.field.title and setting.field.description.endswith("."), setting.name
