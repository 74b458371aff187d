"""A base model, loaded and frozen: `load("starter" | file | folder | hub id) -> Models`. It never downloads.

Weights are mapped from the file as they are there, and converted once, where they will be: on a card, or on the processor by
several threads. What a single file does not hold (component configs and the CLIP tokenizer) lies in `configs/`, so no
network is needed.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from diffusers.utils import logging as diffusers_logging
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from .. import errors
from ..paths import shown
from . import find, pickled
from .family import FAMILIES, Family, Models, Prediction, TextEncoder
from .header import FIRST_CONV, TEXT_ENCODERS, UNET, VAE, identify, read_json
from .safetensors_file import Contents, open_header

CONFIGS = Path(__file__).parent / "configs"
STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # as safetensors calls them
THREADS = min(8, os.cpu_count() or 1)
PRUNED = "it is damaged, or a pruned model, which can't be taught here"


class Components(NamedTuple):
    unet: nn.Module
    vae: nn.Module
    text_encoders: list[nn.Module]
    tokenizers: list[Any]
    scheduler_config: dict[str, Any]


def load(
    source: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    prediction: Prediction | None = None,
    zero_snr: bool | None = None,
    clip_skip: int | None = None,
    weighted: bool = False,
) -> Models:
    """The base model called `source`, frozen: U-Net and text encoders in `dtype`, the VAE always in fp32.

    `prediction` and `zero_snr` are what the model says of itself unless given; `clip_skip` counts text-encoder layers from the end;
    with `weighted` (red:1.3) in a caption or prompt is a weight.
    """
    found = find.describe(source)
    with _quiet():
        family, parts = (_from_folder if found.kind == "folder" else _from_file)(found, dtype)
    scheduler_config = parts.scheduler_config | ({"prediction_type": prediction} if prediction else {})
    scheduler_config |= {} if zero_snr is None else {"rescale_betas_zero_snr": zero_snr}
    for model in (parts.unet, parts.vae, *parts.text_encoders):
        model.requires_grad_(False).to(device).train()  # gradient checkpointing asks for train mode
        _convert(model, torch.float32 if model is parts.vae else dtype)
    _check_clip_skip(clip_skip, parts.text_encoders)
    return Models(
        family=family,
        unet=parts.unet,
        vae=parts.vae.eval(),
        text_encoders=parts.text_encoders,
        tokenizers=parts.tokenizers,
        alpha_bar=alpha_bar(scheduler_config),
        prediction=scheduler_config.get("prediction_type", family.prediction),
        source=source,
        path=found.path,
        clip_skip=clip_skip,
        weighted=weighted,
        scheduler_config=scheduler_config,
    )


def alpha_bar(scheduler_config: Mapping[str, Any]) -> Tensor:
    """ᾱ of every timestep (T,), after the zero-terminal-SNR fix where the config asks for it (arXiv:2305.08891)."""
    try:
        found = DDPMScheduler.from_config(scheduler_config).alphas_cumprod
    except Exception as error:
        raise ValueError(
            "The model's scheduler_config.json has values that no scheduler takes; download the model again."
        ) from error
    if not bool(((found >= 0) & (found <= 1)).all()):
        raise ValueError(
            "The model's scheduler_config.json gives no shares of noise; download the model again."
        )
    return found


def _convert(model: nn.Module, dtype: torch.dtype) -> None:
    """`model.to(dtype)` by several threads: what takes its time is getting memory from the system, page by page."""

    def convert(tensor: Tensor) -> None:
        tensor.data = tensor.data.to(dtype)

    with ThreadPoolExecutor(THREADS) as pool:
        floats = [
            tensor for tensor in model.state_dict(keep_vars=True).values() if tensor.is_floating_point()
        ]
        list(pool.map(convert, floats))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' own progress bars and remarks, which would tear ours."""
    verbosity, bars = diffusers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    diffusers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


# A folder in diffusers layout


def _from_folder(found: find.Found, dtype: torch.dtype) -> tuple[Family, Components]:
    path, family = found.path, FAMILIES[found.family]
    return family, Components(
        unet=_component(UNet2DConditionModel, path, "unet", dtype),
        vae=_component(AutoencoderKL, path, "vae", torch.float32),
        text_encoders=[
            _component(_text_model(spec), path, spec.attribute, dtype) for spec in family.text_encoders
        ],
        tokenizers=[_tokenizer_of(path / spec.tokenizer) for spec in family.text_encoders],
        scheduler_config=read_json(path / "scheduler" / "scheduler_config.json"),
    )


