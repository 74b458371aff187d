"""The embedding of a LoRA is found by its content, not by luck."""

import pytest
import torch
from safetensors.torch import save_file

from lora_sd.lora import beside
from lora_sd.lora.beside import Named


def embedding(path, value, metadata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"emb_params": torch.full((2, 8), value)}, path, metadata)
    return path


def lora(folder, named):
    path = folder / "lora.safetensors"
    save_file({"a": torch.zeros(1)}, path, {beside.KEY: str(named)})
    return path


@pytest.mark.parametrize(
    "place", ["mycat.safetensors", "embeddings/mycat.safetensors", "embeddings/other.safetensors"]
)
def test_it_is_found_beside_or_in_a_folder_there_whatever_its_name(tmp_path, place):
    path = embedding(tmp_path / place, 1.0, {"some": "header"})
    embedding(tmp_path / "embeddings" / "another.safetensors", 2.0)
    named = Named("mycat.safetensors", "mycat", 2, beside.body_hash(path))
    assert beside.of(lora(tmp_path, named)) == path


def test_one_of_its_name_with_other_vectors_is_not_it(tmp_path):
    named = Named(
        "mycat.safetensors", "mycat", 2, beside.body_hash(embedding(tmp_path / "a.safetensors", 1.0))
    )
    (tmp_path / "a.safetensors").unlink()
    embedding(tmp_path / "mycat.safetensors", 2.0)
    assert beside.of(lora(tmp_path, named)) is None


@pytest.mark.parametrize(
    "told",
    ["", "no json", "[1]", "null", '{"file": "a"}', '{"file": "../a", "word": "a", "vectors": 1, "hash": "x"}',
     '{"file": "a\\u0000", "word": "a", "vectors": 1, "hash": "x"}', f'{{"file": "{"a" * 5000}", "word": "a", "vectors": 1, "hash": ""}}'],
)  # fmt: skip
def test_a_header_of_a_stranger_leads_nowhere(tmp_path, told):
    (tmp_path / "empty.safetensors").touch()
    assert beside.of(lora(tmp_path, told)) is None
