"""What the Tools page shows: a command at work, what it found or made, and why it could not."""

import base64
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from lora_sd import workshop_plots
from lora_sd.plots import similarity_map

from . import models, reach, view
from .desk import Desk
from .view import Node, node
from .words import language, say

MOST_LAYERS = 1200  # in the table of layers


def draw(desk: Desk) -> Node:
    # numbered, so that a tab is sent it also where the last outcome was the same
    return node("div", _state(desk), data_number=str(desk.finished))


def _state(desk: Desk) -> Node:
    if desk.running:
        return _working(desk)
    if desk.outcome:  # also where it was cancelled too late
        return _outcome(desk.tool, desk.outcome, language())
    if desk.stop:
        return node("p", say("Cancelled; nothing was written."), cls="quiet")
    if desk.error:
        return node("p", desk.error, cls="obstacle")
    return node(
        "p", say("What comes out is shown here. The files you start from are never changed."), cls="quiet"
    )


def _working(desk: Desk) -> Node:
    if desk.stop:
        return node("p", say("Cancelling …"), cls="quiet")
    text = (
        say("Reading the files …")
        if not desk.total
        else say("{done} of {total} layers", done=desk.done, total=desk.total)
    )
    return node(
        "div",
        node("p", text, role="status"),
        view.bar(desk.done / max(1, desk.total), say("Progress")),
        node("p", view.button(say("Cancel"), "cancel"), cls="after"),
    )


@lru_cache(maxsize=8)
def _outcome(tool: str, told: str, language: str) -> Node:
    """Drawn once for each outcome and language; `told` is JSON."""
    return node("div", *PARTS.get(tool, made)(json.loads(told)), cls="found")


# -- a new file --------------------------------------------------------------------------------------------------------


def made(told: dict[str, Any]) -> list[Node]:
    path = Path(told["path"])
    facts = [size(told["size"])]
    if "layers" in told:
        facts.insert(0, say("{layers} layers", layers=told["layers"]))
    if "ranks" in told:
        low, high = told["ranks"]
        rank = (
            say("rank {rank}", rank=high) if low == high else say("rank {low} to {high}", low=low, high=high)
        )
        facts.append(rank)
    parts = [
        node("p", node("b", path.name), node("span", " · " + " · ".join(facts), cls="quiet"), role="status"),
    ]
    if not reach.confined:
        parts.append(node("p", say("It lies in {folder}.", folder=str(path.parent)), cls="quiet"))
    if "error" in told:
        parts += _error(told["error"], *told["worst"])
    parts += [node("p", sentence, cls="note") for sentence in told.get("left_out", [])]
    if path.suffix == ".safetensors" and "layers" in told and "ranks" in told:
        parts.append(node("p", view.button(say("Look into it"), "look", lora=str(path)), cls="after"))
    return parts


def _error(whole: float, layer: str, worst: float) -> list[Node]:
    if whole < 1e-6:
        return [node("p", say("Nothing of the update is lost."))]
    return [
        node(
            "p",
            say(
                "{error} of the update is lost: ‖ΔW − ΔW'‖ / ‖ΔW‖. {kept} of its energy is kept.",
                error=percent(whole),
                kept=percent(1 - whole**2),
            ),
        ),
        node(
            "p",
            say("The layer that loses most, {layer}, loses {error}.", layer=layer, error=percent(worst)),
            cls="quiet",
        ),
    ]


# -- check -------------------------------------------------------------------------------------------------------------


def check(told: dict[str, Any]) -> list[Node]:
    rows = [_verdict(verdict, told["total"]) for verdict in told["verdicts"]]
    heads = [say("Program"), say("Uses"), say("Leaves out"), say("Why")]
    filled = [at for at in range(len(heads)) if any(row[at] for row in rows)]
    family = models.FAMILIES[told["family"]]
    return [
        node(
            "p",
            say(
                "A LoRA for {family} of {total} tensors. What each program makes of it:",
                family=family,
                total=told["total"],
            ),
        ),
        table([heads[at] for at in filled], [[row[at] for at in filled] for row in rows], words=True),
    ]


