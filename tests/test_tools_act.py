"""What Tools is asked for, as a command and in Python: page, command line and Python give the same bytes."""

import subprocess
from pathlib import Path

import pytest
import torch
from workshop_files import random_pair, random_pairs, write

from app import loras, reach, tools_act
from lora_sd import __main__ as cli
from lora_sd import run
from lora_sd.lora import layers as lora_layers

BLANK = {
    **dict.fromkeys(
        ("lora", "other", "look_base", "name", "layout", "dtype", "family", "projections", "thumbnail"), ""
    ),
    **dict.fromkeys(tools_act.TEXTS, ""),
    **{f"lora_{n}": "" for n in range(1, tools_act.MOST_LORAS)},
    **{f"weight_{n}": 1 for n in range(tools_act.MOST_LORAS)},
    **{f"blocks_{n}": "" for n in range(tools_act.MOST_LORAS)},
    **{"of": "delta", "by": "rank", "rank": 2, "energy": 0.9, "size": 0.05, "method": "sum", "density": 0.5},
    **{"seed": 3, "cut": "exact", "combine_rank": 3, "combine_energy": 0.9, "merge_base": "starter"},
    **{"tuned": "starter", "extract_base": "starter", "extract_rank": 4, "extract_energy": 1},
    **{"targets": "full", "to_layout": "peft", "no_thumbnail": False},
}


@pytest.fixture
def two(tmp_path: Path) -> dict[str, str]:
    """Two LoRAs chosen on the page."""
    paths = [
        write(
            tmp_path / f"{name}.safetensors",
            random_pairs("sd15", seed=seed, every=90),
            "sd15",
            **{"modelspec.title": name},
        )
        for seed, name in enumerate(("cat", "a dog"))
    ]
    return {"lora": str(paths[0]), "lora_1": str(paths[1])}


@pytest.fixture
def for_starter(tmp_path: Path, starter) -> str:
    """A LoRA of two layers of the starter model."""
    named = lora_layers.named_layers(starter.parts())
    chosen = [name for name in named if "mid_block" in name and "attn1.to_q" in name]
    pairs = {n: random_pair(named[n].weight.shape, 4, 4.0, torch.Generator().manual_seed(0)) for n in chosen}
    return str(write(tmp_path / "mid.safetensors", pairs, "sd15"))


def act(tool: str, **values) -> tools_act.Act:
    return tools_act.act({**BLANK, "tool": tool, **values})


def contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def same_bytes(wanted: tools_act.Act, tmp_path: Path) -> None:
    """What the command makes, and what the Python does, in the same place one after the other."""
    assert cli.main(wanted.words) == 0
    by_command = contents(wanted.out)
    wanted.out.rename(tmp_path / "moved")
    exec(wanted.python, {})
    assert contents(wanted.out) == by_command


SHRUNK = [{"by": "rank"}, {"by": "energy"}, {"by": "size"}, {"by": "keep", "dtype": "bf16", "layout": "peft"}]
COMBINED = [
    {"weight_1": -0.5, "blocks_0": "OUT*=0.5, MID=0.25", "blocks_1": "IN*=2"},
    {"method": "average", "cut": "rank", "dtype": "fp16"},
    {"method": "ties", "cut": "rank"},
    {"method": "dare", "cut": "rank", "density": 0.3},
    {"cut": "energy"},
]
CONVERTED = [{"to_layout": name} for name in ("kohya", "kohya-diffusers", "comfyui", "peft", "diffusers")]


@pytest.mark.parametrize(
    "tool, values",
    [
        *(("shrink", values) for values in SHRUNK),
        *(("combine", values) for values in COMBINED),
        *(("convert", values) for values in CONVERTED),
        ("edit", {"title": "Cats, ${1+1} <b> “quoted” 'too'", "licence": "CC-BY-4.0"}),
    ],
)
def test_page_command_line_and_python_give_the_same_bytes(tool, values, two, tmp_path):
    same_bytes(act(tool, **(two | values)), tmp_path)


