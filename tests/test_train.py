import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small_runs import at_calls, body, config_for, stop_at, told

from lora_sd import config as cfg
from lora_sd import events, run
from lora_sd.footprint import RUNGS
from lora_sd.lora import packed
from lora_sd.training import loss, state
from lora_sd.training.train import Stopped, train


@pytest.mark.parametrize("name", ["sd15", "sd2-v", "sdxl"])
@pytest.mark.parametrize("text_encoders", [False, True], ids=["unet", "with_text_encoders"])
def test_every_family_trains(tiny_folder, pictures, name, text_encoders):
    path = train(config_for(tiny_folder(name), pictures, **{"lora.text_encoders": text_encoders}))
    tensors = load_file(path)
    still_zero = [key for key, tensor in tensors.items() if "lora_up" in key and not tensor.any()]
    # SDXL looks at the last but one layer of its first encoder, which has three here: the last one cannot learn
    assert all(key.startswith("lora_te1_text_model_encoder_layers_2") for key in still_zero)
    assert len(still_zero) == (6 if name == "sdxl" and text_encoders else 0)
    assert any(key.startswith("lora_te") for key in tensors) == text_encoders


@pytest.mark.parametrize(("schedule", "text_encoders"), [("cosine", False), ("constant", True)])
def test_10_steps_are_5_and_5_bit_for_bit(tiny_folder, pictures, schedule, text_encoders):
    config = config_for(
        tiny_folder("sd15"),
        pictures,
        **{
            "optim.steps": 10,
            "optim.schedule": schedule,
            "optim.accumulation": 2,
            "lora.text_encoders": text_encoders,
        },
    )
    whole = train(config)
    train(config, stop_at(5))
    stopped = run.list_runs()[0].folder
    assert run.read_state(stopped).status == "stopped" and run.read_state(stopped).step == 5
    resumed = train(config, folder=stopped)
    assert body(whole) == body(resumed)
    steps = [e.step for e in run.read_events(stopped)[0] if isinstance(e, events.Step)]
    assert steps == list(range(11))


