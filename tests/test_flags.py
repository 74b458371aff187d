import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_sd import config as cfg
from lora_sd import flags

DEFAULT = cfg.TrainConfig()


def parse(text):
    return cfg.differences(flags.parse(shlex.split(text), DEFAULT))


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("--lora.rank 8", {"lora.rank": 8}),
        ("--lora.rank=8", {"lora.rank": 8}),
        ("--optim.learning-rate 1e-3", {"optim.learning_rate": 1e-3}),
        ("--save.every 50 --preview.every 5%", {"save.every": 50, "preview.every": "5%"}),
        ("--lora.text_encoders", {"lora.text_encoders": True}),
        ("--lora.text-encoders false", {}),
        ("--preview.prompts 'a cat' 'a dog' --seed 1", {"preview.prompts": ["a cat", "a dog"], "seed": 1}),
        ("--lora.alphas unet.mid_block.*=0.5", {"lora.alphas": {"unet.mid_block.*": 0.5}}),
        ("--lora.ranks unet.mid_block.*=32 *.to_q=0", {"lora.ranks": {"unet.mid_block.*": 32, "*.to_q": 0}}),
        ("--lora.alpha auto", {}),
        ("--optim.text_encoder_rate 5e-5", {"optim.text_encoder_rate": [5e-5]}),
        ("--optim.text_encoder_rate 5e-5 1e-5", {"optim.text_encoder_rate": [5e-5, 1e-5]}),
        (
            "--optim.arguments betas=[0.9,0.99] decouple=true how=so=so",
            {"optim.arguments": {"betas": [0.9, 0.99], "decouple": True, "how": "so=so"}},
        ),
    ],
)
def test_flags_are_settings(text, changes):
    assert parse(text) == changes


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("--lora.rnk 8", "There is no setting 'lora.rnk'; did you mean 'lora.rank'?"),
        ("--rank 8", "There is no setting 'rank'; did you mean 'lora.rank'?"),
        ("--lora.rank 0", "lora.rank is 0; it must be at least 1."),
        ("--lora.rank", "--lora.rank takes one value, and 0 are given"),
        ("--data.trigger two words", "--data.trigger takes one value, and 2 are given; put quotes"),
        ("--lora.ranks 8", "has no '='"),
        ("rank 8", "'rank' stands alone"),
        ("--optim.optimizer Adam", "optim.optimizer is 'Adam'; it must be AdamW, AdamW8bit"),
        ("--optim.text_encoder_rate 1 20", "optim.text_encoder_rate.1 is 20; it must be at most 10."),
        ("--lora.rank many", "lora.rank is 'many'"),
    ],
)
def test_a_wrong_flag_gets_the_sentence_of_the_settings(text, sentence):
    with pytest.raises(ValueError) as caught:
        flags.parse(shlex.split(text), DEFAULT)
    assert sentence in str(caught.value)


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1).filter(
    lambda text: not text.startswith("--")
)


@given(
    rank=st.integers(1, 1024),
    text=words,
    prompts=st.lists(words, min_size=1, max_size=3),
    every=st.sampled_from([0, 10, "10%", "2 epochs"]),
    alpha=st.none() | st.floats(0.001, 4096),
    ranks=st.dictionaries(st.sampled_from(["a=b.*", "*.to_q"]), st.integers(0, 9)),
    argument=st.booleans()
    | st.integers()
    | st.floats(-1e9, 1e9)
    | words
    | st.lists(st.floats(0, 1), max_size=2),
)
def test_any_settings_survive_the_command_line(rank, text, prompts, every, alpha, ranks, argument):
    config = cfg.changed(
        DEFAULT,
        {
            "lora.rank": rank,
            "data.trigger": text,
            "preview.prompts": prompts,
            "save.every": every,
            "lora.alpha": alpha,
            "lora.ranks": ranks,
            "optim.arguments": {"it": argument},
            "lora.text_encoders": True,
        },
    )
    assert flags.parse(flags.command(config), DEFAULT) == config


def test_help_tells_every_setting():
    told = flags.help_text(DEFAULT)
    assert all(f"--{setting.name} (" in told for setting in cfg.settings())
