"""What Tools draws of what the workshop tells; every word of a person's is a text, never markup."""

import pytest
import torch
from workshop_files import random_pair, random_pairs, write

from app import reach, tools_view
from app.desk import Desk
from lora_sd import __main__ as cli
from lora_sd.lora import layers


def text(tree) -> str:
    return tree if isinstance(tree, str) else " ".join(map(text, tree["children"]))


def parts(tree, tag: str) -> list:
    if isinstance(tree, str):
        return []
    return [
        *([tree] if tree["tag"] == tag else []),
        *(found for child in tree["children"] for found in parts(child, tag)),
    ]


@pytest.fixture
def drawn(capsys):
    """`drawn("look", "analyse", FILE)` is what the page shows of that command's outcome."""

    def draw(tool: str, *words: object):
        assert cli.main([*map(str, words), "--events"]) == 0
        return tools_view.draw(Desk(tool, outcome=capsys.readouterr().out.splitlines()[-1]))

    return draw


@pytest.fixture
def two(tmp_path):
    names = ("cat", "${1+1} <b>")
    return [
        write(tmp_path / f"{name}.safetensors", random_pairs("sd15", seed=seed, every=90), "sd15")
        for seed, name in enumerate(names)
    ]


def test_two_loras_beside_each_other(drawn, two):
    shown = drawn("look", "analyse", *two)
    told = text(shown)
    assert "uses all of its rank" in told and "Beside ${1+1} <b>.safetensors" in told and "IN01" in told
    pictures = [picture["attributes"] for picture in parts(shown, "img")]
    assert len(pictures) == 4 and all(
        p["src"].startswith("data:image/svg+xml") and p["alt"] for p in pictures
    )
    assert all(
        part["attributes"]["tabindex"] == "0"
        for part in parts(shown, "div")
        if "figures" in part["attributes"].get("class", "")
    )


def test_a_lora_that_could_be_smaller_has_a_button_that_shrinks_it(drawn, tmp_path):
    pairs = random_pairs("sd15", every=90)
    for pair in pairs.values():
        pair.up[:, 2:] *= 1e-3
    shown = drawn("look", "analyse", write(tmp_path / "thin.safetensors", pairs, "sd15"))
    assert "This rank-4 LoRA uses about 2" in text(shown)
    button = parts(shown, "button")[0]["attributes"]
    assert (button["data-act"], button["data-rank"]) == ("shrink", "2")


def test_against_the_base(drawn, tmp_path, starter):
    named = layers.named_layers(starter.parts())
    name = next(n for n in named if "mid_block" in n and "attn1.to_q" in n)
    pair = random_pair(named[name].weight.shape, 2, 2.0, torch.Generator().manual_seed(0))
    path = write(tmp_path / "mid.safetensors", {name: pair}, "sd15", **{"lora_sd.family": "sd15"})
    assert "Against Starter model" in text(drawn("look", "analyse", path, "--base=starter"))


def test_who_reads_it(drawn, two, tmp_path):
    assert "ComfyUI ✓ all" in text(drawn("check", "check", two[0]))
    assert cli.main(["convert", str(two[0]), str(tmp_path / "peft.safetensors"), "--layout=peft"]) == 0
    assert "sd-scripts ✗ uses nothing" in text(drawn("check", "check", tmp_path / "peft.safetensors"))


def test_a_new_file_says_where_it_lies_but_not_to_others(drawn, two, tmp_path, monkeypatch):
    assert f"It lies in {tmp_path}" in text(
        drawn("shrink", "resize", two[0], tmp_path / "new.safetensors", "--rank=2")
    )
    monkeypatch.setattr(reach, "confined", True)
    assert str(tmp_path) not in text(
        drawn("shrink", "resize", two[0], tmp_path / "b.safetensors", "--rank=2")
    )


def test_the_same_outcome_twice_is_news():
    assert tools_view.draw(Desk(finished=1)) != tools_view.draw(Desk(finished=2))
