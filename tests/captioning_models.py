"""Models that write captions, tiny and random: a BLIP as transformers saves it, and a WD tagger as the bytes of an ONNX file."""

from pathlib import Path

import numpy as np
import torch

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a cat dog red sofa on the of picture house sea sky blue".split()
TAGS = (  # name, category
    *(("general", 9), ("explicit", 9), ("long_hair", 0), ("outdoors", 0), ("o_o", 0), ("some_hero", 4)),
    *(("very_dark", 0), ("other_hero", 4)),
)


def blip(folder: Path) -> Path:
    """A BLIP of two layers that sees 32 × 32 pixels and knows 18 words."""
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipProcessor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    size = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 16,
    }
    text = {
        **size,
        "vocab_size": len(WORDS),
        "encoder_hidden_size": 16,
        "max_position_embeddings": 64,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
        "initializer_range": 1.0,
    }
    vision = {**size, "image_size": 32, "patch_size": 16, "initializer_range": 1.0}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = BlipForConditionalGeneration(
            BlipConfig(text_config=text, vision_config=vision, initializer_range=1.0)
        )
    model.save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})
    BlipProcessor(BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


def tagger(folder: Path, *, side: int = 16, batch: int | str = "N", tags=TAGS) -> Path:
    """A tagger whose probabilities are sigmoid(mean BGR · weights + bias)."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{number},{name},{category},1000" for number, (name, category) in enumerate(tags)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *lines]) + "\n")
    weights, bias = parameters()
    (folder / "model.onnx").write_bytes(_model(side, batch, weights, bias))
    return folder


def parameters() -> tuple[np.ndarray, np.ndarray]:
    """Weights (3, tags) and biases (tags): which tags fit depends on the colours, a rating always does."""
    rng = np.random.default_rng(4)
    weights = rng.normal(0, 0.01, (3, len(TAGS))).astype(np.float32)
    bias = rng.normal(0, 0.2, len(TAGS)).astype(np.float32) - 160 * weights.sum(0)
    bias[0] += 99
    return weights, bias


# An ONNX file is protocol buffers: fields of a number and a kind, which are read by onnx.proto.


def _number(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _number(number << 3) + _number(value)
    data = value.encode() if isinstance(value, str) else value
    return _number(number << 3 | 2) + _number(len(data)) + data


def _node(kind: str, inputs: list[str], output: str, *attributes: bytes) -> bytes:
    named = b"".join(_field(1, name) for name in inputs)
    return _field(1, named + _field(2, output) + _field(4, kind) + b"".join(_field(5, a) for a in attributes))


def _tensor(name: str, values: np.ndarray) -> bytes:
    sizes = b"".join(_field(1, size) for size in values.shape)
    return _field(5, sizes + _field(2, 1) + _field(8, name) + _field(9, values.tobytes()))


def _value(name: str, shape: tuple[int | str, ...]) -> bytes:
    sizes = b"".join(_field(1, _field(1 if isinstance(size, int) else 2, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, sizes)))


def _model(side: int, batch: int | str, weights: np.ndarray, bias: np.ndarray) -> bytes:
    axes = _field(1, "axes") + _field(8, 1) + _field(8, 2) + _field(20, 7)
    flat = _field(1, "keepdims") + _field(3, 0) + _field(20, 2)
    graph = (
        _node("ReduceMean", ["pictures"], "means", axes, flat)
        + _node("MatMul", ["means", "weights"], "products")
        + _node("Add", ["products", "bias"], "sums")
        + _node("Sigmoid", ["sums"], "probabilities")
        + _field(2, "tagger")
        + _tensor("weights", weights)
        + _tensor("bias", bias)
        + _field(11, _value("pictures", (batch, side, side, 3)))
        + _field(12, _value("probabilities", (batch, len(bias))))
    )
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13))
