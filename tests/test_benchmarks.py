"""The benchmarks' own arithmetic and inputs; the figures themselves need a quiet machine or a card."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from workshop_files import random_pair, write

from lora_sd import config as cfg
from lora_sd.data import buckets
from lora_sd.data.folder import find_examples
from lora_sd.lora import targets
from lora_sd.lora.layers import named_layers
from lora_sd.models.family import FAMILIES, Conditioning
from lora_sd.models.load import load
from lora_sd.workshop.analysis import analyse_file
from lora_sd.workshop.lora_file import open_lora

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import graph_curve  # noqa: E402
import learning  # noqa: E402
import make_images  # noqa: E402
import make_model  # noqa: E402
import paper_figures  # noqa: E402
import peft_loop  # noqa: E402
import steptime  # noqa: E402
import train_speed  # noqa: E402
import workshop  # noqa: E402


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`made("tiny")` is a model folder, in fp16; made once."""
    root = tmp_path_factory.mktemp("made")

    def folder(kind: str) -> Path:
        if not (root / kind).exists():
            make_model.write(kind, root / kind, torch.float16)
        return root / kind

    return folder


# make_model and make_images


@pytest.mark.parametrize("kind, family", [("tiny", "sd15"), ("tiny-sdxl", "sdxl")])
def test_a_made_model_loads_and_its_numbers_are_finite_in_half_precision(made, kind, family):
    models = load(str(made(kind)), dtype=torch.bfloat16)
    assert models.family is FAMILIES[family]
    tokens = torch.randn(1, 77, models.unet.config.cross_attention_dim)
    pooled = torch.randn(1, models.text_encoders[-1].config.projection_dim)
    with torch.no_grad():
        predicted = models.predict(
            torch.randn(1, 4, 16, 16, dtype=torch.bfloat16),
            torch.tensor([500]),
            Conditioning(tokens, pooled),
            torch.full((1, 6), 128.0),
        )
    assert predicted.isfinite().all() and 0.1 < predicted.float().std() < 10


@pytest.mark.parametrize(
    "kind, pipeline", [("tiny", StableDiffusionPipeline), ("tiny-sdxl", StableDiffusionXLPipeline)]
)
def test_diffusers_opens_a_made_model(made, kind, pipeline):
    opened = pipeline.from_pretrained(made(kind), safety_checker=None, local_files_only=True)
    ours = load(str(made(kind)))
    found = [getattr(opened, spec.tokenizer).pad_token for spec in ours.family.text_encoders]
    assert found == [tokenizer.pad_token for tokenizer in ours.tokenizers]


def test_the_real_kinds_are_the_shipped_configs_unchanged():
    assert make_model.KINDS["sd15"] == ("sd15", {}) and make_model.KINDS["sdxl"] == ("sdxl", {})


@pytest.mark.parametrize("resolution, step", [(512, 64), (1024, 32), (128, 16)])
def test_ten_shapes_fall_into_ten_buckets(resolution, step):
    ours = buckets.make_buckets(resolution, step=step)
    assert len({buckets.nearest(size, ours) for size in make_images.sizes(resolution, 10)}) == 10


