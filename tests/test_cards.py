"""What the card of a run that ended early says and offers, for each code."""

import pytest

from app import cards, pages, story
from lora_sd import config, errors, events, run
from lora_sd.recorder import Recorder


def failed(code: str, text: str = "It broke.", **changes) -> story.Story:
    folder = run.create(config.changed(config.TrainConfig(), {"optim.steps": 100} | changes))
    recorder = Recorder(folder, 100)
    recorder(events.Step(step=3, total=100, loss=0.1))
    recorder(events.Failed(text, "Traceback: here", code=code, rung="low"))
    recorder.close()
    (folder / "log.txt").write_text("loading\nlast words\n")
    (folder / "state" / "000002.pt").touch()
    return story.read(folder)


def parts(node, tag: str) -> list[dict]:
    if isinstance(node, str):
        return []
    return [node] * (node["tag"] == tag) + [
        found for child in node["children"] for found in parts(child, tag)
    ]


def words(node) -> str:
    return node if isinstance(node, str) else " ".join(words(child) for child in node["children"])


BUTTONS = {
    "memory": "Restart with less memory",
    "numbers": "Resume at half the learning rate",
    "changed": "Resume with the changes",
    "disk": "Resume from step 2",
    "place": "Resume from step 2",
    "card": "Resume from step 2",
    "model": "Change the settings",
    "pictures": "Change the settings",
    "input": "Change the settings",
    "": "Resume from step 2",
}


@pytest.mark.parametrize("code", [*errors.CODES, ""])
def test_every_code_has_a_title_a_reason_and_one_main_button(code):
    card = cards.draw(failed(code))
    assert len({cards.title(each) for each in (*errors.CODES, "")}) == len(errors.CODES) + 1
    assert words(parts(card, "h3")[0]).strip().endswith(cards.title(code))
    assert "It broke." in words(card)
    primary = [b for b in parts(card, "button") if "primary" in b["attributes"]["class"]]
    assert [words(button) for button in primary] == [BUTTONS[code]]


def test_the_details_have_traceback_log_and_settings():
    card = cards.draw(failed("", **{"lora.rank": 12}))
    [pre] = parts(card, "pre")
    assert all(text in words(pre) for text in ("Traceback: here", "last words", "rank = 12"))


def test_the_button_does_what_the_card_says(monkeypatch):
    calls = []
    monkeypatch.setattr(pages.line, "begin", lambda folder, *options: calls.append(options))
    monkeypatch.setattr(pages, "watch", lambda page, run_id: {})
    for code in ("memory", "numbers", "changed", "disk"):
        told = failed(code)
        pages.answered(None, {"act": "remedy", "run": told.folder.name})
    assert calls == [
        ("--machine.memory", "lowest"),
        ("--optim.learning_rate", "5e-05", "--accept-changes"),
        ("--accept-changes",),
        (),
    ]


def test_where_nothing_can_be_made_smaller_the_settings_are_to_be_changed():
    smallest = {"machine.memory": "lowest", "optim.batch_size": 1, "data.resolution": 256}
    assert "Change the settings" in words(cards.draw(failed("memory", **smallest)))


def test_settings_that_can_not_be_read_do_no_harm():
    told = failed("memory")
    (told.folder / "config.toml").write_text("[")
    assert "Change the settings" in words(cards.draw(told))


def test_a_run_that_is_well_has_no_card():
    folder = run.create(config.TrainConfig())
    assert cards.draw(story.read(folder)) is None
