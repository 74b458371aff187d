"""Settings become controls and come back: nothing is lost, shifted or typed twice."""

import shlex
import tomllib

import gradio as gr
import pytest

from app import form
from lora_sd import config as cfg
from lora_sd import flags
from lora_sd.config import TrainConfig

CHANGES = {
    "seed": 7,
    "model.prediction": "v_prediction",
    "model.clip_skip": 2,
    "data.resolution": 640,
    "lora.rank": 32,
    "lora.alpha": 8.5,
    "lora.ranks": {"unet.mid_block.*": 4, "*.conv?": 0},
    "lora.alphas": {"unet.mid_block.*": 0.5},
    "lora.text_encoders": True,
    "optim.learning_rate": 0.00025,
    "optim.text_encoder_rate": [5e-5, 0.00001],
    "optim.optimizer": "torch.optim.RAdam",
    "optim.arguments": {"betas": [0.9, 0.99], "maximize": False, "way": "fast = fine"},
    "optim.warmup": "5%",
    "save.every": 50,
    "preview.every": "2 epochs",
    "preview.prompts": ["a cat, ${1+1}", 'it\'s a "dog"'],
    "preview.negative": "2020",
    "output.metadata": "minimal",
}


@pytest.fixture(scope="module")
def components() -> dict[str, gr.components.Component]:
    with gr.Blocks():
        return form.build()


def test_every_setting_has_a_control_here_or_a_place_on_the_page(components):
    assert set(components) | form.ELSEWHERE == {setting.name for setting in cfg.settings()}


def test_every_control_says_in_a_sentence_what_it_is_for(components):
    assert all(part.label and part.info.endswith(".") for part in components.values())


def test_defaults_come_back_as_they_are():
    defaults = form.with_defaults({})
    assert form.read(form.show(defaults)) == defaults
    assert form.config(defaults) == TrainConfig()


def test_changed_values_come_back_as_they_are(components):
    settings = form.with_defaults(CHANGES)
    assert form.read(form.show(settings)) == settings
    through_the_browser = {
        name: components[name].preprocess(value) for name, value in form.show(settings).items()
    }
    assert form.read(through_the_browser) == settings
    assert cfg.differences(form.config(settings)) == CHANGES


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("lora.rank", 0, "lora.rank is 0; it must be at least 1."),
        ("optim.learning_rate", -1.0, "optim.learning_rate is -1.0; it must be more than 0."),
        ("save.every", "sometimes", 'write a number of steps, a share like "10%"'),
    ],
)
def test_a_bad_value_is_one_sentence(name, value, sentence):
    with pytest.raises(ValueError) as error:
        form.config({name: value})
    assert sentence in str(error.value)


@pytest.mark.parametrize("value", [None, True, False])
def test_a_question_can_be_left_to_the_program(components, value):
    settings = form.with_defaults({"model.zero_snr": value})
    shown = {name: components[name].preprocess(found) for name, found in form.show(settings).items()}
    assert form.read(shown)["model.zero_snr"] is value


def test_a_rank_line_that_is_none_is_shown_with_an_example():
    with pytest.raises(ValueError, match=r"'unet\.mid'; write a pattern and its rank"):
        form.read({"lora.ranks": "unet.mid"})


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("optim.arguments", "betas 0.9", "'betas 0.9'; write a name and its value"),
        ("optim.text_encoder_rate", "1e-4 slow", "'slow' is no number"),
    ],
)
def test_a_line_that_can_not_be_read_is_shown(name, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        form.read({name: text})


def test_an_emptied_number_is_asked_for():
    with pytest.raises(ValueError, match=r"lora\.rank is None"):
        form.config(form.read({"lora.rank": None}))


def test_the_settings_file_the_command_and_the_python_say_the_same(monkeypatch):
    config = form.config(CHANGES)
    assert cfg.parse(tomllib.loads(form.as_toml(config))) == config

    words = shlex.split(form.as_command(config).removeprefix("python -m lora_sd train"))
    assert flags.parse(words, TrainConfig()) == config

    trained = []
    monkeypatch.setattr("lora_sd.train", trained.append, raising=False)
    exec(form.as_python(config))
    assert trained == [config]


@pytest.mark.parametrize("text", ["unet.* = ²", "unet.* = " + "9" * 5000, "unet.* =", "= 4", "unet.*"])
def test_a_line_that_is_no_rank_is_shown(text):
    with pytest.raises(ValueError, match=r"lora\.ranks has the line"):
        form.read({"lora.ranks": text})


@pytest.mark.parametrize("text", ["unet.* = ²", "unet.* = 1..5", "unet.*"])
def test_a_line_that_is_no_alpha_is_shown(text):
    with pytest.raises(ValueError, match=r"lora\.alphas has the line .* write a pattern and its alpha"):
        form.read({"lora.alphas": text})


@pytest.mark.parametrize("text", ["²", "9" * 5000, "often"])
def test_a_text_that_is_no_number_of_steps_is_left_to_the_settings(text):
    with pytest.raises(ValueError, match=r"save\.every is .*write a number of steps"):
        form.config(form.read({"save.every": text}))
