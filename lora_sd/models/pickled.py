"""A checkpoint that is a pickle, .ckpt or .pt: its tensors and nothing else, since a pickle may hold program code."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import errors
from ..paths import shown

SUFFIXES = (".ckpt", ".pt", ".pth")


def tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor by its name. ValueError for a file that is damaged, holds code, or unfolds to more than it is."""
    try:
        _refuse_bomb(path)
        values = torch.load(path, map_location="cpu", weights_only=True)
        values = values.get("state_dict", values)
        return {key: value for key, value in values.items() if isinstance(key, str) and _is_stored(value)}
    except Exception as error:  # a stranger's pickle can fail in every way
        if errors.out_of_memory(error):
            raise
        raise ValueError(
            f"{shown(path.name)} is damaged, or holds program code and was not opened; "
            "use the .safetensors version of this model."
        ) from error


def _refuse_bomb(path: Path) -> None:
    """torch stores tensors as they are: packed ones could unfold to any size."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > path.stat().st_size:
                raise ValueError("it unpacks to more than its size")


def _is_stored(value: Any) -> bool:
    """Whether it is a tensor with all its numbers in the file, none repeated by a stride of 0."""
    is_plain = isinstance(value, Tensor) and value.layout is torch.strided
    return is_plain and value.nbytes <= value.untyped_storage().nbytes()
