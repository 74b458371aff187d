"""The header's numbers without torch, and how long a large one takes; what is refused is in bad_models.py and test_fuzz.py."""

import json
import time

import pytest
import torch
from safetensors.torch import save_file

from lora_sd.models.safetensors_file import BITS, open_header, parse_header

KINDS = "float16 bfloat16 float32 float64 int8 uint8 int16 uint16 int32 uint32 int64 uint64 bool".split()


@pytest.mark.parametrize("kind", KINDS)
def test_small_tensors_of_every_kind_are_read_without_torch(tmp_path, kind):
    tensor = torch.tensor([0, 1, 2, 100]).to(getattr(torch, kind))
    save_file({"other": torch.ones(3), "x": tensor}, tmp_path / "x.safetensors")
    with open_header(tmp_path / "x.safetensors") as contents:
        assert contents.values("x") == tensor.tolist()


@pytest.mark.parametrize("bits, kind", [(BITS[kind], kind) for kind in ("F4", "F8_E4M3", "F6_E2M3", "C64")])
def test_formats_of_other_widths_are_measured(bits, kind):
    entry = {"dtype": kind, "shape": [8], "data_offsets": [0, bits]}
    assert parse_header(json.dumps({"x": entry}).encode())[0]["x"].end == bits


def test_the_header_of_a_large_model_takes_no_time(tmp_path):
    header, end = {}, 0
    for number in range(2600):
        start, end = end, end + 640 * 2048 * 2
        header[f"layer{number}"] = {"dtype": "F16", "shape": [640, 2048], "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with open(tmp_path / "x.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    started = time.process_time()
    with open_header(tmp_path / "x.safetensors") as contents:
        assert len(contents.shapes) == 2600
    assert time.process_time() - started < 0.5  # 20 ms where it was measured
