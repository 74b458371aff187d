"""Axes, the order of a grid's pictures, its sheet, and a grid drawn to the end."""

from pathlib import Path

import pytest
from PIL import Image

from lora_sd import grid, grid_sheet
from lora_sd.grid import ALONE, Axis
from lora_sd.grid_command import axis, draw
from lora_sd.grid_drawing import draw_grid, job_of

LORA = {"cat.safetensors": 0.8}


@pytest.mark.parametrize(
    "kind, text, values",
    [
        ("strength", "0, 0.5,1", (0.0, 0.5, 1.0)),
        ("strength", "0-1 by 0.25", (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("strength", "-1 to 1 by 1; 2", (-1.0, 0.0, 1.0, 2.0)),
        ("strength", "-0.5--0.1 by 0.2", (-0.5, -0.3, -0.1)),
        ("strength", "0-1 step 0.4", (0.0, 0.4, 0.8)),
        ("seed", "1-3, 7", (1, 2, 3, 7)),
        ("steps", "10\n20", (10, 20)),
        ("rank", "4..6", (4, 5, 6)),
        ("guidance", "2.5", (2.5,)),
        ("prompt", " a cat, red \n\n日本の猫", ("a cat, red", "日本の猫")),
    ],
)
def test_values_are_lists_and_ranges(kind, text, values):
    assert grid.read(kind, text) == Axis(kind, values)


def job(loras=LORA, **how):
    return job_of("a cat", loras, "starter", **how)


def test_a_cell_is_the_job_with_its_two_values():
    cells = grid.plan(job(), grid.read("strength", "0.5, 1"), grid.read("seed", "1, 2"))
    assert [(cell.column, cell.row) for cell in cells] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert cells[1].job == job({"cat.safetensors": 1.0}, seed=1)
    assert cells[2].job == job({"cat.safetensors": 0.5}, seed=2)


@pytest.mark.parametrize("turned", [False, True])
def test_each_file_is_loaded_once(turned):
    files, seeds = grid.read("checkpoint", "a.safetensors, b.safetensors"), grid.read("seed", "1-3")
    cells = grid.plan(job(), *((seeds, files) if turned else (files, seeds)))
    assert [cell.job["loras"][0][0][0] for cell in cells] == [*"aaabbb"]
    assert [cell.job["seed"] for cell in cells] == [1, 2, 3, 1, 2, 3]


def test_without_the_lora_every_checkpoint_and_rank_is_the_same_picture():
    files = grid.read("checkpoint", "a.safetensors, b.safetensors")
    drawn = []
    cells = grid.plan(job(), files, grid.read("strength", "0, 1"))
    pictures = list(grid.draw(cells, lambda job: drawn.append(job) or Path(f"{len(drawn)}.png")))
    assert len(pictures) == 4 and len(drawn) == 3
    [off, on] = grid.plan({**job()}, grid.read("rank", "2"), grid.read("strength", "0, 1"))
    assert "rank" not in off.job and on.job["rank"] == 2


def test_only_one_thing_may_change():
    assert len(grid.plan(job({}), grid.read("seed", "1-3"), ALONE)) == 3


def test_headings_are_on_the_sheet_and_every_picture_in_its_place():
    x, y = grid.read("strength", "0, 1"), grid.read("prompt", "a cat\n" + "a very long prompt " * 20)
    colours = {(0, 0): "red", (1, 0): "lime", (0, 1): "blue"}
    page = grid_sheet.sheet({at: Image.new("RGB", (64, 48), c) for at, c in colours.items()}, x, y)
    found = {page.getpixel((column, row)) for column in range(page.width) for row in range(page.height)}
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255)} <= found
    plain = grid_sheet.sheet({at: Image.new("RGB", (64, 48), c) for at, c in colours.items()}, x, x)
    assert plain.size != page.size  # a prompt takes more lines than a number


def test_headings_are_wrapped_to_their_width():
    lines = grid_sheet.wrapped("a very long prompt " * 20, 12, 100)
    assert len(lines) == grid_sheet.LINES and lines[-1].endswith("…")
    assert all(grid_sheet.font(line, 12).getlength(line) <= 100 for line in lines)
    assert len(grid_sheet.wrapped("x" * 30, 12, 60)) > 1


def test_what_no_font_here_can_write_is_numbered_and_in_the_text_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(grid_sheet, "FONTS", ())
    grid_sheet.font.cache_clear()
    x = grid.read("prompt", "a cat\n日本の猫")
    assert grid_sheet.readable(x) == ["a cat", "prompt 2"]
    page = grid_sheet.sheet({(0, 0): Image.new("RGB", (64, 64))}, x, ALONE)
    grid_sheet.save(page, tmp_path / "grid.png", job(negative="dull"), x, ALONE)
    text = Image.open(tmp_path / "grid.png").text["parameters"]
    assert text.startswith(
        "a cat\nNegative prompt: dull\nSteps: 25, Sampler: dpmpp_2m_karras, CFG scale: 5, Seed: 42"
    )
    assert "日本の猫" in text
    grid_sheet.font.cache_clear()


def test_a_sheet_stays_of_a_size_that_can_be_opened():
    pictures = {(column, 0): Image.new("RGB", (1024, 1024)) for column in range(20)}
    assert max(grid_sheet.sheet(pictures, grid.read("seed", "1-20"), ALONE).size) <= grid_sheet.LARGEST


def test_the_command_takes_prompts_in_one_line():
    assert axis("prompt=a cat|a dog", "--x").values == ("a cat", "a dog")


def test_a_grid_is_drawn_to_the_end(tmp_path, tiny_folder):
    out = tmp_path / "sheet.png"
    draw(
        [
            "a cat",
            "--model",
            str(tiny_folder("sd15")),
            "--x",
            "seed=1,2",
            "--y",
            "steps=1,2",
            "--out",
            str(out),
        ]
    )
    page = Image.open(out)
    assert page.width > 2 * 128 and page.height > 2 * 128
    seen = []
    again = draw_grid(
        "a cat",
        base=str(tiny_folder("sd15")),
        x=grid.read("seed", "1,2"),
        y=grid.read("steps", "1,2"),
        on_progress=lambda *counts: seen.append(counts),
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)] and again.tobytes() == page.convert("RGB").tobytes()