def test_pictures_are_found_with_captions_and_repeats(tmp_path):
    make_images.write(tmp_path, 4, 64, shapes=2, repeats=3)
    found = find_examples(str(tmp_path)).examples
    assert [e.repeats for e in found] == [3] * 4 and len({e.size for e in found}) == 2
    assert found[0].caption == "sks style, a picture number 0"
    lines = (tmp_path / "3_sks" / "metadata.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"file_name": "000.png", "text": found[0].caption}


# steptime


def test_a_script_is_timed_as_it_is(tmp_path):
    script = tmp_path / "anyone.py"
    script.write_text(
        "import sys, time, torch\n"
        "w = torch.nn.Parameter(torch.ones(1)); optimizer = torch.optim.SGD([w], lr=0.1)\n"
        "assert sys.argv[1:] == ['--a', 'b'] and __name__ == '__main__'\n"
        "for _ in range(5):\n"
        "    time.sleep(0.02); w.sum().backward(); optimizer.step()\n"
        "sys.exit(3)\n"
    )
    results = tmp_path / "results.jsonl"
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "steptime.py", "mine", "4", "2", script, "--a", "b"],
        env={**os.environ, "RESULTS": str(results), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    result = json.loads(results.read_text())
    assert done.returncode == 3 and json.loads(done.stdout.removeprefix("RESULT ")) == result
    assert (result["label"], result["n"]) == ("mine", 3)
    assert result["ms_step"] >= 20 and result["p10"] <= result["ms_step"] <= result["p90"]
    assert result["images_s"] == pytest.approx(4000 / result["ms_step"], rel=0.01)


def test_skipped_steps_do_not_count():
    steps = steptime.Steps(skip=2)
    steps.seconds, steps.processor = [4.0, 10.0, 0.1, 0.2, 0.1], [3.0, 1.0, 0.05, 0.06, 0.05]
    assert steps.figures(batch=4) == {
        "n": 3,
        "ms_step": 100.0,
        "p10": 100.0,
        "p90": 200.0,
        "images_s": 40.0,
        "cpu_ms": 50.0,
        "first_step_s": 4.0,
    }
    assert steptime.Steps(skip=2).figures(batch=4) == {"n": 0}


def test_two_programs_take_their_steps_in_turns(tmp_path):
    script, log = tmp_path / "anyone.py", tmp_path / "log"
    script.write_text(
        "import sys, torch\n"
        "w = torch.nn.Parameter(torch.ones(1)); optimizer = torch.optim.SGD([w], lr=0.1)\n"
        "for step in range(4):\n"
        "    w.sum().backward()\n"
        "    open(sys.argv[2], 'a').write(f'{step} {sys.argv[1]}, ')\n"
        "    optimizer.step()\n"
    )
    work = train_speed.Workload("", "", 0, batch=1, steps=4, skip=1)
    sides = {name: [str(script), name, str(log)] for name in ("a", "b")}
    results = train_speed.in_turns(sides, work, {"OMP_NUM_THREADS": "1"})
    assert [result["n"] for result in results.values()] == [3, 3]
    assert "2 a, 2 b, 3 a, 3 b, " in log.read_text()  # the first steps are nobody's turn


def test_our_own_trainer_is_timed_by_the_same_hook(made, tmp_path, monkeypatch):
    make_images.write(tmp_path, 2, 128)
    work = train_speed.Workload(str(made("tiny")), str(tmp_path), 128, batch=2, steps=4, skip=1)
    command = [*train_speed.ours(work), "--machine.device", "cpu"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = train_speed.measure("ours", work, command)
    assert result["n"] == 3 and result["ms_step"] > 0


# train_speed


def test_the_table_has_ratios_to_each_other_program_at_the_same_batch():
    results = [
        {"label": "ours", "batch": 1, "ms_step": 20.0, "images_s": 50.0, "reserved_gib": 3.0},
        {"label": "theirs", "batch": 1, "ms_step": 200.0, "images_s": 5.0},
        {"label": "ours", "batch": 4, "ms_step": 40.0, "images_s": 100.0, "reserved_gib": 5.0},
        *train_speed.published("sd15", 512, [4]),
    ]
    rows = [line.split("  ") for line in train_speed.table(results, ["theirs", "sd-scripts ¹"]).splitlines()]
    rows = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert rows[0] == ["batch", "ms/step", "images/s", "peak GiB", "× theirs", "× sd-scripts ¹"]
    assert rows[1] == ["ours", "1", "20.0", "50.0", "3.0", "10.00", "–"]
    assert rows[2] == ["theirs", "1", "200.0", "5.0", "–", "1.00", "–"]
    assert rows[3] == ["ours", "4", "40.0", "100.0", "5.0", "–", "5.46"]
    assert rows[4][0] == "sd-scripts ¹"


def test_published_speeds_agree_with_their_step_times():
    for p in train_speed.PUBLISHED:
        assert p.images_s == pytest.approx(1000 * p.batch / p.ms_step, rel=0.01), p


def test_a_peers_placeholders_are_filled_in():
    work = train_speed.Workload("m", "i", 512, batch=4, steps=60, skip=15)
    words = train_speed.peer("a/train.py --model {model} --size={resolution} --out '{out}/x y'", work, "o")
    assert words == ["a/train.py", "--model", "m", "--size=512", "--out", "o/x y"]


def test_only_settings_that_are_changed_are_on_our_command_line():
    work = train_speed.Workload("m", "i", 512, batch=4, steps=60, skip=15)
    plain = train_speed.ours(work)
    changed = train_speed.ours(work, memory="lowest", graph="false")
    assert changed == [*plain, "--machine.memory", "lowest", "--machine.cuda_graph", "false"]


def test_the_rounds_give_the_median_of_their_ratios():
    rounds = [
        {"ours": {"ms_step": ours, "cpu_ms": 100}, "PEFT loop": {"ms_step": theirs, "cpu_ms": 200}}
        for ours, theirs in ((100, 110), (100, 130), (200, 400))
    ]
    assert train_speed.rounds_table(rounds).splitlines()[-1].split() == (
        "median 100 130 100 200 1.30 2.00".split()
    )


# peft_loop and graph_curve


@pytest.mark.parametrize("name", peft_loop.TARGETS)
def test_the_peft_loop_adapts_the_layers_that_ours_does(starter, name):
    unet: UNet2DConditionModel = peft_loop.adapted_unet(str(starter.path), 4, "cpu", name)
    theirs = {
        f"unet.{name.partition('.lora_A')[0]}" for name, _ in unet.named_parameters() if "lora_A" in name
    }
    assert theirs == set(targets.resolve(starter.parts(), name, rank=4))


def test_the_peft_loop_trains(made, tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_: steps.append(1))
    make_images.write(tmp_path, 3, 128)
    words = f"--model {made('tiny')} --images {tmp_path} --resolution 128 --batch 2 --steps 2 --rank 2"
    peft_loop.main(words.split())
    assert len(steps) == 2


def test_curves_are_compared_with_the_first():
    text = graph_curve.table({"plain": [1.0] * 20, "recorded": [1.0] * 10 + [1.1] * 10})
    lines = [line.split() for line in text.splitlines()]
    assert lines[1] == ["1–2", "1.00000", "1.00000"] and lines[10] == ["19–20", "1.00000", "1.10000"]
    assert lines[11] == ["mean", "apart", "5.000%"] and lines[12] == ["most", "apart", "10.000%"]


# workshop


def test_every_operation_of_the_workshop_that_has_limits_is_measured(tmp_path):
    assert workshop.commands(tmp_path).keys() == workshop.LIMITS.keys()
    assert workshop.row("combine", 12.3, 20.1, 0.96).split()[-4:] == ["20", "s,", "1.5", "GB"]


# learning


def test_the_runs_of_the_learning_table_are_settings_that_exist():
    for row in learning.ROWS.values():
        cfg.changed(cfg.TrainConfig(), learning.of_set(row, "streamline"))
    assert {run.row for run in learning.planned()} == {*learning.ROWS, learning.PEFT}


def test_a_result_is_kept_and_not_made_again(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(learning, "measure", lambda run: made.append(run) or {0: 0.1, 100: 0.07})
    run = learning.Run(learning.DEFAULT, "streamline", 100, 42)
    for _ in range(2):
        learning.make([run], tmp_path / "results.jsonl", 1)
    assert made == [run] and learning.read(tmp_path / "results.jsonl") == {run: {0: 0.1, 100: 0.07}}


def test_the_page_and_the_picture_of_what_is_learnt_are_those_of_the_results():
    docs = BENCHMARKS.parent / "docs"
    found = learning.read(docs / "learning.jsonl")
    assert set(found) == set(learning.planned())
    assert (docs / "learning.md").read_text("utf-8") == learning.page(found)
    assert (docs / "learning.svg").read_text("utf-8") == learning.picture(found)


@pytest.mark.parametrize("style", learning.SETS)
def test_the_preset_learns_no_worse_than_a_plain_loop_and_rises_less(style):
    found = learning.read(BENCHMARKS.parent / "docs" / "learning.jsonl")

    def mean(row: str, steps: int) -> float:
        return statistics.mean(learning.after(found, row, style, steps, learning.SEEDS))

    ours, theirs = (
        [mean(row, steps) for steps in (learning.SHORT, learning.LONG)]
        for row in (learning.DEFAULT, learning.PEFT)
    )
    assert ours[0] <= theirs[0] and ours[1] - ours[0] < theirs[1] - theirs[0]


# paper_figures


def test_the_papers_figures_are_drawn_of_any_three_files_and_have_a_row_for_each_kind(starter, tmp_path):
    named = named_layers(starter.parts())
    chosen = [name for name in named if name.startswith("unet.mid_block") and "transformer_blocks" in name]
    files, reports = {}, {}
    for name, (_, seed) in paper_figures.RUNS.items():
        generator = torch.Generator().manual_seed(seed)
        pairs = {
            n: random_pair(named[n].weight.shape, 8 if "8" in name else 64, 8.0, generator) for n in chosen
        }
        path = write(
            tmp_path / f"{seed}{len(files)}.safetensors", pairs, "sd15", **{"lora_sd.family": "sd15"}
        )
        files[name], reports[name] = open_lora(path), analyse_file(path)
    told = paper_figures.page(files, reports)
    drawn = paper_figures.pictures(files, reports)
    assert all(f"figures/{name}.svg" in told for name in drawn) and len(drawn) == 11
    assert all(
        told.count(f"| {kind} | 0.") + told.count(f"| {kind} | 1.") == 1 for kind in paper_figures.KINDS
    )
    found = paper_figures.shared(files["rank 8"], files["rank 64"], "attn1.to_q", "up")
    layer = next(name for name in chosen if name.endswith("attn1.to_q"))
    a, b = (torch.linalg.qr(files[n][layer].up.double()).Q for n in ("rank 8", "rank 64"))
    assert found.phi[7, 63].item() == pytest.approx((a.T @ b).square().sum().item() / 8)
