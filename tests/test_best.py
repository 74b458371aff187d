"""The rule of the best checkpoint on made-up tables; how near pictures are; a search on the starter model."""

import pytest
import torch
from small_runs import config_for

from lora_sd import best, best_search, events, nearness, run
from lora_sd.best import Row
from lora_sd.nearness import Seen


def row(step, held_out=None, look=1.0, place=1.2):
    looks = () if look is None else (look,) * 3
    return Row(
        f"cat-{step:06d}.safetensors" if step else "",
        step,
        held_out,
        looks=looks,
        places=(place,) * len(looks),
    )


def suggested(*rows):
    found = best.suggest(rows)
    return found.step, found.code


BASE = row(0, 0.09, look=1.7)


def test_it_is_the_lowest_loss_of_those_that_have_the_look_and_copy_nothing():
    table = [row(20, 0.060, look=1.5), row(100, 0.067), row(200, 0.070), row(400, 0.061, place=0.4)]
    assert suggested(BASE, *table) == (100, "both")


def test_without_losses_it_is_the_first_that_is_as_near_as_they_get():
    assert suggested(BASE, row(20, look=1.4), row(50, look=1.05), row(100), row(200, look=0.98)) == (
        50,
        "look",
    )


def test_a_distance_that_does_not_change_tells_nothing():
    assert suggested(row(0, 0.09, look=1.05), row(50, 0.07), row(100, 0.06)) == (100, "loss")
    assert suggested(row(0, look=1.05), row(50), row(100)) == (100, "last")
    assert suggested(row(0, look=None), row(50, 0.07, look=None), row(100, 0.08, look=None)) == (50, "loss")


def test_a_checkpoint_before_the_look_is_learned_is_left_out_where_a_later_one_has_it():
    assert suggested(BASE, row(25, 0.081, look=1.3), row(50, 0.084, look=0.95)) == (50, "both")


def test_a_run_that_was_too_short_is_told_so():
    assert suggested(BASE, row(10, 0.085, look=1.6), row(20, 0.08, look=1.4)) == (20, "far")


def test_where_all_copy_it_is_the_one_with_the_fewest_copies():
    few = Row("a", 100, 0.07, looks=(1.0,) * 3, places=(0.4, 1.0, 1.0))
    assert suggested(BASE, few, row(200, 0.06, place=0.3)) == (100, "copies")


def test_pictures_that_are_alike_without_the_lora_are_no_copies():
    base = Row("", 0, 0.09, looks=(1.7,) * 3, places=(0.4, 1.0, 1.0))
    trained = Row("a", 100, 0.07, looks=(1.0,) * 3, places=(0.4, 1.0, 1.0))
    assert suggested(base, trained) == (100, "both")


def test_there_is_nothing_to_suggest_before_a_checkpoint_is_measured():
    assert best.suggest([]) is None and best.suggest([BASE]) is None


def test_every_reason_has_its_sentence_on_the_page():
    from app.best_part import reason

    for code, text in best.REASONS.items():
        assert reason(best.Suggestion("a", 1200, code)) == text.format(step="1,200")


def test_a_loss_between_two_measurements_lies_between_them_and_is_marked():
    assert best.held_out(15, {10: 1.0, 20: 2.0}) == (1.5, False)
    assert best.held_out(20, {10: 1.0, 20: 2.0}) == (2.0, True)
    assert best.held_out(30, {10: 1.0, 20: 2.0}) == (None, False)


def test_many_checkpoints_are_thinned_and_the_lowest_loss_stays():
    each = [best.Checkpoint(f"{step}", step) for step in range(10, 310, 10)]
    kept = best.spread(each, {step: abs(step - 130) for step in range(10, 310, 10)}, 12)
    assert len(kept) <= 12 and {10, 130, 300} <= {checkpoint.step for checkpoint in kept}


def seen(points):
    points = torch.tensor(points, dtype=torch.float)
    return Seen(points, points, -points)


def test_distances_are_in_units_of_the_usual_one():
    known = nearness.usual(seen([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0], [-3.0, 0.0]]))
    assert known.place == 3
    assert nearness.places(seen([[0.0, 0.0], [0.0, 6.0], [1.5, 0.0]]), known) == pytest.approx([0, 1, 0.5])
    assert nearness.places(seen([[0.0, -3.0]]), known) == [0]  # the mirror image of one


def test_two_pictures_have_no_usual_distance():
    with pytest.raises(ValueError, match="too few to compare with"):
        nearness.usual(seen([[0.0, 1.0], [1.0, 0.0]]))
    with pytest.raises(ValueError, match="there twice"):
        nearness.usual(seen([[1.0, 0.0]] * 4))


def test_a_training_picture_is_at_distance_0_and_its_mirror_image_too(tiny_models, pictures):
    from PIL import Image, ImageOps

    models = tiny_models("sd15")
    training = [Image.open(path).convert("RGB") for path in sorted(pictures.rglob("*.png"))]
    training += [Image.effect_noise((96, 96), 20 * i).convert("RGB") for i in (1, 2, 3)]
    known = nearness.usual(nearness.see(models, training))
    shown = nearness.see(models, [training[-1], ImageOps.mirror(training[-1])])
    assert nearness.places(shown, known) == pytest.approx([0, 0], abs=1e-3)
    assert nearness.looks(shown, known)[0] == pytest.approx(0, abs=1e-3)


@pytest.fixture
def trained(home):
    """A run on the starter: two checkpoints, one prompt, two sampling steps."""
    from lora_sd.training.train import train

    changes = {"preview.prompts": ["cow face"], "preview.steps": 2, "save.every": 1, "optim.steps": 2}
    changes |= {"validate.split": 0.05, "validate.every": 1, "optim.batch_size": 1}
    train(config_for("starter", "starter:streamline", **changes))
    return run.list_runs()[0].folder


def test_a_search_draws_measures_and_stays_on_the_disk(trained, monkeypatch):
    monkeypatch.setattr(best_search, "PICTURES", 1)
    counts = []

    def cancel_after_two(found):
        counts.append(found.done)
        if found.done == 2:
            best.cancel(trained)

    cancelled = best_search.find_best(trained, cancel_after_two, device="cpu")
    assert cancelled.status == "cancelled" == best.read(trained).status and cancelled.done == 2
    first = (trained / "best" / "without-0.png").stat().st_mtime_ns
    found = best_search.find_best(trained, device="cpu")
    assert (trained / "best" / "without-0.png").stat().st_mtime_ns == first  # it goes on from there
    assert found == best.read(trained) and found.status == "done" and found.done == found.total == 3
    measured = {e.step: e.held_out for e in run.read_events(trained)[0] if isinstance(e, events.Step)}
    assert [(r.step, r.held_out) for r in found.rows] == [(step, measured[step]) for step in (0, 1, 2)]
    assert all(r.look > 0 and len(r.places) == 1 for r in found.rows)
    assert best.suggested(trained) == found.suggested.file


def test_a_search_that_ended_without_a_word_was_cancelled(tmp_path):
    best.write(tmp_path, best.Found(rows=[row(0), row(10, 0.1)]))
    assert best.read(tmp_path).status == "cancelled"
    (tmp_path / "best" / "best.json").write_text('{"rows": 3}')
    assert best.read(tmp_path) is None
