"""What the grid is told, what it may ask for, and that nothing else can be asked."""

import json
from pathlib import Path

import pytest
from PIL import Image

from app import images_view, make_page, sheet
from app.images_page import ask
from app.project import Choices, open_project
from lora_sd import config as cfg
from lora_sd import lock, run


@pytest.fixture
def project():
    """a.png, its copy b.jpg, a long c.png, a small sub/d.png, and e.png, which is damaged."""
    mine = open_project("cats")
    (mine.images / "sub").mkdir(parents=True)
    noise = Image.effect_noise((32, 24), 90).resize((320, 240), Image.Resampling.NEAREST).convert("RGB")
    noise.save(mine.images / "a.png")
    noise.save(mine.images / "b.jpg", quality=80)
    Image.effect_noise((900, 100), 90).convert("RGB").save(mine.images / "c.png")
    Image.effect_noise((40, 40), 90).convert("RGB").save(mine.images / "sub" / "d.png")
    (mine.images / "e.png").write_bytes(b"\x89PNG")
    (mine.images / "a.txt").write_text("mycat, sofa")
    (mine.images / "b.txt").write_text("sofa, " + "many words " * 60)
    mine.choose(Choices(base="starter", trigger="mycat"))
    return mine


def shown(project):
    look = ask({"act": "look", "project": project.name, "names": shown_now(project)["unseen"]})
    assert look["ok"]
    return shown_now(project)


def shown_now(project):
    told = ask({"act": "show", "project": project.name})
    assert told["ok"]
    return json.loads(json.dumps(told))


def do(project, act, **more):
    return ask({"act": act, "project": project.name, **more})


def save(project, name, text, was):
    mark = images_view.caption(was)["mark"]
    return do(project, "caption", names=[name], text=text, was=mark)


def test_pictures_are_told_with_what_is_odd_about_them(project):
    told = shown(project)
    assert told["unseen"] == [] and told["trigger"] == "mycat"
    cards = {card["name"]: card for card in told["pictures"]}
    assert list(cards) == ["a.png", "b.jpg", "c.png", "e.png", "sub/d.png"]
    words = {name: " ".join(text for _, text in card["warnings"]) for name, card in cards.items()}
    assert words["a.png"] == ""
    assert "Nearly the same as a.png" in words["b.jpg"] and "tokens" in words["b.jpg"]
    assert "cropped away" in words["c.png"] and "e.png" in words["e.png"]
    assert "Small: 40 × 40" in words["sub/d.png"]
    kinds = {found["kind"]: found["names"] for found in told["findings"]}
    assert kinds == {
        "unreadable": ["e.png"],
        "same": ["a.png", "b.jpg"],
        "small": ["sub/d.png"],
        "cropped": ["c.png"],
        "uncaptioned": ["c.png", "e.png", "sub/d.png"],
        "long": ["b.jpg"],
        "trigger": ["b.jpg"],
        "shapes": [],
    }
    assert told["tags"][0] == ["sofa", 2]
    assert cards["a.png"]["bucket"] == [144, 112] and len(cards["a.png"]["crop"]) == 4
    assert (project.images.parent.parent.parent / "thumbs").exists() and cards["a.png"]["src"]


def test_looking_again_decodes_nothing(project, monkeypatch):
    shown(project)
    monkeypatch.setattr("lora_sd.data.images.small", lambda *_: pytest.fail("decoded again"))
    assert shown_now(project)["unseen"] == []
    assert do(project, "look", names=["a.png", "e.png"])["ok"]


def test_a_picture_that_is_off_is_in_no_finding(project):
    told = shown(project)
    [same] = [found for found in told["findings"] if found["kind"] == "same"]
    assert do(project, same["act"]["act"], names=same["act"]["names"])["ok"]
    told = shown_now(project)
    assert "same" not in {found["kind"] for found in told["findings"]}
    assert (project.images / "b.jpg").exists() and told["undo"] == "whether b.jpg is used"


def test_a_caption_is_kept_and_another_windows_is_not_lost(project):
    assert save(project, "a.png", "one", was="mycat, sofa")["caption"] == "one"
    answer = save(project, "a.png", "two", was="mycat, sofa")
    assert answer["theirs"]["caption"] == "one"
    assert (project.images / "a.txt").read_text() == "one\n"
    assert (
        do(project, "caption", names=["a.png"], text="two", was=answer["theirs"]["mark"])["caption"] == "two"
    )
    assert do(project, "undo") == {"ok": True, "changed": 1, "left": []}
    assert (project.images / "a.txt").read_text() == "one\n"


