"""Prompts → pictures, with a base model and any LoRAs on it. Previews and the Try it page use the same function."""

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import infotext, limits
from .infotext import Used
from .lora import beside, blocks, embedding, formats, layers
from .lora.inspection import read_header, vectors_of
from .lora.strength import Strength, as_strength
from .models import text, words
from .models.family import Conditioning, Models
from .models.load import load
from .paths import shown

logger = logging.getLogger(__name__)

SAMPLERS: dict[str, tuple[type, dict]] = {
    "ddim": (diffusers.DDIMScheduler, {}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler_a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "dpmpp_2m_karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
}
# A noise schedule that ends in pure noise has to be begun there (arXiv:2305.08891, section 3.3). Karras' spacing would spend
# half its steps on noise levels at which nothing can be seen.
FROM_PURE_NOISE = {"timestep_spacing": "trailing", "use_karras_sigmas": False}
SAME_SHAPE = 0.02  # relative difference of aspect ratios that rounding may make
LARGEST = 4096  # pixels of a side
OnStep = Callable[[int, int], None]  # sampling steps done, of how many; an exception in it cancels
Encode = Callable[[Models, list[str]], Conditioning]


class Inpaint(NamedTuple):
    """What an inpainting model paints in, both resized to the picture's size."""

    picture: Image.Image
    mask: Image.Image  # white where it paints, black where the picture stays


class How(NamedTuple):
    """How pictures are drawn, as `generate` takes it."""

    negative: str
    steps: int
    guidance: float
    sampler: str
    size: tuple[int, int]
    rescale: float
    inpaint: Inpaint | None


@torch.no_grad()
def generate(
    models: Models | str,
    prompts: str | Sequence[str],
    *,
    loras: Mapping[str | Path, float | Strength] | None = None,
    embeddings: Sequence[str | Path] = (),
    negative: str = "",
    seeds: Sequence[int] = (42,),
    steps: int = 25,
    guidance: float = 5.0,
    sampler: str = "dpmpp_2m_karras",
    size: tuple[int, int] | None = None,
    rescale: float = 0.0,
    inpaint: Inpaint | None = None,
    on_step: OnStep | None = None,
    encode: Encode = text.encode,
) -> list[Image.Image]:
    """A picture of each prompt; `seeds` are one for all or one each, `size` is (w, h) in pixels.

    `models` may be a name, file or folder; `loras` are files with their strengths, as a number or by part, and
    `embeddings` textual-inversion files, on for this call only. `encode` may remember text states. `inpaint` is what an inpainting model paints in; without it such a model paints whole pictures.
    `rescale` is how far guidance keeps the contrast of what it guides (arXiv:2305.08891, section 3.4); 0.7 for zero SNR.
    A picture depends on its own prompt and seed, not on the others; its `info["parameters"]` says how it was made, as
    `infotext.save` writes it. Raises ValueError for settings that cannot work.
    """
    models = load(models) if isinstance(models, str) else models
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    seeds = list(seeds) * len(prompts) if len(seeds) == 1 else list(seeds)
    size = size or (_size_of(inpaint.picture, models) if inpaint else (models.resolution, models.resolution))
    _check(models, prompts, seeds, sampler, size)
    if inpaint:
        _check_inpaint(models, inpaint)
    numbers = [("steps", steps), ("guidance", guidance), ("rescale", rescale)]
    numbers += [("seed", seed) for seed in seeds]
    limits.check(numbers)
    strengths = {path: as_strength(given) for path, given in (loras or {}).items()}
    how = How(negative, steps, guidance, sampler, size, rescale, inpaint)
    with _attached(models, strengths, embeddings):
        tick = _counter(on_step, len(prompts) * steps)
        return [
            _told(_picture(models, prompt, seed, how, tick, encode), models, prompt, seed, how)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]


def _told(picture: Image.Image, models: Models, prompt: str, seed: int, how: How) -> Image.Image:
    """The picture with how it was made."""
    picture.info["parameters"] = infotext.text(
        prompt,
        negative=how.negative,
        seed=seed,
        steps=how.steps,
        guidance=how.guidance,
        rescale=how.rescale,
        sampler=how.sampler,
        size=how.size,
        base=models.source,
        model_hash=models.sha256[:10],
        clip_skip=models.clip_skip,
        loras=list(models.loras.values()),
    )
    return picture


def _check(models: Models, prompts: list[str], seeds: list[int], sampler: str, size: tuple[int, int]) -> None:
    if len(seeds) != len(prompts):
        raise ValueError(
            f"There are {len(prompts)} prompts and {len(seeds)} seeds; give one seed, or one for each prompt."
        )
    if sampler not in SAMPLERS:
        raise ValueError(f"There is no sampler {sampler!r}; choose one of {', '.join(SAMPLERS)}.")
    step = models.vae_factor * 2 ** (len(models.unet.config.block_out_channels) - 1)
    if any(side < step or side > LARGEST or side % models.vae_factor for side in size):
        raise ValueError(
            f"The size {size[0]}x{size[1]} can't be drawn; use multiples of {models.vae_factor}, "
            f"at least {step} and at most {LARGEST}."
        )


def _check_inpaint(models: Models, inpaint: Inpaint) -> None:
    if not models.extra_channels:
        raise ValueError(
            f"{shown(models.source)} is not an inpainting model, so it can't paint in a picture; choose one that is, "
            "or leave the picture and its mask away."
        )
    (w, h), (mask_w, mask_h) = inpaint.picture.size, inpaint.mask.size
    if abs(w * mask_h - mask_w * h) > SAME_SHAPE * w * mask_h:
        raise ValueError(f"The mask is {mask_w}×{mask_h} and its picture {w}×{h}; make them the same shape.")


@contextlib.contextmanager
def _attached(
    models: Models, loras: Mapping[str | Path, Strength], embeddings: Sequence[str | Path]
) -> Iterator[None]:
    names = []
    try:
        for path in embeddings:
            names.append(str(Path(path).resolve()))
            _add_word(models, Path(path), names[-1])
        for path, strength in loras.items():
            names.append(load_lora(models, path, strength))
        yield
    finally:
        for name in names:
            unload(models, name)


def load_lora(models: Models, path: str | Path, strength: float | Strength = 1.0) -> str:
    """Put a LoRA file on the model, and the trigger word's vectors if they lie beside it; or a textual-inversion file.

    Gives its name for `set_strength` and `unload`.
    """
    path = Path(path)
    name, header = str(path.resolve()), read_header(path)
    try:
        if vectors_of(header):
            _add_word(models, path, name)
        else:
            _add_lora(models, path, name)
            if told := beside.named(header.metadata):
                _add_word_of(models, path, name, told)
        set_strength(models, name, strength)
    except ValueError:
        unload(models, name)
        raise
    return name


def _add_lora(models: Models, path: Path, name: str) -> None:
    parts = models.parts()
    file = formats.load(path, parts, models.family)
    if file.unused:
        some = ", ".join(file.unused[:3])
        logger.warning(
            "%s: %d of its tensors fit no layer of this model: %s …", path.name, len(file.unused), some
        )
    layers.attach(parts, file.pairs, adapter=name)
    models.loras[name] = Used(path.stem, Strength(), beside.body_hash(path) or "")


def _add_word(models: Models, path: Path, name: str) -> None:
    file = embedding.load(path, models.family)
    for part, vectors in file.vectors.items():
        width = models.parts()[part].get_input_embeddings().embedding_dim
        if vectors.shape[1] != width:
            raise ValueError(
                f"{shown(path.name)} was made for another base model: its vectors have {vectors.shape[1]} numbers, and this "
                f"{models.family.title} model takes {width}. Choose the base model it was trained on."
            )
    words.add(models, file.word, file.vectors, name)


def _add_word_of(models: Models, lora: Path, name: str, told: beside.Named) -> None:
    """The word that was learned with a LoRA."""
    if found := beside.find(lora, told):
        _add_word(models, found, name)
    else:
        logger.warning(
            "%s goes with %s, which does not lie beside it; without it %r is read as any other word.",
            *(lora.name, shown(told.file), shown(told.word)),
        )


def set_strength(models: Models, name: str, given: float | Strength) -> None:
    """How strongly a file that is on the model counts, all of it or by part; at 0 its word is not known either."""
    wanted = as_strength(given)
    words.know(models, name, wanted.whole != 0)
    if name in models.loras:
        own = [layer for layer, low_rank in layers.low_ranks(models.parts()) if low_rank.name == name]
        by_layer = wanted.by_layer({layer: blocks.block_of(layer, models.family) for layer in own})
        layers.set_strength(models.parts(), name, by_layer)
        models.loras[name] = models.loras[name]._replace(strength=wanted)


def unload(models: Models, name: str) -> None:
    """Take a file off the model again."""
    layers.detach(models.parts(), name)
    words.remove(models, name)
    models.loras.pop(name, None)


def _counter(on_step: OnStep | None, total: int) -> Callable[[], None]:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if on_step:
            on_step(done, total)

    return tick


def scheduler_for(models: Models, sampler: str) -> Any:
    """diffusers' scheduler of that name, for the model's noise schedule and prediction."""
    kind, options = SAMPLERS[sampler]
    if models.zero_snr and models.prediction == "v_prediction":  # of noise alone ε tells nothing
        taken = inspect.signature(kind).parameters
        options = {**options, **{name: value for name, value in FROM_PURE_NOISE.items() if name in taken}}
    return kind.from_config(models.scheduler_config, prediction_type=models.prediction, **options)


def _picture(
    models: Models, prompt: str, seed: int, how: How, tick: Callable[[], None], encode: Encode
) -> Image.Image:
    w, h = how.size
    scheduler = scheduler_for(models, how.sampler)
    scheduler.set_timesteps(how.steps, device=models.device)
    rng = torch.Generator().manual_seed(
        seed
    )  # on the CPU, so that a seed means the same picture on every machine
    shape = (1, models.vae.config.latent_channels, h // models.vae_factor, w // models.vae_factor)
    x = torch.randn(shape, generator=rng).to(models.device) * scheduler.init_noise_sigma
    beside = _beside(models, how, rng) if models.extra_channels else None
    guided = how.guidance > 1
    condition = encode(models, [how.negative, prompt] if guided else [prompt])
    sizes = torch.tensor([[h, w, 0, 0, h, w]] * (2 if guided else 1), device=models.device)
    extra = {"generator": rng} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for t in scheduler.timesteps:
        inputs = scheduler.scale_model_input(x, t)
        inputs = inputs.repeat(len(sizes), 1, 1, 1)  # both halves in one pass
        answer = _predict(models, inputs, t, condition, sizes, beside).float()
        answer = guide(*answer.chunk(2), how.guidance, how.rescale) if guided else answer
        x = scheduler.step(answer, t, x, return_dict=False, **extra)[0]
        tick()
    return decode(models, x)


def _predict(
    models: Models, x: Tensor, t: Tensor, condition: Conditioning, sizes: Tensor, beside: Tensor | None
) -> Tensor:
    beside = None if beside is None else beside.expand(len(x), -1, -1, -1)
    return models.predict(x.to(models.dtype), t.expand(len(x)).to(x.device), condition, sizes, beside)


def guide(without: Tensor, with_prompt: Tensor, guidance: float, rescale: float = 0.0) -> Tensor:
    """Classifier-free guidance (arXiv:2207.12598); `rescale` is the share of it with the deviation of `with_prompt`."""
    guided = without + guidance * (with_prompt - without)
    if not rescale:
        return guided
    deviation = with_prompt.std((1, 2, 3), keepdim=True) / guided.std((1, 2, 3), keepdim=True)
    return rescale * deviation * guided + (1 - rescale) * guided


def _size_of(picture: Image.Image, models: Models) -> tuple[int, int]:
    """About the picture's shape at the area that the model was made for, (w, h) in steps that the U-Net can halve."""
    step = models.vae_factor * 2 ** (len(models.unet.config.block_out_channels) - 1)
    scale = models.resolution / (picture.width * picture.height) ** 0.5
    w, h = (max(step, round(side * scale / step) * step) for side in picture.size)
    return w, h


def _beside(models: Models, how: How, rng: torch.Generator) -> Tensor:
    """The mask, and the latents of what it leaves of the picture, (1, 5, H/8, W/8); without a picture all is painted."""
    w, h = how.size
    if how.inpaint:
        picture, mask = (part.resize(how.size, Image.Resampling.LANCZOS) for part in how.inpaint)
        pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None].float() / 127.5 - 1
        hidden = torch.from_numpy(np.array(mask.convert("L")))[None, None].float() / 255 >= 0.5
    else:
        pixels, hidden = torch.zeros(1, 3, h, w), torch.ones(1, 1, h, w, dtype=torch.bool)
    left = pixels.masked_fill(hidden, 0).to(models.vae.device)
    latents = models.vae.encode(left).latent_dist.sample(rng) * models.vae.config.scaling_factor
    cells = hidden[:, :, :: models.vae_factor, :: models.vae_factor]
    return torch.cat([cells.to(latents), latents], dim=1).to(models.device)


def decode(models: Models, latents: Tensor) -> Image.Image:
    """Scaled latents (1, 4, H/8, W/8) as a picture. The VAE runs in fp32: SDXL's overflows in fp16."""
    scaled = latents.float().to(models.vae.device) / models.vae.config.scaling_factor
    pixels = models.vae.decode(scaled, return_dict=False)[0]
    values = ((pixels[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).cpu().numpy())