def test_a_run_of_the_first_version_goes_on_where_it_was(tiny_folder, pictures):
    """Its optimizer kept the moments of every matrix by itself, and its state had a scaler."""
    config = config_for(tiny_folder("sd15"), pictures, **{"optim.steps": 6})
    whole = train(config)
    train(config, stop_at(3))
    folder = run.list_runs()[0].folder
    values = state.read(folder / "state")
    for file in (folder / "state").iterdir():
        file.unlink()
    moments = values.pop("update")["optimizer"]
    matrices = [matrix for pair in values["adapters"].values() for matrix in pair]
    old, start = {}, 0
    for index, matrix in enumerate(matrices):
        parts = {
            k: v[start : start + matrix.numel()].view_as(matrix)
            for k, v in moments["state"][0].items()
            if v.ndim
        }
        old[index] = {"step": moments["state"][0]["step"], **parts}
        start += -(-matrix.numel() // 8) * 8
    group = {**moments["param_groups"][0], "params": list(old), "fused": None}
    del values["optimizer_name"]
    values |= {"optimizer": {"state": old, "param_groups": [group]}, "scaler": {}}
    torch.save(values, folder / "state" / "latest.pt")
    assert body(train(config, folder=folder)) == body(whole)


def test_previews_and_saves_change_nothing(tiny_folder, pictures):
    quiet = train(config_for(tiny_folder("sd15"), pictures))
    busy = train(
        config_for(
            tiny_folder("sd15"),
            pictures,
            **{"preview.every": 1, "preview.steps": 1, "save.every": 1, "preview.sampler": "euler_a"},
        )
    )
    assert body(quiet) == body(busy)


def test_accumulation_is_a_larger_batch(tiny_folder, tmp_path, pictures):
    """Two batches of one, collected, are one batch of two: same pictures, same noise, same mean."""
    for file in ("1.png", "1.txt"):
        (pictures / file).unlink()
    together = load_file(train(config_for(tiny_folder("sd15"), pictures, **{"optim.steps": 1})))
    apart = load_file(
        train(
            config_for(
                tiny_folder("sd15"),
                pictures,
                **{"optim.steps": 1, "optim.batch_size": 1, "optim.accumulation": 2},
            )
        )
    )
    # AdamW's first step is ±learning rate wherever the gradient is not 0, so compare what two pictures' means share
    agree = [torch.isclose(together[key], apart[key], atol=1e-4).float().mean() for key in together]
    assert min(agree) > 0.9


def test_a_pause_is_a_stop_that_says_so(tiny_folder, pictures):
    train(config_for(tiny_folder("sd15"), pictures), stop_at(2, "pause"))
    assert run.read_state(run.list_runs()[0].folder).status == "paused"


def test_a_preview_and_a_file_come_when_asked_for(tiny_folder, pictures):
    config = config_for(tiny_folder("sd15"), pictures, **{"preview.steps": 1})

    def ask(event):
        stop_at(2, "preview")(event)
        stop_at(2, "save")(event)

    train(config, ask)
    told = run.read_events(run.list_runs()[0].folder)[0]
    assert {e.step for e in told if isinstance(e, events.Preview)} == {2}
    assert [e.step for e in told if isinstance(e, events.Saved)] == [2, 4]


def test_a_stop_while_pictures_are_prepared_leaves_a_run_to_resume(tiny_folder, pictures):
    config = config_for(tiny_folder("sd15"), pictures)
    folder = run.create(config)
    run.command(folder, "stop")
    with pytest.raises(Stopped):
        train(config, folder=folder)
    assert run.read_state(folder).status == "stopped"
    assert train(config, folder=folder).exists()


def test_a_stop_asked_for_twice_does_not_stop_the_resumed_run(tiny_folder, pictures):
    config = config_for(tiny_folder("sd15"), pictures)
    stop = stop_at(2)

    def impatient(event):
        stop(event)
        if isinstance(event, events.Saved):
            run.command(run.list_runs()[0].folder, "stop")

    train(config, impatient)
    folder = run.list_runs()[0].folder
    assert run.read_state(folder).status == "stopped"
    train(config, folder=folder)
    assert run.read_state(folder).status == "finished"


def test_the_held_out_loss_is_told_from_step_0(tiny_folder, pictures):
    held_out = pictures.parent / "held_out"
    shutil.copytree(pictures, held_out)
    train(
        config_for(tiny_folder("sd15"), pictures, **{"validate.images": str(held_out), "validate.every": 2})
    )
    told = [e for e in run.read_events(run.list_runs()[0].folder)[0] if isinstance(e, events.Step)]
    assert [e.step for e in told if e.held_out is not None] == [0, 2, 4]
    assert told[0].loss is None and all(e.loss > 0 for e in told[1:])


def test_the_held_out_loss_stays_the_same_measure_whatever_is_trained_with(tiny_folder, pictures):
    config = config_for(tiny_folder("sd15"), pictures, **{"validate.split": 0.34, "optim.steps": 1})
    others = {"noise.offset": 0.1, "noise.max_timestep": 500, "loss.kind": "l1", "loss.keep_base": 1.0}

    def steps(changes):
        train(cfg.changed(config, changes))
        return [e for e in run.read_events(run.list_runs()[0].folder)[0] if isinstance(e, events.Step)]

    plain, other = steps({}), steps(others)
    assert plain[0].held_out == other[0].held_out is not None
    assert plain[1].loss != other[1].loss


def test_without_memory_for_the_held_out_loss_in_one_go_it_is_measured_bit_by_bit(
    tiny_folder, pictures, monkeypatch
):
    config = config_for(tiny_folder("sd15"), pictures, **{"validate.split": 0.34, "optim.steps": 2})

    def measured():
        train(config)
        told = run.read_events(run.list_runs()[0].folder)[0]
        return [e.held_out for e in told if isinstance(e, events.Step) and e.held_out]

    whole, real = measured(), loss.denoising_loss
    monkeypatch.setattr(
        loss, "denoising_loss", lambda *args: no_memory(None) if len(args[2]) > 1 else real(*args)
    )
    assert measured() == pytest.approx(whole, rel=1e-5)


def test_a_share_of_the_pictures_can_be_held_out(tiny_folder, pictures):
    train(config_for(tiny_folder("sd15"), pictures, **{"validate.split": 0.34}))
    assert next(event for event in told() if isinstance(event, events.Step)).held_out > 0


def test_two_runs_in_one_process_do_not_influence_each_other(tiny_folder, pictures):
    first = train(config_for(tiny_folder("sd15"), pictures))
    train(config_for(tiny_folder("sd15"), pictures, **{"lora.targets": "full", "seed": 1}))
    assert body(first) == body(train(config_for(tiny_folder("sd15"), pictures)))


def no_memory(losses):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_a_run_that_runs_out_of_memory_goes_on_in_less_and_loses_nothing(tiny_folder, pictures, monkeypatch):
    """Computing parts twice gives the same numbers, so the file must be that of a run in which nothing happened."""
    config = config_for(tiny_folder("sd15"), pictures, **{"optim.accumulation": 2})
    undisturbed = train(config)
    at_calls(monkeypatch, [4], no_memory)  # in the second pass of step 2
    assert body(train(config)) == body(undisturbed)
    told = run.read_events(run.list_runs()[0].folder)[0]
    assert [e.step for e in told if isinstance(e, events.Step)] == [0, 1, 2, 3, 4]
    assert any("Memory ran out after step 1" in e.text for e in told if isinstance(e, events.Note))


def test_a_run_that_runs_out_of_memory_again_and_again_fails_with_a_sentence(
    tiny_folder, pictures, monkeypatch
):
    at_calls(monkeypatch, [1, 2, 3], no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        train(config_for(tiny_folder("sd15"), pictures))
    assert "not enough memory" in run.read_state(run.list_runs()[0].folder).error


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_saving_memory_changes_the_losses_little_or_not_at_all(tiny_folder, pictures, monkeypatch, name):
    monkeypatch.setattr(packed, "SMALLEST", 1)
    config = config_for(tiny_folder(name), pictures, **{"optim.learning_rate": 1e-3, "lora.targets": "full"})
    fast, low, lowest = (losses(cfg.changed(config, {"machine.memory": rung.name})) for rung in RUNGS)
    assert low == fast
    assert lowest == pytest.approx(fast, rel=0.02) and lowest != fast


@pytest.mark.parametrize(
    "values", [{"data.images": ""}, {"model.base": "/nowhere/model.safetensors"}, {"data.images": "/nowhere"}]
)
def test_bad_input_fails_the_run_with_a_sentence(tiny_folder, pictures, values):
    with pytest.raises(ValueError) as caught:
        train(config_for(tiny_folder("sd15"), pictures, **values))
    folder = run.list_runs()[0].folder
    assert run.read_state(folder).error == str(caught.value)
    assert json.loads((folder / "events.jsonl").read_text().splitlines()[-1])["kind"] == "failed"


def test_awkward_pictures_and_captions_train_and_are_told(tiny_folder, pictures):
    """What real folders hold: a damaged picture, a tiny one, other encodings, a caption of 300 tokens."""
    good = (pictures / "0.png").read_bytes()
    (pictures / "cut.png").write_bytes(good[: len(good) // 2])
    (pictures / "text.png").write_text("not a picture")
    (pictures / "empty.png").touch()
    Image.new("RGB", (63, 100), "red").save(pictures / "tiny.png")
    (pictures / "tiny.txt").write_bytes("déjà vu".encode("latin-1"))
    (pictures / "0.txt").write_bytes("\ufeffwith a mark".encode())
    (pictures / "1.txt").write_text("many words " * 150)
    train(config_for(tiny_folder("sd15"), pictures, **{"data.on_bad_image": "skip", "data.trigger": "sks"}))
    notes = " ".join(
        e.text for e in run.read_events(run.list_runs()[0].folder)[0] if isinstance(e, events.Note)
    )
    assert all(name in notes for name in ("cut.png", "text.png", "empty.png", "tiny.png", "tiny.txt"))


def losses(config):
    train(config)
    return [
        e.loss for e in run.read_events(run.list_runs()[0].folder)[0] if isinstance(e, events.Step) and e.step
    ]


@pytest.mark.parametrize("text_encoders", [False, True], ids=["unet", "with_text_encoders"])
@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_half_precision_trains_to_nearly_the_same_losses(tiny_folder, pictures, name, text_encoders):
    """The base in bf16, the adapters in fp32 with copies in bf16: a graphics card's way, on the processor."""
    config = config_for(
        tiny_folder(name), pictures, **{"lora.text_encoders": text_encoders, "optim.learning_rate": 1e-3}
    )
    full, half = (losses(cfg.changed(config, {"machine.precision": p})) for p in ("fp32", "bf16"))
    assert half == pytest.approx(full, rel=0.02)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["sd15", "sd2-v", "sdxl"])
def test_a_card_trains_to_nearly_the_losses_of_the_processor(tiny_folder, pictures, name, precision):
    config = config_for(
        tiny_folder(name), pictures, **{"lora.text_encoders": True, "optim.learning_rate": 1e-3}
    )
    on_cpu = losses(cfg.changed(config, {"machine.device": "cpu"}))
    on_card = losses(cfg.changed(config, {"machine.device": "cuda", "machine.precision": precision}))
    assert on_card == pytest.approx(on_cpu, rel=0.05)


@pytest.mark.gpu
@pytest.mark.parametrize("rung", [rung.name for rung in RUNGS])
@pytest.mark.parametrize("text_encoders", [False, True], ids=["unet", "with_text_encoders"])
@pytest.mark.parametrize("name", ["sd15", "sd2-v", "sdxl"])
def test_recorded_steps_follow_plain_ones(tiny_folder, pictures, name, text_encoders, rung):
    settings = {"lora.text_encoders": text_encoders, "optim.learning_rate": 1e-3, "optim.steps": 12}
    config = config_for(
        tiny_folder(name), pictures, **settings, **{"machine.device": "cuda", "machine.memory": rung}
    )
    plain = losses(cfg.changed(config, {"machine.cuda_graph": False}))
    assert losses(config) == pytest.approx(plain, rel=0.02)
    told = run.read_events(run.list_runs()[0].folder)[0]
    assert not [e.text for e in told if isinstance(e, events.Note) and "record" in e.text]


@pytest.mark.gpu
@pytest.mark.parametrize("text_encoders", [False, True], ids=["unet", "with_text_encoders"])
@pytest.mark.parametrize("name", ["sd15", "sd2-v", "sdxl"])
def test_recorded_steps_follow_plain_ones_whatever_the_noise_and_the_loss(
    tiny_folder, pictures, name, text_encoders
):
    settings = {
        "lora.text_encoders": text_encoders,
        "noise.offset": 0.05,
        "noise.pyramid": 4,
        "noise.perturbation": 0.1,
        "noise.density": "logit_normal",
        "loss.kind": "huber",
        "loss.weighting": "soft_min_snr",
        "loss.keep_base": 1.0,
        "optim.learning_rate": 1e-3,
        "optim.steps": 12,
    }
    config = config_for(tiny_folder(name), pictures, **settings, **{"machine.device": "cuda"})
    plain = losses(cfg.changed(config, {"machine.cuda_graph": False}))
    assert losses(config) == pytest.approx(plain, rel=0.02)
    told = run.read_events(run.list_runs()[0].folder)[0]
    assert not [e.text for e in told if isinstance(e, events.Note) and "record" in e.text]