def test_an_edit_of_many_is_seen_first_and_one_step_back(project):
    names = ["a.png", "b.jpg", "c.png"]
    seen = do(project, "preview", names=names, edit={"how": "replace", "text": "sofa", "other": "${1+1}"})
    assert [name for name, *_ in seen["changes"]] == ["a.png", "b.jpg"]
    (project.images / "b.txt").write_text("sofa, changed by hand")
    refused = do(project, "apply", names=names, edit=seen["edit"], mark=seen["mark"])
    assert "ok" not in refused and "look at the preview again" in refused["why"]
    seen = do(project, "preview", names=names, edit=seen["edit"])
    assert do(project, "apply", names=names, edit=seen["edit"], mark=seen["mark"])["changed"] == 2
    assert (project.images / "b.txt").read_text() == "${1+1}, changed by hand\n"
    assert shown_now(project)["undo"] == "2 captions"
    assert do(project, "undo")["changed"] == 2
    assert (project.images / "b.txt").read_text() == "sofa, changed by hand\n"


def test_off_and_repeats_reach_the_settings_of_the_run_and_the_length(project):
    assert do(project, "off", names=["b.jpg", "e.png"])["ok"]
    assert do(project, "times", names=["a.png"], times=4)["ok"]
    facts = sheet.fill(project, project.choices())
    assert facts.num_pictures == 3
    assert facts.config().data.repeats == {"a.png": 4, "b.jpg": 0, "e.png": 0}
    [length] = [line for line in facts.lines() if line.what == "Length"]
    assert "3 pictures × 2 repeats = 6 an epoch" in length.why
    from app import form

    assert "--data.repeats b.jpg=0 e.png=0 a.png=4" in form.as_command(facts.config())
    written = run.create(facts.config()) / "config.toml"
    assert cfg.load(written).data.repeats == facts.config().data.repeats


def test_with_every_picture_off_make_says_so(project):
    assert do(project, "off", names=[card["name"] for card in shown_now(project)["pictures"]])["ok"]
    assert "turned off" in sheet.fill(project, project.choices()).obstacle()
    assert "5 of them turned off" in str(make_page.make_view.draw_pictures(project))


def test_a_run_on_these_pictures_is_told(project):
    assert shown_now(project)["notice"] == ""
    facts = sheet.fill(project, project.choices())
    folder = run.create(facts.config())
    run.write_state(folder, run.State(status="training"))
    with lock.hold(folder, "busy"):
        assert "A training of these pictures is going on" in shown_now(project)["notice"]


OUTSIDE = ["../project.json", "/etc/passwd", "..", "", "a.txt", "gone.png"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("act", ["look", "caption", "on", "off", "times", "preview"])
def test_nothing_but_the_projects_own_pictures_can_be_named(project, act, name):
    before = sorted((path, path.read_bytes()) for path in project.folder.rglob("*") if path.is_file())
    more = {"text": "x", "was": "", "on": False, "times": 2, "edit": {"how": "clear"}}
    answer = do(project, act, names=[name], **more)
    assert "ok" not in answer and answer["why"]
    assert before == sorted((path, path.read_bytes()) for path in project.folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "asked",
    [
        None,
        5,
        [],
        {},
        {"act": "show"},
        {"act": "burn", "project": "cats"},
        {"act": "show", "project": 5},
        {"act": [], "project": "cats"},
        {"act": "caption", "project": "cats", "names": ["a.png", "c.png"], "text": "x", "was": ""},
        {"act": "caption", "project": "cats", "names": ["a.png"], "text": None, "was": ""},
        {"act": "caption", "project": "cats", "names": "a.png", "text": "x", "was": ""},
        {"act": "caption", "project": "cats", "names": ["a.png"], "text": "x" * 30_000, "was": ""},
        {"act": "on", "project": "cats", "names": ["a.png"], "on": 1},
        {"act": "times", "project": "cats", "names": ["a.png"], "times": 0},
        {"act": "times", "project": "cats", "names": ["a.png"], "times": 1e9},
        {"act": "times", "project": "cats", "names": ["a.png"], "times": True},
        {"act": "preview", "project": "cats", "names": ["a.png"], "edit": {"how": "__class__"}},
        {"act": "apply", "project": "cats", "names": ["a.png"], "edit": {"how": "clear"}, "mark": "guess"},
        {"act": "undo", "project": "cats"},
        {"act": "redo", "project": "cats"},
    ],
)
def test_a_question_that_makes_no_sense_gets_a_sentence_and_changes_nothing(project, asked):
    answer = ask(asked)
    assert "ok" not in answer and answer["why"]
    assert (project.images / "a.txt").read_text() == "mycat, sofa"
    assert not (project.folder / "history.jsonl").exists()


def test_a_project_name_leads_nowhere_else(home: Path):
    assert ask({"act": "show", "project": "../../etc"})["pictures"] == []
    assert ask({"act": "show", "project": "/etc"})["project"] == "etc"


def test_a_broken_caption_file_is_told_and_the_pictures_are_shown(project):
    (project.images / "c.json").write_text("{")
    told = shown_now(project)
    assert "c.json is not valid JSON" in told["problem"]
    assert told["pictures"][0]["caption"] == "mycat, sofa"