def _component(kind: type, path: Path, name: str, dtype: torch.dtype) -> nn.Module:
    """A component in the precision of its file, which needs no copy; `dtype` where that is not in the header."""
    weights = [*(path / name).glob("*.safetensors")] or [*(path / name).glob("*.bin")]
    only_halves = all(".fp16" in file.name for file in weights)
    try:
        model, report = kind.from_pretrained(
            path,
            subfolder=name,
            dtype=_file_dtype(
                min(weights, key=lambda file: len(file.name)), dtype
            ),  # the one without a variant
            variant="fp16" if only_halves else None,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # a config can hold anything, and the libraries fail at it in every way
        raise _unfit(path / name, error) from error
    if report["missing_keys"]:
        raise ValueError(f"{path / name} lacks {len(report['missing_keys'])} weights: {PRUNED}.")
    return model


def _unfit(folder: Path, error: Exception) -> Exception:
    """The sentence for a component that the libraries can't load; what is the machine's fault stays what it is."""
    if errors.out_of_memory(error):
        return error
    return ValueError(
        f"{shown(folder)} can't be loaded: its files are damaged or don't belong together; download the model again."
    )


def _tokenizer_of(folder: Path) -> CLIPTokenizer:
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise _unfit(folder, error) from error


def _file_dtype(file: Path, otherwise: torch.dtype) -> torch.dtype:
    """The widest number format in a safetensors file."""
    if file.suffix != ".safetensors":
        return otherwise
    with safe_open(file, framework="pt") as tensors:
        return _widest(STORED.get(tensors.get_slice(key).get_dtype(), otherwise) for key in tensors.keys())


def _widest(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    """The number format that holds all others; integers are none."""
    floats = [dtype for dtype in dtypes if dtype.is_floating_point]
    if not floats:
        raise ValueError(f"A part of this model has no weights that are fractions: {PRUNED}.")
    return max(floats, key=lambda dtype: dtype.itemsize)


def _text_model(spec: TextEncoder) -> type:
    return CLIPTextModelWithProjection if spec.pooled else CLIPTextModel


# A single file, as A1111 and ComfyUI keep their checkpoints


def _from_file(found: find.Found, _: torch.dtype) -> tuple[Family, Components]:
    weights, metadata = _weights(found.path)
    shapes = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    known = identify(Contents(shapes, metadata, lambda key: weights[key].tolist()))
    if known["problem"]:
        raise ValueError(f"{found.title} {known['problem']}.")
    family = FAMILIES[known["family"]]
    # SD 2.x came in two sizes: 768 pixels with v-prediction, 512 with ε.
    folder = CONFIGS / (
        "sd2-base" if family.name == "sd2" and known["prediction"] == "epsilon" else family.name
    )
    return family, Components(
        unet=_single(
            UNet2DConditionModel,
            weights,
            folder,
            "unet",
            _dtype_of(weights, UNET),
            in_channels=weights[FIRST_CONV].shape[1],
        ),
        vae=_single(AutoencoderKL, weights, folder, "vae", _dtype_of(weights, VAE)),
        text_encoders=[
            _single_text(spec, weights, folder, _dtype_of(weights, TEXT_ENCODERS))
            for spec in family.text_encoders
        ],
        tokenizers=[_tokenizer(folder / spec.tokenizer) for spec in family.text_encoders],
        scheduler_config={
            **read_json(folder / "scheduler" / "scheduler_config.json"),
            "prediction_type": known["prediction"],
            "rescale_betas_zero_snr": known["zero_snr"],
        },
    )


def _dtype_of(weights: dict[str, Tensor], prefix: str | tuple[str, ...]) -> torch.dtype:
    """The precision of a component in its file: to ask for that needs no copy."""
    return _widest(tensor.dtype for key, tensor in weights.items() if key.startswith(prefix))


def _weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor of a checkpoint, and the header's metadata."""
    if path.suffix in pickled.SUFFIXES:
        return {_with_level(key): tensor for key, tensor in pickled.tensors(path).items()}, {}
    with open_header(path) as contents:
        metadata = dict(contents.metadata)
    return {_with_level(key): tensor for key, tensor in load_file(path).items()}, metadata


def _with_level(key: str) -> str:
    """Checkpoints made by early mergers lack the text encoder's `text_model` level."""
    prefix = "cond_stage_model.transformer."
    rest = key.removeprefix(prefix)
    old = key.startswith(prefix) and rest.startswith(("embeddings.", "encoder.", "final_layer_norm."))
    return f"{prefix}text_model.{rest}" if old else key


def _single(
    kind: type, weights: dict[str, Tensor], folder: Path, name: str, dtype: torch.dtype, **config: int
) -> nn.Module:
    """A component of the file; `config` is what the file has otherwise than the folder of configs."""
    try:
        return kind.from_single_file(
            weights, config=str(folder), subfolder=name, dtype=dtype, local_files_only=True, **config
        )
    except Exception as error:  # each of its words for weights that are not there, or of another shape
        if errors.out_of_memory(error):
            raise
        raise ValueError(f"The {name} of this checkpoint lacks weights or has others: {PRUNED}.") from error


def _single_text(
    spec: TextEncoder, weights: dict[str, Tensor], folder: Path, dtype: torch.dtype
) -> nn.Module:
    try:
        model = create_diffusers_clip_model_from_ldm(
            _text_model(spec), weights, spec.attribute, str(folder), dtype, local_files_only=True
        )
    except Exception as error:
        if errors.out_of_memory(error):
            raise
        raise ValueError(f"The {spec.attribute} of this checkpoint has other weights: {PRUNED}.") from error
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError(f"The {spec.attribute} of this checkpoint lacks weights: {PRUNED}.")
    return model


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """The one CLIP vocabulary, with the padding that this text encoder was trained with."""
    return CLIPTokenizer.from_pretrained(
        CONFIGS / "tokenizer", **read_json(folder / "special_tokens_map.json")
    )


def _check_clip_skip(clip_skip: int | None, text_encoders: list[nn.Module]) -> None:
    layers = min(model.config.num_hidden_layers for model in text_encoders)
    if clip_skip and clip_skip > layers:
        raise ValueError(f"model.clip_skip is {clip_skip}; this model's text encoder has {layers} layers.")
