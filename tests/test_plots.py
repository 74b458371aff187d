"""Plots are sound SVG that say what they were given."""

import math
import xml.etree.ElementTree as ET

import pytest

from lora_sd import workshop_plots
from lora_sd.plots import TONES, Curve, curves, heat_map, similarity_map

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [part.text for part in ET.fromstring(svg).iter(f"{SVG}text")]


def cells(svg: str) -> dict[str, int]:
    """How many cells have each tone: a path of rectangles h…v1h-…z, of so many cells side by side."""
    found = {}
    for path in ET.fromstring(svg).find(f"{SVG}g"):
        runs = [piece.split("h")[1].split("v")[0] for piece in path.get("d").split("M")[1:]]
        found[path.get("class")] = sum(map(int, runs))
    return found


def test_a_heat_map_has_each_number_in_its_cell_and_leaves_out_what_is_missing():
    svg = heat_map("A & B", ["IN01", "MID"], ["q", "k"], {(0, 0): 2.0, (0, 1): 2.0, (1, 1): 0.5})
    assert {"A & B", "IN01", "MID", "q", "k", "2.0", "0.50"} <= {*texts(svg)}
    assert cells(svg) == {f"t{TONES - 1}": 2, f"t{TONES // 4}": 1}


def test_a_similarity_map_has_a_cell_for_each_i_and_j():
    svg = similarity_map("φ", [[1.0, 0.5, 0.0]] * 2, first="<a>", second="b")
    drawn = cells(svg)
    assert drawn == {f"t{TONES - 1}": 2, f"t{TONES // 2}": 2, "t0": 2} and "i, of <a>" in texts(svg)


def test_curves_fall_on_a_logarithmic_scale():
    svg = curves("σ", [Curve("whole", [1.0, 0.1, 0.01]), Curve("MID", [0.5, 0.0], "middle")], x="i", y="σ")
    paths = {p.find(f"{SVG}title").text: p.get("d") for p in ET.fromstring(svg).iter(f"{SVG}path") if len(p)}
    heights = [float(point.split()[1]) for point in paths["whole"][1:].split("L")]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1])  # two decades of one height
    assert paths["MID"].count("L") == 0  # zero has no place there
    assert {"whole", "middle"} <= {*texts(svg)}


def test_an_update_of_zero_can_be_drawn():
    layers = {"unet.mid_block.attentions.0.proj_in": layer("MID", [0.0])}
    for draw in (workshop_plots.norms, workshop_plots.effective_ranks):
        ET.fromstring(draw("t", layers))
    ET.fromstring(workshop_plots.spectra("t", layers, whole="all", x="i", y="σ"))


def layer(block: str, values: list[float]) -> dict:
    return {"block": block, "norm": math.hypot(*values), "effective_rank": 1.0, "singular_values": values}


def test_a_cell_of_norms_is_that_of_its_layers_together():
    stem = "unet.down_blocks.0.attentions.0.transformer_blocks"
    layers = {f"{stem}.{n}.attn1.to_q": layer("IN01", [v]) for n, v in enumerate((3.0, 4.0))}
    svg = workshop_plots.norms("t", layers | {"unet.mid_block.resnets.0.conv1": layer("MID", [1.0])})
    assert {"IN01", "MID", "attn1 q", "conv", "5.0", "1.0"} <= {*texts(svg)}
