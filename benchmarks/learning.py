"""What is learnt, not how fast: the held-out loss of training the starter model, `python benchmarks/learning.py`.

Every row is a real run in a process of its own: settings changed from `presets/starter_quick.toml`, on a shipped set
of 24 pictures; the loss is that of its 16 held-out pictures, unweighted, at fixed timesteps and noise. The plain PEFT
loop (`peft_loop.py`) of the same rank, layers, rate and batch is measured by the same: each of its files is a warm start of
ours, whose loss before the first step is taken. Results are kept, a line of JSON each, and runs that are there are not
made again; `--draw` writes the table and the picture of docs/.
"""

import argparse
import html
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
STARTER = ROOT / "lora_sd" / "starter"
SETS = ("streamline", "fluent")
PEFT = "plain PEFT loop"
DEFAULT = "recommended"
PLAIN = "not mirrored"  # what the rows below it are changed from
SHORT, LONG = 100, 300  # steps
SEEDS = (42, 43)  # of training and of the noise that is measured with

Settings = dict[str, Any]
Found = dict["Run", dict[int, float]]  # held-out loss by step
ROWS: dict[str, Settings] = {
    DEFAULT: {},
    **{
        row: {"data.flip": False, **settings}  # mirrored pictures would hide much of the over-fitting
        for row, settings in {
            PLAIN: {},
            "rank 1": {"lora.rank": 1, "lora.alpha": 1},
            "rank 2": {"lora.rank": 2, "lora.alpha": 2},
            "rank 4": {"lora.rank": 4, "lora.alpha": 4},
            "rank 64": {"lora.rank": 64, "lora.alpha": 64},
            "targets attention-qv": {"lora.targets": "attention-qv"},
            "targets attention": {"lora.targets": "attention"},
            "targets full": {"lora.targets": "full"},
            "Min-SNR 5": {"loss.min_snr": 5},
            "DoRA": {"lora.dora": "output"},
            "LoRA+ 4": {"lora.plus_ratio": 4, "optim.learning_rate": 5e-4},
            "text encoder": {"lora.text_encoders": True, "optim.text_encoder_rate": 2e-4},
            "pivotal": {
                "data.trigger": "SET",
                "embedding.tokens": 2,
            },  # SET: the style's name, which its captions have
            "constant rate": {"optim.schedule": "constant"},
            "dropout 0.1": {"lora.dropout": 0.1},
            "EMA 0.98": {"optim.ema": 0.98},
        }.items()
    },
}


class Run(NamedTuple):
    row: str
    set: str
    steps: int
    seed: int


def planned() -> Iterator[Run]:
    """The two that are compared at all seeds, short and long, and then the table at one."""
    for style in SETS:
        for seed in SEEDS:
            yield from (
                Run(DEFAULT, style, SHORT, seed),
                Run(DEFAULT, style, LONG, seed),
                Run(PEFT, style, LONG, seed),
            )
    for style in SETS:
        yield from (Run(row, style, SHORT, SEEDS[0]) for row in ROWS)


def ours(run: Run, settings: Settings, folder: Path) -> dict[int, float]:
    """Held-out loss by step of a run of ours."""
    changes = {
        "data.images": f"starter:{run.set}",
        "validate.images": f"starter:{run.set}/heldout",
        "validate.every": min(SHORT, run.steps),
        "save.every": 0,
        "preview.every": 0,
        "optim.steps": run.steps,
        "seed": run.seed,
        "output.dir": folder,
        **settings,
    }
    words = [f"--{name}={word(value)}" for name, value in changes.items()]
    command = ["-m", "lora_sd", "train", str(ROOT / "presets" / "starter_quick.toml"), *words]
    python(command)
    events = map(json.loads, next(folder.glob("*/events.jsonl")).read_text("utf-8").splitlines())
    measured = (event for event in events if event.get("held_out") is not None)
    return {event["step"]: event["held_out"] for event in measured}


def word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def of_set(settings: Settings, style: str) -> Settings:
    return {name: style if value == "SET" else value for name, value in settings.items()}


def theirs(run: Run, folder: Path) -> dict[int, float]:
    """Held-out loss by step of the plain PEFT loop, each of its files measured by ours."""
    pictures = STARTER / "sets" / run.set / "train"
    python(
        [
            *(str(ROOT / "benchmarks" / "peft_loop.py"), "--model", str(STARTER / "model"), "--images", str(pictures)),
            *("--resolution", "128", "--batch", "4", "--rank", "16", "--rate", "1e-3", "--targets", "attention"),
            *("--steps", str(run.steps), "--seed", str(run.seed), "--save", str(folder), "--save-every", str(SHORT)),
        ]
    )  # fmt: skip
    return {
        int(file.stem): ours(run._replace(steps=1), {"lora.start": file}, folder / file.stem)[0]
        for file in sorted(folder.glob("*.safetensors"))
    }


def python(arguments: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}\n{done.stdout[-1000:]}{done.stderr[-3000:]}")


def measure(run: Run) -> dict[int, float]:
    with tempfile.TemporaryDirectory() as folder:
        return (
            theirs(run, Path(folder))
            if run.row == PEFT
            else ours(run, of_set(ROWS[run.row], run.set), Path(folder))
        )


# -- results -----------------------------------------------------------------------------------------------------


def read(results: Path) -> Found:
    lines = results.read_text("utf-8").splitlines() if results.exists() else []
    found = map(json.loads, lines)
    return {Run(*line["run"]): {int(step): loss for step, loss in line["losses"].items()} for line in found}


