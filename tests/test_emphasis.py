"""Weighted words: parsed as A1111 documents it, and applied by the formula states · weight · mean before / mean after."""

import doctest

import pytest
import torch
from PIL import Image
from small_runs import body, config_for, stop_at

from lora_sd import __main__ as cli
from lora_sd import run, sample
from lora_sd.models import emphasis, text
from lora_sd.training.prepare import text_identity
from lora_sd.training.train import train


def test_docstrings_are_true():
    assert doctest.testmod(emphasis).failed == 0


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("", []),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        ("a) b:1.3) c]", [("a) b:1.3) c]", 1.0)]),
        ("a (b:c)", [("a ", 1.0), ("b:c", 1.1)]),
        ("((a))", [("a", pytest.approx(1.21))]),
        ("(a (house:1.5) [on] a (hill:0.5))", [
            ("a ", 1.1),
            ("house", pytest.approx(1.65)),
            (" ", 1.1),
            ("on", pytest.approx(1.0)),
            (" a ", 1.1),
            ("hill", pytest.approx(0.55)),
        ]),
    ],
)  # fmt: skip
def test_brackets_are_read_as_a1111_says(prompt, expected):
    assert emphasis.parts(prompt) == expected


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_states_are_weighed_and_keep_their_mean(tiny_models, name):
    models, plain = tiny_models(name, weighted=True), tiny_models(name)
    found, before = text.encode(models, ["a (red:1.5) fox"]), text.encode(plain, ["a red fox"])
    weights = torch.ones(1, 77, 1)
    weights[0, 2] = 1.5  # after the start and "a"
    start = 0
    for encoder in models.text_encoders:
        end = start + encoder.config.hidden_size
        mine = before.tokens[..., start:end]
        wanted = mine * weights * (mine.mean() / (mine * weights).mean())
        torch.testing.assert_close(found.tokens[..., start:end], wanted)
        start = end
    if name == "sdxl":
        assert torch.equal(found.pooled, before.pooled)


def test_a_caption_without_brackets_is_encoded_as_without_weights(tiny_models):
    captions = ["a red fox, snow", "", "one two three four " * 30]
    models, plain = tiny_models("sdxl", weighted=True), tiny_models("sdxl")
    found, wanted = text.encode(models, captions), text.encode(plain, captions)
    assert torch.equal(found.tokens, wanted.tokens) and torch.equal(found.pooled, wanted.pooled)
    assert text.num_chunks(models, ["(red " * 70 + ":1.2)"]) == [1]
    assert text_identity(models) != text_identity(plain)


def test_pictures_are_drawn_with_the_same_weights(tiny_models):
    models = tiny_models("sd15", weighted=True)
    [weighed], [plain] = (sample.generate(models, words, steps=1) for words in ("a (fox:1.9)", "a fox"))
    assert weighed.tobytes() != plain.tobytes()
    [same] = sample.generate(models, "a (fox:1.0)", steps=1)
    assert same.tobytes() == plain.tobytes()


def test_the_command_line_reads_weights_where_that_is_asked_for(tiny_folder, tmp_path, tiny_models):
    [wanted] = sample.generate(tiny_models("sd15", weighted=True), "a (fox:1.9)", seeds=[42], steps=1)
    words = ["a (fox:1.9)", "--model", str(tiny_folder("sd15")), "--steps", "1", "--device", "cpu"]
    assert cli.main(["generate", *words, "--weights", "--out", str(tmp_path)]) == 0
    [path] = tmp_path.glob("*.png")
    assert Image.open(path).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("text_encoders", [False, True])
def test_a_run_with_weights_goes_on_bit_for_bit(tiny_folder, pictures, text_encoders):
    (pictures / "0.txt").write_text("a (red:1.5) fox")
    changes = {"captions.weights": True, "lora.text_encoders": text_encoders, "optim.steps": 2}
    config = config_for(tiny_folder("sd15"), pictures, **changes)
    whole = train(config)
    train(config, stop_at(1))
    assert body(train(config, folder=run.list_runs()[0].folder)) == body(whole)
