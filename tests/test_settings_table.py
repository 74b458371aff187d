"""docs/settings.md is what the settings and the names of sd-scripts are now."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tools"))

import settings_table

from lora_sd import config as cfg

TEXT = settings_table.PAGE.read_text(encoding="utf-8")
ROWS = {line.split("`")[1]: line for line in TEXT.splitlines() if line.startswith("| `")}


def test_it_is_up_to_date():
    assert settings_table.page() == TEXT, "run: python tools/settings_table.py"


def test_every_setting_has_its_sentence_in_it():
    for setting in cfg.settings():
        assert setting.field.description.replace("|", r"\|") in ROWS[setting.name]


def test_a_setting_that_sd_scripts_has_not_says_so():
    assert ROWS["noise.shift"].endswith("| – |")
    assert ROWS["lora.rank"].endswith("| `network_dim` |")
    assert "args: `conv_dim`" in ROWS["lora.conv_rank"] and "data: `num_repeats`" in ROWS["data.folders"]


def test_what_means_nothing_here_says_why():
    assert "latents are always cached here" in ROWS["cache_latents"]