def make(runs: Iterable[Run], results: Path, at_once: int) -> None:
    """Make the runs that are not among the results."""
    there = read(results)
    missing = [run for run in dict.fromkeys(runs) if run not in there]

    def one(run: Run) -> None:
        losses = measure(run)
        with open(results, "a", encoding="utf-8") as file:
            file.write(json.dumps({"run": run, "losses": losses}) + "\n")
        print(*run, {step: round(loss, 4) for step, loss in losses.items()}, flush=True)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, missing))


# -- what they tell -------------------------------------------------------------------------------------------------


def after(found: Found, row: str, style: str, steps: int, seeds: Sequence[int] = SEEDS[:1]) -> list[float]:
    """The losses after `steps`, of a run of so many: a schedule that falls is another one in a longer run."""
    runs = [Run(row, style, LONG if row == PEFT else steps, seed) for seed in seeds]
    return [found[run][steps] for run in runs if run in found]


def table(found: Found) -> str:
    """Markdown: each row's loss at the first seed."""
    lines = [f"| | {' | '.join(SETS)} |", f"|---|{'---:|' * len(SETS)}"]
    for row in (PEFT, *ROWS):
        cells = [f"{losses[0]:.4f}" if (losses := after(found, row, style, SHORT)) else "–" for style in SETS]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def race(found: Found) -> str:
    """Markdown: ours beside the PEFT loop, the mean of the seeds at both lengths and the rise between them."""
    heads = [f"{style}, {SHORT} steps | {LONG} steps | rise" for style in SETS]
    lines = [f"| mean of {len(SEEDS)} seeds | {' | '.join(heads)} |", f"|---|{'---:|' * 3 * len(SETS)}"]
    for row in (DEFAULT, PEFT):
        cells = []
        for style in SETS:
            short, long = (statistics.mean(after(found, row, style, n, SEEDS)) for n in (SHORT, LONG))
            cells.append(f"{short:.4f} | {long:.4f} | {long - short:+.4f}")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(found: Found) -> str:
    """The table as SVG: a panel for each set, a dot for each row; left is better."""
    rows = (PEFT, *ROWS)
    line, top, label, panel, gap = 24, 64, 170, 340, 30  # pixels
    width, height = label + len(SETS) * (panel + gap), top + line * len(rows) + 28
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="24" font-size="15" font-weight="bold">Held-out loss after {SHORT} steps</text>',
    ]
    drawn += [text(label - 12, top + line * at + 17, row, "end") for at, row in enumerate(rows)]
    for number, style in enumerate(SETS):
        left = label + number * (panel + gap)
        losses = {row: loss for row in rows for loss in after(found, row, style, SHORT)}
        low, high = min(losses.values()), max(losses.values())

        def across(loss: float, left: float = left, low: float = low, high: float = high) -> float:
            return left + 20 + (panel - 80) * (loss - low) / (high - low)

        base = across(losses[PLAIN])
        drawn.append(text(left + panel / 2, top - 12, style, "middle"))
        drawn.append(
            f'<path d="M{base:.1f} {top}v{line * len(rows)}" stroke="#4a8a6f" stroke-dasharray="3 4"/>'
        )
        for at, row in enumerate(rows):
            y = top + line * at + 12
            drawn.append(f'<path d="M{left} {y}h{panel}" stroke="#eee"/>')
            if row in losses:
                colour = {DEFAULT: "#2f6f55", PEFT: "#b5523b"}.get(row, "#777")
                x = across(losses[row])
                drawn.append(f'<circle cx="{x:.1f}" cy="{y}" r="5" fill="{colour}"/>')
                drawn.append(text(x + 10, y + 4, f"{losses[row]:.4f}", "start", 'fill="#555" font-size="11"'))
    drawn.append(
        text(
            label,
            height - 8,
            "left is better; dashed: what the rows below it are changed from",
            "start",
            'fill="#555" font-size="11"',
        )
    )
    return "\n".join([*drawn, "</svg>"]) + "\n"


def text(x: float, y: float, words: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{html.escape(words)}</text>'


def page(found: Found) -> str:
    return f"""# What is learnt, and with which settings

Made by `python benchmarks/learning.py`, which trains the starter model on the two shipped sets (24 pictures each) and takes the
loss on the 16 held-out pictures of each: unweighted, at fixed timesteps and noise, lower is better. *{DEFAULT}* is
`presets/starter_quick.toml`: rank 16, alpha 16, transformer blocks, AdamW 1e-3 falling by cosine, batch 4, pictures mirrored. The plain PEFT loop has
rank 16 on the attention projections, AdamW 1e-3 and batch 4, and its files are measured by the same. The results of each run
are in `learning.jsonl`; two runs that differ by their seed alone differ by up to 0.003, mostly in the noise that is measured with.

## Beside a plain PEFT loop

{race(found)}

## One setting changed at a time

After {SHORT} steps, at seed {SEEDS[0]}; *{PLAIN}* is what the rows below it are changed from, for mirroring hides over-fitting. Ranks have alpha = rank, LoRA+ half the rate, the text encoder learns at 2e-4; pivotal makes the
style's name, which all captions have, two vectors that learn.

{table(found)}

![The same as a picture](learning.svg)
"""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "learning.jsonl")
    parser.add_argument(
        "--at-once", type=int, default=os.cpu_count(), help="runs, each of which takes one core"
    )
    parser.add_argument(
        "--draw", action="store_true", help="only write docs/learning.md and .svg of the results"
    )
    asked = parser.parse_args(arguments)
    if not asked.draw:
        make(planned(), asked.results, asked.at_once)
    found = read(asked.results)
    for name, text in {"learning.svg": picture(found), "learning.md": page(found)}.items():
        (ROOT / "docs" / name).write_text(text, encoding="utf-8")
    print(f"{race(found)}\n\n{table(found)}")


if __name__ == "__main__":
    main(sys.argv[1:])
