import hashlib
import io
import os
from types import SimpleNamespace

import pytest
import torch

from lora_sd.lora import layers
from lora_sd.training import optim, state
from lora_sd.training.state import Progress
from lora_sd.training.update import LossScale, Update
from lora_sd.training.vector import Vector


@pytest.fixture
def learner():
    """A U-Net of one layer with an adapter, and its update."""

    def make(rank: int = 2) -> SimpleNamespace:
        parts = {"unet": torch.nn.Sequential(torch.nn.Linear(4, 4)).requires_grad_(False)}
        layers.inject(parts, {"unet.0": rank}, 1.0)
        vector = Vector((low_rank for _, low_rank in layers.low_ranks(parts)), torch.float32)
        optimizer = optim.make("AdamW", [[vector.values]], learning_rate=1e-2, weight_decay=0.0)
        scale = LossScale(False, torch.device("cpu"))
        return SimpleNamespace(parts=parts, update=Update(vector, optimizer, max_grad_norm=0.0, scale=scale))

    return make


def step(learner, gradient: float = 1.0) -> None:
    learner.update.vector.gradient.fill_(gradient)
    learner.update(1e-2)


def save(folder, learner, **progress) -> None:
    state.save(folder, Progress(**progress), learner.parts, learner.update)


def test_a_restored_learner_goes_on_as_the_saved_one(tmp_path, learner):
    one, other = learner(), learner()
    step(one)
    save(tmp_path, one, step=1, seconds=2.5, rate_factor=0.5, left_out=3, rung="low")
    progress = state.restore(state.read(tmp_path), other.parts, other.update)
    assert progress == Progress(1, 2.5, 0.5, 3, "low")
    step(one, 0.3)
    step(other, 0.3)
    assert torch.equal(one.update.vector.values, other.update.vector.values)


def test_the_newest_two_are_kept(tmp_path, learner):
    for number in (2, 4, 6):
        save(tmp_path, learner(), step=number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000004.pt", "000006.pt"]


def test_a_state_of_an_earlier_step_takes_back_the_later_ones(tmp_path, learner):
    for number in (2, 4, 3):
        save(tmp_path, learner(), step=number)
    assert state.read(tmp_path)["step"] == 3


@pytest.mark.parametrize("damage", ["cut", "one bit", "emptied", "another file"])
def test_a_damaged_state_is_passed_over_for_the_one_before(tmp_path, learner, damage):
    for number in (2, 4):
        save(tmp_path, learner(), step=number)
    path = tmp_path / "000004.pt"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        os.truncate(path, len(data) // 2)
    elif damage == "one bit":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(b"" if damage == "emptied" else b"not a state, but long enough to be one" * 10)
    assert state.read(tmp_path)["step"] == 2


def test_any_bit_that_changes_is_noticed(tmp_path, learner):
    save(tmp_path, learner(), step=1)
    path = tmp_path / "000001.pt"
    data = path.read_bytes()
    for place in range(0, len(data), 97):
        spoilt = bytearray(data)
        spoilt[place] ^= 0x10
        path.write_bytes(spoilt)
        assert state.read(tmp_path) is None


def test_a_state_with_code_in_it_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"step": Evil()}, tmp_path / state.FIRST_VERSION)
    assert state.read(tmp_path) is None and not (tmp_path / "ran").exists()


def test_a_folder_without_states_has_none(tmp_path):
    assert state.read(tmp_path) is None


def test_weights_that_are_no_numbers_are_not_saved(tmp_path, learner):
    one = learner()
    one.update.vector.values.data[0] = float("nan")
    with pytest.raises(ArithmeticError):
        save(tmp_path, one, step=1)
    assert not list(tmp_path.iterdir())


def test_a_state_of_another_rank_says_so(tmp_path, learner):
    save(tmp_path, learner(), step=1)
    other = learner(rank=3)
    with pytest.raises(ValueError, match="other layers or ranks"):
        state.restore(state.read(tmp_path), other.parts, other.update)


def test_a_whole_state_with_code_in_it_is_neither_run_nor_passed_over(tmp_path, learner):
    """As an optimizer of another package may leave it: to begin anew in silence would lose the run."""

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    save(tmp_path, learner(), step=2)
    file = io.BytesIO()
    torch.save({"step": Evil()}, file)
    path = tmp_path / "000004.pt"
    path.write_bytes(hashlib.sha256(file.getvalue()).digest() + file.getvalue())
    with pytest.raises(
        ValueError, match=r"000004\.pt holds more than numbers, and is not opened; move it away"
    ):
        state.read(tmp_path)
    path.unlink()
    assert state.read(tmp_path)["step"] == 2 and not (tmp_path / "ran").exists()