def _verdict(verdict: dict[str, Any], total: int) -> list[str]:
    used, ignored = verdict["used"], verdict["ignored"]
    if not ignored:
        uses = "✓ " + say("all")
    elif not used:
        uses = "✗ " + say("uses nothing")
    else:
        uses = say("{used} of {total}", used=used, total=total)
    few = ", ".join(ignored[:2]) + (" …" if len(ignored) > 2 else "")
    return [verdict["program"], uses, few if used else "", verdict["why"]]


# -- look into ---------------------------------------------------------------------------------------------------------


def look(told: dict[str, Any]) -> list[Node]:
    report = told["report"]
    parts = [_sentence(report)]
    if "compared" in told:
        parts += _compared(told["compared"], report["file"])
    if "amplified" in told:
        parts += _amplified(told["amplified"])
    layers = report["layers"]
    parts += [
        _ranks(report),
        plot(
            workshop_plots.norms(say("Size of the update, ‖ΔW‖"), layers),
            say("Heat map of ‖ΔW‖ by block and kind of layer"),
        ),
        plot(
            workshop_plots.effective_ranks(say("Effective rank"), layers),
            say("Heat map of the effective rank by block and kind of layer"),
        ),
        plot(
            workshop_plots.spectra(
                say("Singular values of ΔW"),
                layers,
                whole=say("whole LoRA"),
                x=say("i-th direction"),
                y=say("σᵢ of a block's layers"),
            ),
            say(
                "Falling curves of the singular values of each block; the table of blocks has what follows from them"
            ),
        ),
        fold(say("By block"), _blocks(report)),
        fold(say("By layer"), _layers(report)),
        fold(say("What these words mean"), *_words()),
    ]
    return parts


def _sentence(report: dict[str, Any]) -> Node:
    rank, uses = report["rank"], report["uses"]
    if uses >= rank:
        text = say(
            "This rank-{rank} LoRA uses all of its rank: less would keep under 99 % of its energy.", rank=rank
        )
        return node("p", text, cls="answer", role="status")
    text = say(
        "This rank-{rank} LoRA uses about {uses}: rank {uses} keeps 99 % of its energy and would take {small} instead of {size}.",
        rank=rank,
        uses=uses,
        small=size(report["uses_bytes"]),
        size=size(report["bytes"]),
    )
    button = view.button(say("Shrink it to rank {rank} …", rank=uses), "shrink", rank=str(uses))
    return node("div", node("p", text, cls="answer", role="status"), node("p", button, cls="after"))


def _ranks(report: dict[str, Any]) -> Node:
    """What each rank would keep and weigh: the size falls evenly with the rank, as far as all layers have it."""
    kept, rank = report["energy_kept"], report["rank"]
    shown = sorted({2**n for n in range(rank.bit_length())} | {report["uses"], rank})
    rows = [[str(r), percent(kept[r - 1]), size(report["bytes_at"][r - 1])] for r in shown if r <= len(kept)]
    return table([say("Rank"), say("Energy kept"), say("File size")], rows)


def _blocks(report: dict[str, Any]) -> Node:
    rows = [
        [
            name,
            str(block["layers"]),
            f"{block['norm']:.3g}",
            percent(block["share"]),
            f"{block['effective_rank']:.1f}",
            str(block["rank_for"]),
        ]
        for name, block in report["blocks"].items()
    ]
    heads = [
        say("Block"),
        say("Number of layers"),
        "‖ΔW‖",
        say("Share of energy"),
        say("Effective rank"),
        say("Rank for 99 %"),
    ]
    return table(heads, rows)


def _layers(report: dict[str, Any]) -> Node:
    largest = sorted(report["layers"].items(), key=lambda item: -item[1]["norm"])[:MOST_LAYERS]
    rows = [
        [
            name,
            layer["block"],
            str(layer["rank"]),
            f"{layer['alpha']:g}",
            f"{layer['norm']:.3g}",
            f"{layer['effective_rank']:.1f}",
        ]
        for name, layer in largest
    ]
    return table([say("Layer"), say("Block"), say("Rank"), say("Alpha"), "‖ΔW‖", say("Effective rank")], rows)


