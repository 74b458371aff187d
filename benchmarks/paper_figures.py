"""The figures of arXiv:2106.09685, section 7, on the starter model: `python benchmarks/paper_figures.py`.

Three real runs of `presets/starter_quick.toml` (24 pictures, 100 steps, all layers of the transformer blocks): rank 8, and rank 64
at two seeds. What is drawn: their spectra, their effective ranks, and φ(i, j) between the directions of A (`down`) and of B
(`up`), averaged over all layers of a kind. Runs that are in --runs are not made again; docs/workshop_figures.md and its
pictures are written.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lora_sd import workshop_plots  # noqa: E402
from lora_sd.plots import Curve, curves, similarity_map  # noqa: E402
from lora_sd.workshop.analysis import Report, analyse_file  # noqa: E402
from lora_sd.workshop.lora_file import LoraFile, open_lora  # noqa: E402
from lora_sd.workshop.similarity import Of, chance, directions, subspace_similarity  # noqa: E402

RUNS = {"rank 8": (8, 42), "rank 64": (64, 43), "rank 64, other seed": (64, 42)}  # rank = alpha, seed
KINDS = {
    "self-attention q": "attn1.to_q",
    "self-attention v": "attn1.to_v",
    "cross-attention q": "attn2.to_q",
    "cross-attention k": "attn2.to_k",
    "cross-attention v": "attn2.to_v",
    "feed-forward, second": "ff.net.2",
}
DRAWN = ("self-attention q", "self-attention v")  # the paper's W_q and W_v
PAIRS = {"ranks": ("rank 8", "rank 64"), "seeds": ("rank 64", "rank 64, other seed")}
SIDES: dict[str, Of] = {"A": "down", "B": "up"}


def trained(runs: Path) -> dict[str, Path]:
    """The LoRA of each run, made where it is not there."""
    found = {}
    for name, (rank, seed) in RUNS.items():
        folder = runs / f"rank{rank}-seed{seed}"
        if not list(folder.glob("*/checkpoints/*.safetensors")):
            settings = {
                **{"lora.rank": rank, "lora.alpha": rank, "seed": seed, "output.name": "figure"},
                **{
                    "output.dir": folder,
                    "save.dtype": "fp32",
                    "save.every": 0,
                    "preview.every": 0,
                    "validate.every": 100,
                },
            }
            words = [f"--{setting}={value}" for setting, value in settings.items()]
            command = [
                sys.executable,
                "-m",
                "lora_sd",
                "train",
                str(ROOT / "presets" / "starter_quick.toml"),
                *words,
            ]
            subprocess.run(command, cwd=ROOT, env=os.environ, check=True)
        found[name] = next(folder.glob("*/checkpoints/*.safetensors"))
    return found


class Shared(NamedTuple):
    phi: Tensor  # (i, j), the mean over layers
    chance: float  # of φ(1, 8), the mean over layers


def shared(a: LoraFile, b: LoraFile, kind: str, of: Of) -> Shared:
    """φ between the directions of two files' layers of a kind."""
    layers = [name for name in a if name.endswith(kind)]
    found = [subspace_similarity(directions(a[name], of), directions(b[name], of)) for name in layers]
    side = [a[name].down[0].numel() if of == "down" else len(a[name].up) for name in layers]
    return Shared(torch.stack(found).mean(0), sum(chance(1, 8, width) for width in side) / len(side))


def spectra(reports: dict[str, Report]) -> str:
    lines = []
    for name, report in reports.items():
        values = [layer["singular_values"] for layer in report.table()["layers"].values()]
        lines.append(Curve(name, workshop_plots.joint(values), name))
    return curves("Singular values of ΔW, all layers together", lines, x="i", y="σᵢ")


def rows(files: dict[str, LoraFile]) -> Iterable[str]:
    for kind, ending in KINDS.items():
        cells = []
        for first, second in PAIRS.values():
            for of in SIDES.values():
                found = shared(files[first], files[second], ending, of)
                cells += [f"{found.phi[0, 0]:.2f}", f"{found.phi[0, 7]:.2f}"]
        by_luck = [shared(files["rank 8"], files["rank 64"], ending, of).chance for of in SIDES.values()]
        yield f"| {kind} | {' | '.join(cells)} | {by_luck[0]:.2f}, {by_luck[1]:.2f} |"


def table(files: dict[str, LoraFile]) -> str:
    heads = [f"{side}, {pair}: φ({ij})" for pair in PAIRS for side in SIDES for ij in ("1, 1", "1, 8")]
    return "\n".join(
        [
            f"| | {' | '.join(heads)} | φ(1, 8) by chance: A, B |",
            f"|---|{'---:|' * (len(heads) + 1)}",
            *rows(files),
        ]
    )