def test_so_they_do_for_merge_and_extract(for_starter, tmp_path):
    merged = act("merge", lora=for_starter, weight_0=0.7, blocks_0="MID=0.5")
    same_bytes(merged, tmp_path)
    extracted = act("extract", tuned=str(merged.out), extract_energy=0.9, dtype="fp32")
    (tmp_path / "moved").rename(tmp_path / "merged")
    same_bytes(extracted, tmp_path)


@pytest.mark.parametrize("tool, beside", [("look", False), ("look", True), ("check", False)])
def test_what_is_only_told_is_the_same_in_python(tool, beside, two, capsys):
    wanted = act(tool, **two | {"other": two["lora_1"] if beside else ""})
    assert cli.main(wanted.words) == 0
    by_command = capsys.readouterr().out
    exec(wanted.python, {})
    lines = capsys.readouterr().out.splitlines()
    assert lines and [line.strip() for line in lines if line.strip()] == [
        line.strip() for line in by_command.splitlines() if line.strip() and "Beside" not in line
    ]


def test_what_is_shown_as_a_command_is_what_is_run(two):
    wanted = act("shrink", **two | {"name": "my cat; rm -rf"})
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {wanted.command}"], capture_output=True, text=True, check=True
    )
    assert words.stdout.splitlines() == ["python", "-m", "lora_sd", *wanted.words]


def test_new_files_have_names_of_their_own_and_replace_nothing(two):
    first = act("shrink", **two)
    assert first.out == loras.folder() / "cat-rank2.safetensors"
    first.out.parent.mkdir(parents=True)
    first.out.write_bytes(b"mine")
    assert act("shrink", **two).out.name == "cat-rank2-2.safetensors"
    assert (
        act("shrink", **two | {"name": "../../x/Mein Stil.safetensors"}).out
        == loras.folder() / "x_Mein_Stil.safetensors"
    )
    assert act("merge", **two).out.parent == run.home() / "models"


def test_edit_passes_on_only_what_differs(two):
    wanted = act("edit", **two | {"title": " cat ", "author": "me"})
    assert [word for word in wanted.words if word.startswith("--")] == [f"--out={wanted.out}", "--author=me"]


@pytest.mark.parametrize(
    "tool, values, sentence",
    [
        ("dance", {}, "Choose what to do"),
        ("look", {"lora": ""}, "Choose a LoRA"),
        ("look", {"lora": "nowhere.safetensors"}, "There is no LoRA at"),
        ("combine", {"lora_1": ""}, "at least two"),
        ("combine", {"blocks_0": "OUT"}, "'OUT' is no weight of a block"),
        ("combine", {"weight_1": None}, "Write a number"),
        ("shrink", {"rank": None}, "Write a number"),
        ("shrink", {"rank": float("nan")}, "Write a number"),
        ("merge", {"merge_base": ""}, "Choose a model"),
        ("merge", {"merge_base": "nowhere"}, "There is no model at"),
        ("edit", {}, "Nothing is changed yet"),
        ("edit", {"thumbnail": "/etc/passwd"}, "Drop the picture on the page again"),
    ],
)
def test_bad_inputs_are_sentences(tool, values, sentence, two):
    given = two | ({"title": "cat"} if tool == "edit" else {})
    with pytest.raises(ValueError, match=sentence):
        act(tool, **given | values)


def test_others_reach_only_what_the_menus_offer(two, monkeypatch, tmp_path):
    monkeypatch.setattr(reach, "confined", True)
    for tool, values in [("look", two), ("edit", two | {"author": "me"}), ("combine", two)]:
        with pytest.raises(ValueError, match="not in the menu"):
            act(tool, **values)
    kept = loras.folder() / "cat.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(Path(two["lora"]).read_bytes())
    assert act("look", lora=str(kept)).words == ["analyse", str(kept)]
    with pytest.raises(ValueError, match="not in the menu"):
        act("merge", lora=str(kept), merge_base=str(tmp_path))
