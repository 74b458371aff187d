import pytest
from small_runs import body, config_for, notes, stop_at, told

from lora_sd import config as cfg
from lora_sd import events, run
from lora_sd.training.resuming import extended, to_resume
from lora_sd.training.train import resume, train


def folder():
    return run.list_runs()[0].folder


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "stopped"])
def test_a_constant_run_made_longer_is_bit_for_bit_one_that_long_from_the_begin(
    tiny_folder, pictures, finished
):
    config = config_for(tiny_folder("sd15"), pictures)
    long = train(cfg.changed(config, {"optim.steps": 7}))
    train(config, None if finished else stop_at(2))
    assert body(resume(folder(), extend=3)) == body(long)
    assert cfg.load(folder() / "config.toml").optim.steps == 7 and run.read_state(folder()).total == 7
    assert "This run was to have 4 steps and now has 7." in notes()


def test_the_file_of_the_earlier_end_stays(tiny_folder, pictures):
    short = body(train(config_for(tiny_folder("sd15"), pictures)))
    resume(folder(), extend=2)
    assert [path.name for path in run.checkpoints(folder())] == [
        "lora-000004.safetensors",
        "lora.safetensors",
    ]
    assert body(run.checkpoints(folder())[0]) == short


def test_a_schedule_that_decays_goes_on_as_one_of_the_new_length_and_says_so(tiny_folder, pictures):
    train(config_for(tiny_folder("sd15"), pictures, **{"optim.schedule": "linear"}))
    resume(folder(), extend=4)
    rates = {e.step: e.learning_rate for e in told() if isinstance(e, events.Step) and e.step}
    assert rates[4] == pytest.approx(1e-2 / 4)
    assert [rates[step] for step in (5, 6, 7, 8)] == pytest.approx([1e-2 * left / 8 for left in (4, 3, 2, 1)])
    assert any("linear schedule goes on as one of 8 steps" in note for note in notes())


def test_a_warm_up_that_is_a_share_stays_as_long_as_it_was():
    config = cfg.changed(cfg.TrainConfig(), {"optim.steps": 100, "optim.warmup": "10%"})
    assert extended(config, 900).optim.warmup == 10
    assert extended(cfg.changed(config, {"optim.warmup": "2 epochs"}), 900).optim.warmup == "2 epochs"


def test_a_finished_run_has_nothing_left_to_do_and_says_how_to_go_on(tiny_folder, pictures):
    train(config_for(tiny_folder("sd15"), pictures))
    with pytest.raises(ValueError, match=r"all its 4 steps are done.*--extend 500"):
        resume(folder())
    assert run.read_state(folder()).status == "finished"


@pytest.mark.parametrize("steps", [-1, 10_000_000])
def test_a_number_of_steps_that_can_not_be_is_a_sentence(steps, tmp_path):
    with pytest.raises(ValueError, match=r"at least 1|at most"):
        to_resume(tmp_path, cfg.TrainConfig(), steps)


def test_a_second_process_is_refused(tiny_folder, pictures, monkeypatch):
    from lora_sd import lock

    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    made = run.create(config_for(tiny_folder("sd15"), pictures))
    holder = lock.FileLock(made / lock.NAME)
    with holder.acquire(), pytest.raises(ValueError, match="is being trained by another process"):
        resume(made)
    assert run.read_state(made).status == "starting"