def pictures(files: dict[str, LoraFile], reports: dict[str, Report]) -> dict[str, str]:
    """File name → SVG."""
    drawn = {"spectra": spectra(reports)}
    layers = reports["rank 64"].table()["layers"]
    drawn["norms"] = workshop_plots.norms("‖ΔW‖, rank 64", layers)
    drawn["effective_rank"] = workshop_plots.effective_ranks("Effective rank, rank 64", layers)
    for pair, (first, second) in PAIRS.items():
        for side, of in SIDES.items():
            for kind in DRAWN:
                phi = shared(files[first], files[second], KINDS[kind], of).phi.tolist()
                name = f"phi_{pair}_{side}_{kind[-1]}"
                drawn[name] = similarity_map(f"{side}, {kind}", phi, first=first, second=second, side=220)
    return drawn


def page(files: dict[str, LoraFile], reports: dict[str, Report]) -> str:
    ranks = "\n".join(
        f"| {name} | {report.analysis.rank_for()} | {report.analysis.rank_for(0.9)} | "
        f"{sum(layer.effective_rank for layer in report.analysis.layers) / len(report.analysis.layers):.1f} | {report.analysis.norm:.2f} |"
        for name, report in reports.items()
    )
    shown = "\n\n".join(
        "\n".join(
            [
                f"| {first} and {second} | {' | '.join(DRAWN)} |",
                "|---|---|---|",
                *(
                    f"| {side} | {' | '.join(f'![φ of {side}, {kind}](figures/phi_{pair}_{side}_{kind[-1]}.svg)' for kind in DRAWN)} |"
                    for side in SIDES
                ),
            ]
        )
        for pair, (first, second) in PAIRS.items()
    )
    deceived, honest = (
        shared(files["rank 8"], files[other], KINDS[DRAWN[0]], "down").phi[7, 63].item()
        for other in ("rank 64, other seed", "rank 64")
    )
    return TEXT.format(
        ranks=ranks,
        table=table(files),
        shown=shown,
        deceived=f"{deceived:.2f}",
        honest=f"{honest:.2f}",
        beyond=f"{1 - reports['rank 64'].analysis.energies()[7].item():.0%}",
    )


TEXT = """# The paper's figures, on the starter model

Made by `python benchmarks/paper_figures.py`: section 7 of LoRA (Hu et al., [arXiv:2106.09685](https://arxiv.org/abs/2106.09685)) with
three runs of `presets/starter_quick.toml`, which differ in rank and seed. The paper asks what rank an update needs, and whether two
runs find the same directions, for GPT-3; here it is asked of a small diffusion model after 100 steps. The page makes the same
plots of any LoRA (*Tools*, *Look into*).

## How much rank is used

| | rank that keeps 99 % of the energy | 90 % | effective rank, mean of the layers | ‖ΔW‖ |
|---|---:|---:|---:|---:|
{ranks}

![Singular values](figures/spectra.svg)

![Size of the update by block](figures/norms.svg)

![Effective rank by block](figures/effective_rank.svg)

The paper's first sentence, that a small rank holds most of what is learnt, is supported in part: the values fall fast, and with
[docs/learning.md](learning.md), where rank 64 learns no more than rank 16 does, the rest does little. But it falls without an edge; of
what rank 64 has learnt in so few steps, {beyond} of the energy lies beyond what rank 8 could hold.

## Whether two runs find the same directions

φ(i, j) is how much of the first i directions of one lies in the first j of the other (equation 4), averaged over the 11 layers of each
kind. A is `down`, what a layer listens to, as in the paper's figures 3 and 4; B is `up`, what it answers with.

{shown}

{table}

The paper's sentence is that the strongest directions of rank 8 and of rank 64 overlap while the others do not, and so do those of two
seeds. **It holds here for B, and hardly for A.** Of B's strongest direction half to three quarters lie in the other run's first 8, about
ten times what chance gives, and less the further one goes. A is still near its random start: B begins at zero, so that A has no gradient at first, and 100
steps turn only its strongest directions, most where the text comes in (cross-attention k). The paper trained far longer.

Runs of one seed would have shown more, for the wrong reason: the first 8 rows that A begins with are then the same at both ranks,
and φ(8, 64) of A is {deceived} instead of {honest}, in self-attention q. So all that is compared above differs in its seed.
"""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", type=Path, default=ROOT / "workspace" / "figures", help="where the runs are kept"
    )
    asked = parser.parse_args(arguments)
    paths = trained(asked.runs)
    files = {name: open_lora(path) for name, path in paths.items()}
    reports = {name: analyse_file(path) for name, path in paths.items()}
    folder = ROOT / "docs" / "figures"
    folder.mkdir(exist_ok=True)
    for name, svg in pictures(files, reports).items():
        (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    text = page(files, reports)
    (ROOT / "docs" / "workshop_figures.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
