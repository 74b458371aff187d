"""Files are read and written as the safetensors library does it, tensor by tensor."""

import json

import pytest
import safetensors.torch
import torch

from lora_sd.lora import container
from lora_sd.lora.stored import DTYPES, StoredTensors

TENSORS = {
    "b": torch.randn(3, 4),
    "a": torch.randn(2, 3, 1, 1).half(),
    "c.alpha": torch.tensor(4.0),
    "d": torch.arange(6).to(torch.bfloat16),
    **{f"x{i}": torch.ones(i + 1).to(dtype) for i, dtype in enumerate(DTYPES.values())},
}


def test_tensors_and_their_bytes_are_those_of_the_library(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(
        {**TENSORS, "e": torch.zeros(0, 2), "f": torch.arange(3)}, path, {"title": "x"}
    )
    read = safetensors.torch.load_file(path)
    with StoredTensors(path) as stored:
        assert stored.metadata == {"title": "x"} and set(stored.entries) == set(read) and "b" in stored
        for key, tensor in read.items():
            found = stored.tensor(key)
            assert found.dtype == tensor.dtype == stored.dtype(key) and torch.equal(found, tensor)
            assert b"".join(stored.pieces(key)) == bytes(container.data_of(tensor))


def test_the_container_is_the_librarys_but_for_the_order_of_metadata():
    ours, theirs = b"".join(container.pieces(TENSORS, {"ss_steps": "5"})), safetensors.torch.save(TENSORS)
    (size, header), (other, expected) = (
        (n := int.from_bytes(data[:8], "little"), json.loads(data[8 : 8 + n])) for data in (ours, theirs)
    )
    metadata = header.pop("__metadata__")
    assert header == expected and list(header) == list(expected)
    assert ours[8 + size :] == theirs[8 + other :]
    assert metadata.keys() == {"ss_steps", "sshs_model_hash", "sshs_legacy_hash"}


def test_a_number_format_that_torch_has_not_is_a_sentence(tmp_path):
    header = json.dumps({"x": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
    with (
        StoredTensors(tmp_path / "x.safetensors") as stored,
        pytest.raises(ValueError, match="is stored as F4"),
    ):
        stored.tensor("x")
