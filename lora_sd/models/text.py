"""Captions → Conditioning, for every family: one loop over its text encoders.

A caption of more than 75 tokens becomes n chunks, each with its own start and end and encoded by itself, joined to
(B, 77·n, D) as A1111 and ComfyUI do; shorter captions of the batch are filled up with empty chunks. No grad is
switched off here: a text encoder that is being taught is encoded with the same function.
"""

from typing import Any

import torch
from torch import Tensor, nn

from . import emphasis, words
from .family import Conditioning, Models, TextEncoder

CHUNK = 75  # tokens of text between a start and an end token


def encode(models: Models, captions: list[str], *, chunks: int | None = None) -> Conditioning:
    """The text states of `captions`: as many chunks as the longest needs, and at least `chunks`."""
    device = models.text_device()
    return states(models, tuple(ids.to(device) for ids in tokenize(models, captions, chunks=chunks)))


def tokenize(models: Models, captions: list[str], *, chunks: int | None = None) -> tuple[Tensor, ...]:
    """Token ids (B, n, 77) for each text encoder, on the CPU; and the tokens' weights (B, n, 77) where captions have some."""
    pieces = [_chunks(_token_ids(models, index, captions)) for index in range(len(models.tokenizers))]
    longest = max(chunks or 1, *(len(caption) for tokenized in pieces for caption in tokenized))
    ids = [
        _rectangle(tokenized, longest, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        for tokenizer, tokenized in zip(models.tokenizers, pieces, strict=True)
    ]
    if models.weighted:  # the tokenizers have one vocabulary, so the weights are those of all
        ids.append(_rectangle(_chunks(_weights(models, captions)), longest, 1.0, 1.0, 1.0))
    return tuple(ids)


def states(models: Models, token_ids: tuple[Tensor, ...]) -> Conditioning:
    """The text states of what `tokenize` gave; it reads nothing back from the device."""
    weights = token_ids[-1].flatten(0, 1) if models.weighted else None  # (B·n, 77)
    joined, pooled = [], None
    for spec, encoder, tokenizer, ids in zip(
        models.family.text_encoders, models.text_encoders, models.tokenizers, token_ids, strict=False
    ):
        layer = -models.clip_skip if models.clip_skip else spec.layer
        tokens, last = _states(encoder, ids.flatten(0, 1), layer, spec)  # (B·n, 77, D)
        tokens = tokens if weights is None else emphasis.weigh(tokens, weights)
        joined.append(tokens.reshape(len(ids), -1, tokens.shape[-1]))  # (B, 77·n, D)
        if spec.pooled:
            first = last.reshape(*ids.shape, -1)[:, 0]  # (B, 77, D)
            pooled = encoder.text_projection(_at_end(first, ids[:, 0], tokenizer.eos_token_id))  # (B, P)
    return Conditioning(torch.cat(joined, dim=-1), pooled)


def token_ids(models: Models, caption: str) -> list[list[int]]:
    """The token ids of a caption for each text encoder, without start and end."""
    return [_token_ids(models, index, [caption])[0] for index in range(len(models.tokenizers))]


def token_counts(models: Models, captions: list[str]) -> list[int]:
    """How many tokens each caption has, start and end not counted; 75 fit into one chunk."""
    return [len(ids) for ids in _token_ids(models, 0, captions)]


def num_chunks(models: Models, captions: list[str]) -> list[int]:
    """How many chunks of 77 tokens each caption is encoded in."""
    return [max(1, -(-count // CHUNK)) for count in token_counts(models, captions)]


def _token_ids(models: Models, index: int, captions: list[str]) -> list[list[int]]:
    """The ids of each caption for one of the text encoders."""
    if models.weighted:
        return [[one for ids, _ in _weighted(models, index, caption) for one in ids] for caption in captions]
    return _ids(models, index, captions)


def _weights(models: Models, captions: list[str]) -> list[list[float]]:
    """The weight of each token of each caption."""
    return [[weight for ids, weight in _weighted(models, 0, caption) for _ in ids] for caption in captions]


def _weighted(models: Models, index: int, caption: str) -> list[tuple[list[int], float]]:
    pieces = emphasis.parts(caption)
    ids = _ids(models, index, [piece for piece, _ in pieces]) if pieces else []
    return [(found, weight) for found, (_, weight) in zip(ids, pieces, strict=True)]


def _ids(models: Models, index: int, texts: list[str]) -> list[list[int]]:
    """The ids of each text, with those of a person's own words where they stand."""
    tokenizer, own = models.tokenizers[index], words.ids(models.text_encoders[index])
    if not own:
        return _in_vocabulary(tokenizer, texts)
    parted = [[*words.parted(text, own)] for text in texts]
    around = iter(_in_vocabulary(tokenizer, [piece for pieces in parted for piece in pieces[::2]]))
    return [
        [one for i, piece in enumerate(pieces) for one in (piece if i % 2 else next(around))]
        for pieces in parted
    ]


def _in_vocabulary(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False).input_ids


def _chunks(captions: list[list]) -> list[list[list]]:
    """Each caption's tokens in pieces of at most 75; an empty caption is one empty piece."""
    return [
        [tokens[start : start + CHUNK] for start in range(0, len(tokens), CHUNK)] or [[]]
        for tokens in captions
    ]


def _rectangle(captions: list[list[list]], num_chunks: int, start: Any, end: Any, padding: Any) -> Tensor:
    """What each token has as (B, num_chunks, 77): every piece between start and end, then padding."""

    def framed(piece: list) -> list:
        return [start, *piece, end, *[padding] * (CHUNK - len(piece))]

    return torch.tensor(
        [[framed(piece) for piece in caption + [[]] * (num_chunks - len(caption))] for caption in captions]
    )


def _states(encoder: nn.Module, ids: Tensor, layer: int, spec: TextEncoder) -> tuple[Tensor, Tensor]:
    """The condition (N, 77, D) and the last layer's normed states (N, 77, D), from which the pooled one is taken."""
    output = encoder(ids, output_hidden_states=True)
    tokens = output.hidden_states[layer]
    if spec.final_norm:
        # transformers 5 dropped the text_model level of CLIPTextModel
        tokens = getattr(encoder, "text_model", encoder).final_layer_norm(tokens)
    return tokens, output.last_hidden_state


def _at_end(states: Tensor, ids: Tensor, eos: int) -> Tensor:
    """The state (B, D) at each row's first end token: padding may repeat it."""
    return states[torch.arange(len(ids), device=ids.device), (ids == eos).int().argmax(dim=-1)]