def _compared(compared: dict[str, Any], first: str) -> list[Node]:
    second = compared["name"]
    rows = [
        [
            name,
            str(block["layers"]),
            f"{block['first']:.3f}",
            f"{block['shared']:.3f}",
            f"{block['chance']:.3f}",
            f"{block['cosine']:.3f}",
            percent(block["change"]),
        ]
        for name, block in compared["blocks"].items()
    ]
    count = sum(block["layers"] for block in compared["blocks"].values())

    def mean(name: str) -> float:
        return sum(block[name] * block["layers"] for block in compared["blocks"].values()) / count

    text = say(
        "Beside {second}: of the directions that both use, {shared} are shared (by chance {chance}); from one to the other each layer changes by {change} of its ‖ΔW‖.",
        second=second,
        shared=percent(mean("shared")),
        chance=percent(mean("chance")),
        change=percent(mean("change")),
    )
    heads = [
        say("Block"),
        say("Number of layers"),
        "φ(1, 1)",
        say("φ of what is used"),
        say("by chance"),
        say("Cosine"),
        say("Size of the change"),
    ]
    drawn = similarity_map(say("Shared directions φ(i, j)"), compared["phi"], first=first, second=second)
    parts = [
        node("p", text),
        plot(drawn, say("Heat map of φ(i, j) between the two LoRAs")),
        table(heads, rows),
    ]
    one, other = compared["only"]
    if one or other:
        parts.append(
            node(
                "p",
                say("Layers that only one of them has: {one} and {other}.", one=one, other=other),
                cls="quiet",
            )
        )
    return parts


def _amplified(amplified: dict[str, Any]) -> list[Node]:
    heads = [say("Block"), say("Factor"), "‖ΔW‖", "‖UᵀWVᵀ‖", say("of W itself"), say("at random"), "‖W‖"]
    fields = ("factor", "delta", "own", "top", "random", "base")
    rows = [
        [name, *(f"{block[field]:.3g}" for field in fields)] for name, block in amplified["blocks"].items()
    ]
    text = say(
        "Against {model}: how many times more the update has, in its own directions, than the model has there.",
        model=amplified["name"],
    )
    return [node("p", text), table(heads, rows)]


def _words() -> list[Node]:
    sentences = [
        say("ΔW is what the LoRA adds to a layer's weight, (alpha / rank) · up · down; ‖ΔW‖ is its size."),
        say("Energy is ‖ΔW‖². A rank keeps the part of it that the strongest so many directions hold."),
        say("The effective rank counts the directions that matter, weak ones as fractions."),
        say("φ(i, j) is how much of the first i directions of one lies in the first j of the other, 0 to 1."),
    ]
    return [node("p", sentence, cls="quiet") for sentence in sentences]


PARTS = {"look": look, "check": check}

# -- small parts -------------------------------------------------------------------------------------------------------


def table(heads: list[str], rows: list[list[str]], *, words: bool = False) -> Node:
    """`words`: its cells are no numbers."""
    head = node("tr", *(node("th", text, scope="col") for text in heads))
    body = [
        node("tr", node("th", row[0], scope="row"), *(node("td", text) for text in row[1:])) for row in rows
    ]
    drawn = node("table", node("thead", head), node("tbody", *body))
    return node(
        "div",
        drawn,
        cls="figures words" if words else "figures",
        tabindex="0",
        role="region",
        aria_label=heads[0],
    )


def fold(title: str, *parts: Node) -> Node:
    return node("details", node("summary", title), *parts)


def plot(svg: str, alt: str) -> Node:
    data = base64.b64encode(svg.encode()).decode()
    picture = node("img", src=f"data:image/svg+xml;base64,{data}", alt=alt, cls="plot")
    return node("div", picture, cls="figures", tabindex="0", role="region", aria_label=alt)


def size(count: int) -> str:
    if count < 1e5:
        return f"{count / 1e3:.0f} KB"
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def percent(share: float) -> str:
    return f"{share * 100:.3g} %" if share < 0.995 or share >= 0.9999 else f"{share * 100:.2f} %"
