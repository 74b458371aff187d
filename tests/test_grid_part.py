"""The grid and the search for the best checkpoint as the page shows them."""

import json
import time

import pytest
from PIL import Image

from app import best_part, drawing, gallery, grid_part, places
from app.grid_maker import Maker
from lora_sd import best, grid
from lora_sd.grid import ALONE
from lora_sd.grid_drawing import job_of


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """What is drawn, by a stand-in for the drawing process."""
    places.tidy()
    jobs = []

    def draw(job):
        target = tmp_path / f"{job['seed']}-{job['steps']}.png"
        jobs.append(job)
        for done in range(1, 4):
            time.sleep(0.01)
            yield done, 3
        Image.new("RGB", (32, 32), "red").save(target)
        yield target

    monkeypatch.setattr(drawing, "draw", draw)

    def known(job):
        target = tmp_path / f"{job['seed']}-{job['steps']}.png"
        return target if target.exists() else None

    monkeypatch.setattr(gallery, "known", known)
    return jobs


def job():
    return job_of("a cat", {}, "starter")


X, Y = grid.read("seed", "1, 2"), grid.read("steps", "3, 4")


def test_a_grid_is_drawn_beside_the_page_and_repeats_take_no_time(drawn):
    maker = Maker()
    assert maker.seconds(grid.plan(job(), X, Y)) is None  # nothing was timed yet
    maker.start(job(), X, Y)
    with pytest.raises(ValueError, match="drawn already"):
        maker.start(job(), X, Y)
    maker.thread.join()
    made = maker.grid
    assert made.status == "done" and len(made.pictures) == 4 and Image.open(made.sheet).width > 64
    assert maker.seconds(made.cells) == 0
    assert maker.seconds(grid.plan(job(), grid.read("seed", "7"), ALONE)) > 0


def test_a_cancelled_grid_keeps_what_is_there(drawn):
    maker = Maker()
    maker.start(job(), X, Y)
    while not maker.grid.pictures:
        time.sleep(0.001)
    maker.cancel()
    maker.thread.join()
    assert maker.grid.status == "cancelled" and 0 < len(maker.grid.pictures) < 4 and maker.grid.sheet
    assert "they stay" in str(grid_part.draw(maker.grid))


def test_what_goes_wrong_is_a_sentence_in_the_page(monkeypatch):
    def broken(job):
        raise ValueError("The disk is full.")

    monkeypatch.setattr(drawing, "draw", broken)
    maker = Maker()
    maker.start(job(), X, Y)
    maker.thread.join()
    assert maker.grid.status == "failed" and "The disk is full." in str(grid_part.draw(maker.grid))


def test_pictures_are_compared_as_those_of_watch_are(drawn):
    """static/watch.js reads a table with a heading for each column and row, one of one row, too."""
    for y in (Y, grid.ALONE):
        maker = Maker()
        maker.start(job(), X, y)
        maker.thread.join()
        table = grid_part.draw_table(maker.grid)
        [head, body] = table["children"][0]["children"]
        rows = body["children"]
        assert "left" in json.loads(table["attributes"]["data-words"])
        assert [len(row["children"]) for row in (*head["children"], *rows)] == [3] * (1 + len(rows))
        assert all(row["children"][0]["tag"] == "th" for row in rows)


def test_fields_say_how_many_pictures_or_what_is_wrong(drawn):
    values = {"grid_x_kind": "seed", "grid_x_values": "1-3", "grid_y_kind": "", "grid_y_values": ""}
    values["grid_checkpoints"] = []
    assert "3 pictures" in str(grid_part.told(values, lambda values: job()))
    said = grid_part.told({**values, "grid_x_values": "x"}, lambda values: job())
    assert said["attributes"]["class"] == "obstacle"
    assert "has no values" in str(
        grid_part.told({**values, "grid_x_kind": "checkpoint"}, lambda values: job())
    )


def test_an_axis_begins_with_values_that_fit(tmp_path):
    assert grid_part.usual("strength", "", "") == "0, 0.5, 0.8, 1, 1.5"
    assert grid_part.usual("rank", "", "") == "1, 4, 16"
    assert grid_part.usual("prompt", "", "a cat") == "a cat"
    assert grid_part.kind_changed("checkpoint", "", "", "")[1]["visible"]


def test_what_was_found_is_a_table_with_its_suggestion(home):
    folder = home / "runs" / "20260101-000000-cat"
    rows = [
        best.Row("", 0, 0.09, looks=(1.7,), places=(1.2,)),
        best.Row("cat.safetensors", 50, 0.07, False, (1.0,), (1.2,)),
    ]
    found = best.Found("done", rows=rows, prompts=["a cat"], suggested=best.suggest(rows))
    shown = str(best_part.draw(folder, found))
    assert (
        "Step 50: the lowest held-out loss" in shown and "≈ 0.0700" in shown and "'data-act': 'use'" in shown
    )
    losses, distances = best_part.points(rows)
    assert losses["loss"].tolist() == [0.09, 0.07] and distances["distance"].tolist() == [1.7, 1.0]


def test_a_run_of_somebody_else_is_no_run_to_search(home):
    assert best_part.answered({"act": "use", "run": "../../etc", "file": "passwd"}) is None
    part = best_part.Part("find", "view", "losses", "distances", "charts")
    [told] = best_part.find(part, "/tmp/cat.safetensors")
    assert told["view"]["attributes"]["class"] == "obstacle"
