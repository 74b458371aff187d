import errno

import pytest
import torch

from lora_sd.errors import sentence


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("lora.rank is 0; it must be at least 1."), "lora.rank is 0; it must be at least 1."),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            "There is not enough memory",
        ),
        (MemoryError(), "There is not enough memory"),
        (FileNotFoundError(errno.ENOENT, "No such file", "{a}.png"), "{a}.png is not there"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "This program may not read or write a"),
        (OSError(errno.EIO, "Input/output error", "a"), "a can't be reached"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a.safetensors"),
            "The disk is full: a.safetensors",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full: what was being written"),
        (
            RuntimeError("mat1 and mat2\nshapes cannot be multiplied"),
            "RuntimeError: shapes cannot be multiplied",
        ),
        (KeyError(), "KeyError: no more is known"),
    ],
)
def test_every_error_becomes_one_line(error, told):
    assert told in sentence(error) and "\n" not in sentence(error)
