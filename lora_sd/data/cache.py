"""What the frozen parts of a model make of pictures and captions, kept on disk under our own cache folder.

A file's name is a hash of all that its content depends on, so nothing here can be stale: an edited picture or caption,
another bucket or another VAE has another name.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..models.family import Conditioning
from . import images, store
from .buckets import Fit
from .folder import Example

VERSION = "1"  # raise it when the same inputs give other values
Item = tuple[Example, Fit]
OnProgress = Callable[[int, int], None]  # done, total
T = TypeVar("T")
R = TypeVar("R")


class LatentCache:
    """Latents of pictures as mean and std, in the space of the U-Net (× the VAE's scaling factor)."""

    def __init__(self, folder: Path, vae: nn.Module):
        self.folder = folder / "latents"
        self.vae = vae
        self.identity = identity(vae)
        self.digests = store.FileDigests(folder / "pictures.json")
        self.paths: dict[tuple[Path, Fit], Path] = {}  # as the pictures were when they were filled in

    def fill(self, items: list[Item], *, on_progress: OnProgress | None = None, batch_size: int = 1) -> None:
        """Encode what is not in the cache yet, or damaged there. Each batch is written as soon as it is made."""
        self.paths |= {(example.path, fit): self._path(example, fit) for example, fit in items}
        self.digests.save()
        missing = [item for item in items if store.read(self._known(item)) is None]
        done = len(items) - len(missing)
        report = on_progress or (lambda done, total: None)
        report(done, len(items))
        batches = list(_batches(missing, batch_size))
        for batch, pixels in zip(batches, _ahead(_load, batches), strict=True):
            self._encode(batch, pixels)
            done += len(batch)
            report(done, len(items))

    def load(self, example: Example, fit: Fit) -> tuple[Tensor, Tensor]:
        """Mean and std of a picture that was filled in, each (4, H/8, W/8) float32; made again if the file is damaged."""
        path = self._known((example, fit))
        if (found := store.read(path)) is None:
            self._encode([(example, fit)], _load([(example, fit)]))
            found = store.read(path)
        return found["mean"], found["std"]

    def _known(self, item: Item) -> Path:
        example, fit = item
        return self.paths[example.path, fit]

    def _path(self, example: Example, fit: Fit) -> Path:
        key = store.digest(VERSION, self.digests[example.path], repr(tuple(fit)), self.identity)
        return self.folder / key[:2] / f"{key}.bin"

    @torch.no_grad()
    def _encode(self, batch: list[Item], pixels: Tensor) -> None:
        weight = next(self.vae.parameters())
        moments = self.vae.encode(pixels.to(weight)).latent_dist
        scale = self.vae.config.scaling_factor
        for item, mean, std in zip(batch, moments.mean * scale, moments.std * scale, strict=True):
            if not (mean.isfinite().all() and std.isfinite().all()):
                raise ValueError(
                    f"The VAE made values that are not finite of {item[0].path.name}; its file is damaged or needs "
                    "fp32: choose another base model, or remove the picture."
                )
            store.write(self._known(item), {"mean": mean.float(), "std": std.float()})


class TextCache:
    """Text states of captions. `identity` names all that they depend on besides the text: encoders, clip skip, length."""

    def __init__(self, folder: Path, identity: str, encode: Callable[[list[str]], Conditioning]):
        self.folder = folder / "text"
        self.identity = identity
        self.encode = encode

    def fill(self, captions: Iterable[str], on_progress: OnProgress | None = None) -> None:
        """Encode captions that are not in the cache yet, one by one, so that none depends on its neighbours' length."""
        texts = list(dict.fromkeys([*captions, ""]))
        for done, caption in enumerate(texts, start=1):
            self._states(caption)
            if on_progress:
                on_progress(done, len(texts))

    def load(self, captions: list[str]) -> Conditioning:
        """The states of a batch, made equally long with the states of empty chunks."""
        states = [self._states(caption) for caption in captions]
        length = max(len(found["tokens"]) for found in states)
        tokens = torch.stack([self._padded(found["tokens"], length) for found in states])  # (B, 77·n, D)
        pooled = torch.stack([found["pooled"] for found in states]) if "pooled" in states[0] else None
        return Conditioning(tokens, pooled)

    def _padded(self, tokens: Tensor, length: int) -> Tensor:
        """`tokens` (77·m, D) and as many empty chunks as make (77·n, D)."""
        if len(tokens) == length:
            return tokens
        empty = self._states("")["tokens"]
        return torch.cat([tokens, empty.repeat((length - len(tokens)) // len(empty), 1)])

    @torch.no_grad()
    def _states(self, caption: str) -> dict[str, Tensor]:
        key = store.digest(VERSION, self.identity, caption)
        path = self.folder / key[:2] / f"{key}.bin"
        if (found := store.read(path)) is None:
            conditioning = self.encode([caption])
            found = {
                name: states[0].cpu() for name, states in conditioning._asdict().items() if states is not None
            }
            store.write(path, found)
        return found


def identity(model: nn.Module) -> str:
    """A hash of a model's config and weights: what its outputs depend on."""
    digest = hashlib.sha256()
    config = (
        model.config if isinstance(model.config, dict) else model.config.to_dict()
    )  # transformers' is no dict
    config = {name: value for name, value in config.items() if not name.startswith("_")}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _batches(items: list[Item], batch_size: int) -> Iterator[list[Item]]:
    """Items of one bucket together, at most `batch_size` of them."""
    by_bucket = sorted(items, key=lambda item: item[1].bucket)
    for _, group in groupby(by_bucket, key=lambda item: item[1].bucket):
        while batch := list(islice(group, batch_size)):
            yield batch


def _load(batch: list[Item]) -> Tensor:
    return torch.stack([images.load(example.path, fit) for example, fit in batch])  # (B, 3, H, W)


def _ahead(function: Callable[[T], R], items: list[T], depth: int = 3) -> Iterator[R]:
    """`map` on threads, a few items ahead of who asks; results in order."""
    pool = ThreadPoolExecutor(depth)
    waiting: deque = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
