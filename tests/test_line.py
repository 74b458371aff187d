"""The line of waiting runs as the page shows it and changes it."""

from types import SimpleNamespace

import psutil
import pytest

from app import drawing, line, pages, queue_view, watch_view
from lora_sd import config as cfg
from lora_sd import events, queue, run
from lora_sd.recorder import Recorder


@pytest.fixture
def calls(monkeypatch) -> list:
    """What is called of trainer and card: a start counts as training from then on, in this process."""
    calls = []

    def start(folder, *options):
        calls.append((folder.name, *options))
        me = psutil.Process()
        run.write_state(folder, run.State(status="training", pid=me.pid, created=me.create_time()))

    monkeypatch.setattr(run, "start", start)
    monkeypatch.setattr(drawing.client, "free", lambda: calls.append("free"))
    return calls


def create(name: str, status: str = "queued", step: int = 0):
    folder = run.create(cfg.changed(cfg.TrainConfig(), {"output.name": name}), status=status)
    run.write_state(folder, run.State(status=status, step=step, total=1000))
    return folder


def text(tree) -> str:
    """The words of a part of the page."""
    if tree is None or isinstance(tree, str):
        return tree or ""
    return " ".join(filter(None, map(text, tree["children"])))


def header(folder) -> str:
    told = watch_view.story.read(folder)
    return text(watch_view.draw_header(told, queue_view.where(folder, queue.places())))


def test_what_is_begun_trains_at_once_or_waits(calls):
    cat, dog, cow = map(create, ("cat", "dog", "cow"))
    for folder in (cat, dog, cow):
        line.begin(folder)
    assert calls == ["free", (cat.name,)]
    assert "training" in header(cat) and "Pause" in header(cat)
    assert "waiting" in header(dog) and "Next in line" in header(dog) and "Number 2 in line" in header(cow)


def test_the_card_of_those_who_wait(calls):
    cat, dog, cow = create("cat"), create("dog", "stopped", step=400), create("cow", "finished", step=1000)
    assert queue_view.draw(queue.places()) is None
    queue.add(cat)
    queue.add(dog)
    queue.add(cow, "--extend", "500")
    words = text(queue_view.draw(queue.places()))
    assert words.index("1,000 steps") < words.index("from step 400 of 1,000") < words.index("500 steps more")
    assert words.count("↑") == words.count("↓") == 2 and words.count("Remove") == 3


def test_those_who_wait_move_and_leave(calls):
    cat, dog, cow = map(create, ("cat", "dog", "cow"))
    for folder in (cat, dog, cow):
        queue.add(folder)
    line.change("up", cow.name)
    line.change("down", cat.name)
    line.change("up", cow.name)
    line.change("down", "gone")
    assert queue.waiting() == [cow, cat, dog]
    line.change("leave", cow.name)
    assert cow not in queue.waiting() and "not begun" in header(cow) and "Start" in header(cow)


def test_the_next_begins_with_no_page_open_and_gets_the_cards_memory(calls, monkeypatch):
    monkeypatch.setattr(queue, "SETTLED", 0)
    cat, dog = create("cat"), create("dog")
    queue.add(cat)
    busy = line.look(None)
    assert busy == cat.name and line.look(busy) == cat.name and calls == ["free", (cat.name,)]
    run.write_state(cat, run.State(status="finished"))
    assert line.look(busy) == dog.name, "it is queued, though its line was lost"


def test_a_run_that_another_program_started_gets_the_cards_memory_once(calls):
    run.start(create("cat"))
    assert line.look(line.look(None)) and calls[1:] == ["free"]


def test_a_picture_that_is_made_on_the_processor_goes_on(calls, monkeypatch):
    monkeypatch.setattr(drawing.client, "job", {"device": "cpu"})
    drawing.free()
    assert calls == []
    monkeypatch.setattr(drawing.client, "job", None)
    drawing.free()
    assert calls == ["free"]


@pytest.mark.parametrize("asked", ["", "0", "-5", "many", "1e9", "9" * 50, "½"])
def test_train_longer_needs_a_number_of_steps(asked):
    with pytest.raises(ValueError, match="Write how many steps more"):
        line.steps(asked)


def test_train_longer_and_resume_with_the_changes(calls):
    cat, dog = create("cat", "finished", step=1000), create("dog", "failed", step=400)
    (cat / "state" / "001000.pt").touch()
    assert "Train longer" in header(cat) and "Resume" not in header(cat)
    recorder = Recorder(dog, 1000)
    recorder(events.Failed("lora.rank was 8 and is 16.", code="changed"))
    recorder.close()
    assert "Resume with the changes" in header(dog)
    page = SimpleNamespace(tabs="tabs", watch=SimpleNamespace(run="run"))
    for folder, click in ((cat, {"act": "extend", "steps": "500"}), (dog, {"act": "remedy"})):
        assert pages.answered(page, {**click, "run": folder.name})["run"]["value"] == folder.name
        run.write_state(folder, run.State(status="finished"))
    assert calls[1::2] == [(cat.name, "--extend", "500"), (dog.name, "--accept-changes")]


def test_resume_with_the_changes_after_a_refused_train_longer_is_that_much_longer(monkeypatch):
    dog, begun = create("dog", "finished", step=400), []
    monkeypatch.setattr(run.subprocess, "Popen", lambda command, **options: begun.append(command))
    line.begin(dog, "--extend", "500")
    recorder = Recorder(dog, 1000)  # of the trainer, which refuses
    recorder(events.Failed("lora.rank was 8 and is 16.", code="changed"))
    recorder.close()
    page = SimpleNamespace(tabs="tabs", watch=SimpleNamespace(run="run"))
    pages.answered(page, {"act": "remedy", "run": dog.name})
    assert begun[-1][-3:] == ["--extend", "500", "--accept-changes"]
    run.write_state(dog, run.State(status="failed", step=400, total=400))
    pages.answered(page, {"act": "remedy", "run": dog.name})
    assert begun[-1][-2:] == [str(dog), "--accept-changes"]
