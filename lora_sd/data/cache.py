"""What the frozen parts of a model make of pictures and captions, kept on disk under our own cache folder.

A file's name is a hash of all that its content depends on, so nothing here can be stale: an edited picture or caption,
another bucket or another VAE has another name.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..models.family import Conditioning
from ..remembered import Remembered
from . import hidden, images, pipeline, store
from .buckets import Fit, Size
from .folder import Example
from .pipeline import Prepared

VERSION = "2"  # raise it when the same inputs give other values
PIXELS_AT_ONCE = 8 * 512 * 512  # that a card's VAE encodes in one batch: about 4 GB in fp32
CAPTIONS_AT_ONCE = 32  # that a card's text encoders take in one batch
SAMPLE = 4096  # values of a large tensor that tell it from others

Item = tuple[Example, Fit]
OnProgress = Callable[[int, int], None]  # done, total
Share = tuple[int, int]  # (rank, size): which of how many processes this one is


class LatentCache:
    """Latents of pictures as mean and std, in the space of the U-Net (× the VAE's scaling factor).

    `keep` is how many bytes of them stay in memory.
    """

    def __init__(self, folder: Path, vae: nn.Module, *, keep: int | None = None):
        self.folder = folder / "latents"
        self.vae = vae
        self.identity = identity(vae)
        self.digests = Remembered(folder / "pictures.json", store.file_digest)
        self.paths: dict[
            tuple[Path, Fit, bool, Path | None, hidden.Box | None], Path
        ] = {}  # as the pictures were when they were filled in
        self.shelf = store.Shelf(store.memory_to_keep() if keep is None else keep, ("mean", "std"))
        self.pixels_at_once = PIXELS_AT_ONCE

    def fill(
        self,
        items: Sequence[Item],
        *,
        on_progress: OnProgress | None = None,
        batch_size: int | None = None,
        share: Share = (0, 1),
    ) -> None:
        """Encode what is not in the cache yet; of several processes each makes its share.

        What is there is not read: of 20,000 pictures that would take minutes. `load` mends what it finds damaged.

        A picture counts as done once its file is written. `batch_size` is chosen by the device unless given: 1 on the
        processor, where the bits of a latent must not depend on how a restart groups pictures.
        """
        on_card = next(self.vae.parameters()).device.type == "cuda"
        if on_card:
            self.vae.to(memory_format=torch.channels_last)  # what its convolutions compute in

        def at_once(bucket: Size) -> int:
            return batch_size or (max(1, self.pixels_at_once // (bucket[0] * bucket[1])) if on_card else 1)

        def look(numbered: tuple[int, Item]) -> Prepared:
            number, item = numbered
            path = self._path(item)  # of others' pictures, too: this process will load them
            known = number % share[1] != share[0] or self.shelf.has(path)
            return Prepared(item, item[1].bucket, None if known else pixels(item))

        in_buckets = enumerate(sorted(items, key=lambda item: item[1].bucket))
        missing = [(number, item) for number, item in in_buckets if not self._is_there(item)]
        try:
            counts = pipeline.run(missing, look, self._encode, self._write, at_once=at_once)
            _report(counts, len(items), on_progress, done=len(items) - len(missing))
        finally:
            self.digests.save()

    def load(self, example: Example, fit: Fit) -> tuple[Tensor, Tensor]:
        """Mean and std of a picture that was filled in, each (4, H/8, W/8) float32, not to be written to.

        Made again if the file is damaged or gone.
        """
        path = self._path((example, fit))
        if (found := self.shelf.read(path)) is None:
            self._write(self._encode([(example, fit)], [pixels((example, fit))]))
            found = self.shelf.read(path)
        return found["mean"], found["std"]

    def mask(self, example: Example, fit: Fit) -> Tensor | None:
        """How much of each cell is to be learned, (1, H/8, W/8) in [0, 1]; None where it is all."""
        self.load(example, fit)
        return self.shelf.read(self._path((example, fit))).get("mask")

    def _is_there(self, item: Item) -> bool:
        """Whether its latents are there, as far as that is known without reading the picture."""
        files = {item[0].path, item[0].mask or item[0].path}
        return all(file in self.digests for file in files) and self.shelf.has(self._path(item))

    def _path(self, item: Item) -> Path:
        example, fit = item
        known = (example.path, fit, example.flipped, example.mask, example.hidden)
        if known not in self.paths:
            parts = [VERSION, self.digests[example.path], repr(tuple(fit)), self.identity]
            parts += ["flipped"] if example.flipped else []
            parts += ["hidden", repr(example.hidden)] if example.hidden else []
            parts += ["mask", self.digests[example.mask]] if example.mask else []
            if example.hidden and hidden.is_all(example.hidden, fit):
                parts = [VERSION, "grey", repr(fit.bucket), self.identity]
            key = store.digest(*parts)
            self.paths[known] = self.folder / key[:2] / f"{key}.bin"
        return self.paths[known]

    def _encode(self, items: list[Item], pictures: list[Tensor]) -> tuple[list[Item], Tensor]:
        device = next(self.vae.parameters()).device
        pinned = device.type == "cuda"
        pixels = torch.empty(len(pictures), *pictures[0].shape, pin_memory=pinned)
        torch.stack(pictures, out=pixels)
        layout = torch.channels_last if pinned else torch.contiguous_format
        return items, self._moments(items, pixels.to(device, non_blocking=True, memory_format=layout))

    def _moments(self, items: list[Item], pixels: Tensor) -> Tensor:
        """Mean and std (B, 2, 4, H/8, W/8): in halves, at last in tiles, where the card's memory is too small."""
        with contextlib.suppress(torch.OutOfMemoryError):
            return self._moments_at_once(pixels)
        torch.cuda.empty_cache()
        if len(items) > 1:
            half = -(-len(items) // 2)
            self.pixels_at_once = half * pixels[0, 0].numel()
            parts = [(items[:half], pixels[:half]), (items[half:], pixels[half:])]
            return torch.cat([self._moments(*part) for part in parts])
        with contextlib.suppress(torch.OutOfMemoryError), _tiled(self.vae, max(pixels.shape[2:]) // 2):
            return self._moments_at_once(pixels)
        raise ValueError(
            f"The card's memory is too small to encode {items[0][0].path.name} at {pixels.shape[3]}x{pixels.shape[2]}"
            " pixels; close other programs that use it, set a smaller data.resolution, or machine.device = 'cpu'."
        )

    @torch.no_grad()
    def _moments_at_once(self, pixels: Tensor) -> Tensor:
        found = self.vae.encode(pixels).latent_dist
        return torch.stack([found.mean, found.std], dim=1) * self.vae.config.scaling_factor

    def _write(self, encoded: tuple[list[Item], Tensor]) -> None:
        items, moments = encoded
        moments = moments.cpu()  # waits for the card, in a writer
        if not moments.isfinite().all():
            bad = next(item for item, found in zip(items, moments, strict=True) if not found.isfinite().all())
            raise ValueError(
                f"The VAE made values that are not finite of {bad[0].path.name}; its file is damaged or needs "
                "fp32: choose another base model, or remove the picture."
            )
        for item, (mean, std) in zip(items, moments, strict=True):
            made = {"mean": mean.clone(), "std": std.clone()}
            self.shelf.write(self._path(item), made | mask(item, mean.shape))


def pixels(item: Item) -> Tensor:
    """What of a picture is seen: (3, H, W) float32 in [-1, 1]."""
    example, fit = item
    found = images.load(example.path, fit, flipped=example.flipped)
    return hidden.grey(found, example.hidden) if example.hidden else found


def mask(item: Item, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Its mask as a tensor to be kept beside latents (4, H/8, W/8), if it has one."""
    example, fit = item
    if example.mask is None:
        return {}
    own, factor = example.mask == example.path, fit.bucket[1] // shape[1]
    return {"mask": images.load_mask(example.mask, fit, alpha=own, flipped=example.flipped, factor=factor)}


class TextCache:
    """Text states of captions. `identity` names all that they depend on besides the text: encoders, clip skip, length.

    `num_chunks` tells of how many chunks of 77 tokens each of some captions is: captions of equal length may share a
    batch, as none is padded for its neighbours there. `keep` is how many bytes of states stay in memory.
    """

    def __init__(
        self,
        folder: Path,
        identity: str,
        encode: Callable[[list[str]], Conditioning],
        *,
        num_chunks: Callable[[list[str]], list[int]] | None = None,
        keep: int | None = None,
    ):
        self.folder = folder / "text"
        self.identity = identity
        self.encode = encode
        self.num_chunks = num_chunks
        self.shelf = store.Shelf(store.memory_to_keep() if keep is None else keep, ("tokens",))
        # Until a card has encoded the first one: on the processor bits must not depend on how a restart groups them.
        self.at_once = 1

    @torch.no_grad()
    def fill(
        self,
        captions: Iterable[str],
        on_progress: OnProgress | None = None,
        *,
        batch_size: int | None = None,
        share: Share = (0, 1),
    ) -> None:
        """Encode captions that are not in the cache yet; of several processes each makes its share."""
        texts = list(dict.fromkeys([*captions, ""]))
        missing = [one for one in enumerate(texts) if not self.shelf.has(self._path(one[1]))]
        to_measure = [caption for _, caption in missing]
        # Where lengths are unknown no two are taken for equal.
        lengths = self.num_chunks(to_measure) if self.num_chunks and missing else range(len(missing))

        def look(measured: tuple[int, tuple[int, str]]) -> Prepared:
            length, (number, caption) = measured
            known = number % share[1] != share[0] or self.shelf.has(self._path(caption))
            return Prepared(caption, length, None if known else caption)

        in_lengths = sorted(zip(lengths, missing, strict=True))
        counts = pipeline.run(
            in_lengths, look, self._encode, self._write, at_once=lambda _: batch_size or self.at_once
        )
        _report(counts, len(texts), on_progress, done=len(texts) - len(missing))

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
        path = self._path(caption)
        if (found := self.shelf.read(path)) is None:
            self._write(self._encode([caption], [caption]))
            found = self.shelf.read(path)
        return found

    def _path(self, caption: str) -> Path:
        key = store.digest(VERSION, self.identity, caption)
        return self.folder / key[:2] / f"{key}.bin"

    def _encode(self, captions: list[str], _: list[str]) -> tuple[list[str], Conditioning]:
        made = self.encode(captions)
        self.at_once = CAPTIONS_AT_ONCE if made.tokens.is_cuda else 1
        return captions, made

    def _write(self, encoded: tuple[list[str], Conditioning]) -> None:
        captions, conditioning = encoded
        states = {name: found.cpu() for name, found in conditioning._asdict().items() if found is not None}
        for index, caption in enumerate(captions):
            mine = {name: found[index].clone() for name, found in states.items()}
            self.shelf.write(self._path(caption), mine)


def _report(counts: Iterator[int], total: int, on_progress: OnProgress | None, *, done: int) -> None:
    report = on_progress or (lambda done, total: None)
    with contextlib.closing(counts):  # on_progress may raise: then nothing more is begun
        report(done, total)
        for count in counts:
            report(done := done + count, total)


def identity(model: nn.Module) -> str:
    """A hash of what a model's outputs depend on: config, and every tensor by name, dtype, shape and values.

    Of a large tensor only a sample is hashed. Teaching a tensor, or merging anything into it, changes practically all of
    its values, so that a few of them tell; a model with one number changed by hand would not be told apart.
    """
    config = model.config
    config = config if isinstance(config, dict) else config.to_dict()  # transformers' is no dict
    config = {name: value for name, value in config.items() if not name.startswith("_")}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        values = tensor.detach().flatten()
        sample = values[:: max(1, len(values) // SAMPLE)].cpu().contiguous()
        digest.update(sample.view(torch.uint8).numpy())
    return digest.hexdigest()


@contextlib.contextmanager
def _tiled(vae: nn.Module, side: int) -> Iterator[None]:
    """A VAE that works on squares of `side` pixels: little memory, slightly other values."""
    names = ("use_tiling", "tile_sample_min_size", "tile_latent_min_size")
    before = {name: getattr(vae, name) for name in names}
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    for name, value in zip(names, (True, side, side // factor), strict=True):
        setattr(vae, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(vae, name, value)
