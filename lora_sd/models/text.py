"""Captions → Conditioning, for every family: one loop over its text encoders.

A caption of more than 75 tokens becomes n chunks, each with its own start and end and encoded by itself, joined to
(B, 77·n, D) as A1111 and ComfyUI do; shorter captions of the batch are filled up with empty chunks. No grad is
switched off here: a text encoder that is being taught is encoded with the same function.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .family import Conditioning, Models, TextEncoder

CHUNK = 75  # tokens of text between a start and an end token


def encode(models: Models, captions: list[str], *, chunks: int | None = None) -> Conditioning:
    """The text states of `captions`: as many chunks as the longest needs, and at least `chunks`."""
    device = models.text_device()
    return states(models, tuple(ids.to(device) for ids in tokenize(models, captions, chunks=chunks)))


def tokenize(models: Models, captions: list[str], *, chunks: int | None = None) -> tuple[Tensor, ...]:
    """Token ids (B, n, 77) for each text encoder, on the CPU."""
    pieces = [_chunks(tokenizer, captions) for tokenizer in models.tokenizers]
    longest = max(len(caption) for tokenized in pieces for caption in tokenized)
    return tuple(
        _rectangle(tokenized, tokenizer, max(longest, chunks or 1))
        for tokenizer, tokenized in zip(models.tokenizers, pieces, strict=True)
    )


def states(models: Models, token_ids: tuple[Tensor, ...]) -> Conditioning:
    """The text states of what `tokenize` gave; it reads nothing back from the device."""
    joined, pooled = [], None
    for spec, encoder, tokenizer, ids in zip(
        models.family.text_encoders, models.text_encoders, models.tokenizers, token_ids, strict=True
    ):
        layer = -models.clip_skip if models.clip_skip else spec.layer
        tokens, last = _states(encoder, ids.flatten(0, 1), layer, spec)  # (B·n, 77, D)
        joined.append(tokens.reshape(len(ids), -1, tokens.shape[-1]))  # (B, 77·n, D)
        if spec.pooled:
            first = last.reshape(*ids.shape, -1)[:, 0]  # (B, 77, D)
            pooled = encoder.text_projection(_at_end(first, ids[:, 0], tokenizer.eos_token_id))  # (B, P)
    return Conditioning(torch.cat(joined, dim=-1), pooled)


def token_counts(models: Models, captions: list[str]) -> list[int]:
    """How many tokens each caption has, start and end not counted; 75 fit into one chunk."""
    return [len(ids) for ids in _token_ids(models.tokenizers[0], captions)]


def num_chunks(models: Models, captions: list[str]) -> list[int]:
    """How many chunks of 77 tokens each caption is encoded in."""
    return [max(1, -(-count // CHUNK)) for count in token_counts(models, captions)]


def _token_ids(tokenizer: Any, captions: list[str]) -> list[list[int]]:
    return tokenizer(captions, add_special_tokens=False, truncation=False, verbose=False).input_ids


def _chunks(tokenizer: Any, captions: list[str]) -> list[list[list[int]]]:
    """Each caption's token ids in pieces of at most 75; an empty caption is one empty piece."""
    return [
        [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)] or [[]]
        for ids in _token_ids(tokenizer, captions)
    ]


def _rectangle(captions: list[list[list[int]]], tokenizer: Any, num_chunks: int) -> Tensor:
    """Token ids (B, num_chunks, 77): every piece between start and end, then padding."""

    def framed(piece: list[int]) -> list[int]:
        padding = [tokenizer.pad_token_id] * (CHUNK - len(piece))
        return [tokenizer.bos_token_id, *piece, tokenizer.eos_token_id, *padding]

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
