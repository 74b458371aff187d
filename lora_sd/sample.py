"""Prompts → pictures, with a base model and any LoRAs on it. Previews and the Try it page use the same function."""

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import diffusers
import torch
from PIL import Image
from torch import Tensor

from .lora import beside, embedding, formats, layers
from .lora.inspection import read_header, vectors_of
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
LARGEST = 4096  # pixels of a side
LIMITS = {
    "steps": (1, 1000),
    "guidance": (0, 100),
    "seed": (0, 2**63 - 1),
    "strength of a LoRA": (-100, 100),
}
OnStep = Callable[[int, int], None]  # sampling steps done, of how many; an exception in it cancels


@torch.no_grad()
def generate(
    models: Models | str,
    prompts: str | Sequence[str],
    *,
    loras: Mapping[str | Path, float] | None = None,
    embeddings: Sequence[str | Path] = (),
    negative: str = "",
    seeds: Sequence[int] = (42,),
    steps: int = 25,
    guidance: float = 5.0,
    sampler: str = "dpmpp_2m_karras",
    size: tuple[int, int] | None = None,
    on_step: OnStep | None = None,
) -> list[Image.Image]:
    """A picture of each prompt; `seeds` are one for all or one each, `size` is (w, h) in pixels.

    `models` may be a name, file or folder; `loras` are files with their strengths, and `embeddings` textual-inversion
    files, on for this call only.
    A picture depends on its own prompt and seed, not on the others. Raises ValueError for settings that cannot work.
    """
    models = load(models) if isinstance(models, str) else models
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    seeds = list(seeds) * len(prompts) if len(seeds) == 1 else list(seeds)
    size = size or (models.resolution, models.resolution)
    _check(models, prompts, seeds, sampler, size)
    numbers = [("steps", steps), ("guidance", guidance), *(("seed", seed) for seed in seeds)]
    _check_numbers(numbers + [("strength of a LoRA", strength) for strength in (loras or {}).values()])
    with _attached(models, loras or {}, embeddings):
        pairs = [(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        tick = _counter(on_step, len(pairs) * steps)
        return [
            _picture(models, prompt, negative, seed, steps, guidance, sampler, size, tick)
            for prompt, seed in pairs
        ]


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


def _check_numbers(numbers: Iterable[tuple[str, float]]) -> None:
    for name, value in numbers:
        least, most = LIMITS[name]
        if not least <= value <= most:  # nor is NaN
            raise ValueError(f"The {name} is {value}; it must be {least} to {most:,}.")


@contextlib.contextmanager
def _attached(
    models: Models, loras: Mapping[str | Path, float], embeddings: Sequence[str | Path]
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


def load_lora(models: Models, path: str | Path, strength: float = 1.0) -> str:
    """Put a LoRA file on the model, and the trigger word's vectors if they lie beside it; or a textual-inversion file.

    Gives its name for `set_strength` and `unload`.
    """
    path = Path(path)
    name, header = str(path.resolve()), read_header(path)
    try:
        if vectors_of(header):
            _add_word(models, path, name)
        else:
            _add_lora(models, path, name, strength)
            if told := beside.named(header.metadata):
                _add_word_of(models, path, name, told)
    except ValueError:
        unload(models, name)
        raise
    words.know(models, name, strength != 0)
    return name


def _add_lora(models: Models, path: Path, name: str, strength: float) -> None:
    parts = models.parts()
    file = formats.load(path, parts, models.family)
    if file.unused:
        some = ", ".join(file.unused[:3])
        logger.warning(
            "%s: %d of its tensors fit no layer of this model: %s …", path.name, len(file.unused), some
        )
    layers.attach(parts, file.pairs, adapter=name, strength=strength)


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


def set_strength(models: Models, name: str, strength: float) -> None:
    """How strongly a file that is on the model counts; at 0 its word is not known either."""
    words.know(models, name, strength != 0)
    if any(low_rank.name == name for _, low_rank in layers.low_ranks(models.parts())):
        layers.set_strength(models.parts(), name, strength)


def unload(models: Models, name: str) -> None:
    """Take a file off the model again."""
    layers.detach(models.parts(), name)
    words.remove(models, name)


def _counter(on_step: OnStep | None, total: int) -> Callable[[], None]:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if on_step:
            on_step(done, total)

    return tick


def _picture(
    models: Models,
    prompt: str,
    negative: str,
    seed: int,
    steps: int,
    guidance: float,
    sampler: str,
    size: tuple[int, int],
    tick: Callable[[], None],
) -> Image.Image:
    w, h = size
    kind, options = SAMPLERS[sampler]
    scheduler = kind.from_config(models.scheduler_config, prediction_type=models.prediction, **options)
    scheduler.set_timesteps(steps, device=models.device)
    rng = torch.Generator().manual_seed(
        seed
    )  # on the CPU, so that a seed means the same picture on every machine
    shape = (1, models.unet.config.in_channels, h // models.vae_factor, w // models.vae_factor)
    x = torch.randn(shape, generator=rng).to(models.device) * scheduler.init_noise_sigma
    guided = guidance > 1
    condition = text.encode(models, [negative, prompt] if guided else [prompt])
    sizes = torch.tensor([[h, w, 0, 0, h, w]] * (2 if guided else 1), device=models.device)
    extra = {"generator": rng} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for t in scheduler.timesteps:
        inputs = scheduler.scale_model_input(x, t)
        answer = (
            _guided(models, inputs, t, condition, sizes, guidance)
            if guided
            else _predict(models, inputs, t, condition, sizes)
        )
        x = scheduler.step(answer.float(), t, x, return_dict=False, **extra)[0]
        tick()
    return decode(models, x)


def _predict(models: Models, x: Tensor, t: Tensor, condition: Conditioning, sizes: Tensor) -> Tensor:
    return models.predict(x.to(models.dtype), t.expand(len(x)).to(x.device), condition, sizes)


def _guided(
    models: Models, x: Tensor, t: Tensor, condition: Conditioning, sizes: Tensor, guidance: float
) -> Tensor:
    """Classifier-free guidance (arXiv:2207.12598), both halves in one pass."""
    without, with_prompt = _predict(models, torch.cat([x, x]), t, condition, sizes).float().chunk(2)
    return without + guidance * (with_prompt - without)


def decode(models: Models, latents: Tensor) -> Image.Image:
    """Scaled latents (1, 4, H/8, W/8) as a picture. The VAE runs in fp32: SDXL's overflows in fp16."""
    scaled = latents.float().to(models.vae.device) / models.vae.config.scaling_factor
    pixels = models.vae.decode(scaled, return_dict=False)[0]
    values = ((pixels[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).cpu().numpy())
