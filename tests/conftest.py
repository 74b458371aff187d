"""Tiny random models of the real structure, a home of its own for every test, and one thread."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: no test asks the network

import pytest
import torch
from hypothesis import settings
from PIL import Image

settings.register_profile("here", deadline=None, derandomize="CI" in os.environ)  # a busy machine is no bug
settings.load_profile("here")

TOKENIZER = Path(__file__).parent.parent / "lora_sd" / "models" / "configs" / "tokenizer"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
PIXELS = 128  # the tiny models' resolution: latents of 16 × 16

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need what this machine has not are skipped, and the report says which and why."""
    missing = {
        "gpu": None if torch.cuda.is_available() else "needs a CUDA device",
        "browser": None if any(map(shutil.which, CHROMIUM)) else "needs Chromium",
    }
    for item in items:
        for marker, why in missing.items():
            if why and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh, empty LORA_SD_HOME."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("LORA_SD_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny_folder("sdxl")` is a diffusers folder of a tiny random model; made once a session, so don't write in it.

    Names: sd15, sd2, sdxl, sd2-v for an SD 2.x with v-prediction, and sd15-inpainting and sdxl-inpainting.
    """
    root = tmp_path_factory.mktemp("tiny")

    def folder(name: str) -> Path:
        path = root / name
        if not path.exists():
            with torch.random.fork_rng():
                torch.manual_seed(sum(map(ord, name)))
                PIPELINES[name]().save_pretrained(path)
        return path

    return folder


@pytest.fixture
def tiny_models(tiny_folder) -> Callable:
    """`tiny_models("sdxl")` are freshly loaded Models, frozen, in fp32 on the CPU."""
    from lora_sd.models.load import load

    return lambda name, **options: load(str(tiny_folder(name)), **options)


@pytest.fixture
def tiny_checkpoint(tiny_folder, tiny_models, tmp_path, monkeypatch) -> Callable[..., Path]:
    """`tiny_checkpoint("sdxl", suffix=".safetensors", extra={…})` is a tiny model as one file.

    The loader's two tables, cross-attention widths and component configs, are those of the tiny models for the test.
    """
    from ldm import to_ldm
    from safetensors.torch import save_file

    from lora_sd.models import header
    from lora_sd.models import load as loading

    configs = loading.CONFIGS
    monkeypatch.setattr(loading, "CONFIGS", tmp_path)
    shutil.copytree(configs / "tokenizer", tmp_path / "tokenizer")

    def write(name, suffix=".safetensors", extra=None, metadata=None, rename=lambda key: key):
        plain = name.removesuffix("-inpainting")
        family = {"sd2-v": "sd2", "sd2": "sd2-base"}.get(plain, plain)
        json_only = shutil.ignore_patterns("*.safetensors", "tokenizer.json")
        shutil.copytree(tiny_folder(plain), tmp_path / family, ignore=json_only)
        shutil.copytree(
            tiny_folder(name) / "vae", tmp_path / family / "vae", ignore=json_only, dirs_exist_ok=True
        )
        for tokenizer in (tmp_path / family).glob("tokenizer*"):
            shutil.copy(configs / family / tokenizer.name / "special_tokens_map.json", tokenizer)
        width = 32 + 64 if plain == "sdxl" else 32
        monkeypatch.setattr(header, "WIDTHS", {width: family.removesuffix("-base")})
        models = tiny_models(name)
        weights = to_ldm(models.unet, models.vae, models.text_encoders) | (extra or {})
        weights = {rename(key): value for key, value in weights.items()}
        path = tmp_path / f"model{suffix}"
        if suffix == ".safetensors":
            save_file(weights, path, metadata)
        else:
            torch.save({"state_dict": weights}, path)
        return path

    return write


@pytest.fixture
def pictures(tmp_path):
    """Three pictures of two shapes, with captions."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, size in enumerate([(128, 128), (160, 96), (128, 128)]):
        noise = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(index))
        Image.fromarray(noise.to(torch.uint8).numpy()).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"picture {index}")
    return folder


@pytest.fixture
def starter():
    """The starter model, freshly loaded in fp32 on the CPU."""
    from lora_sd.models.load import load

    return load("starter")


def _text_encoder(kind: type, activation: str, layers: int, width: int = 32):
    from transformers import CLIPTextConfig

    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_attention_heads=4,
        num_hidden_layers=layers,
        projection_dim=width,
        hidden_act=activation,
        bos_token_id=49406,
        eos_token_id=49407,
    )
    return kind(config).eval()


def _tokenizer(pad: str):
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(TOKENIZER, pad_token=pad)


def _vae(groups: int = 8):
    """With one channel to a group, as most tiny models have it, a picture of one grey would be normed by its rounding errors."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=groups,
        sample_size=PIXELS,
    )


def _scheduler(prediction: str):
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )


def _sd(activation: str, pad: str, linear: bool, prediction: str = "epsilon", channels: int = 4):
    """The four levels of SD 1.x and 2.x: 16 transformers, 22 residual blocks."""
    from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    unet = UNet2DConditionModel(
        sample_size=PIXELS // 8,
        in_channels=channels,
        block_out_channels=(16, 16, 32, 32),
        norm_num_groups=8,
        attention_head_dim=4,
        cross_attention_dim=32,
        use_linear_projection=linear,
    )
    return (StableDiffusionPipeline if channels == 4 else StableDiffusionInpaintPipeline)(
        vae=_vae(8 if channels == 4 else 2),
        text_encoder=_text_encoder(CLIPTextModel, activation, layers=3),
        tokenizer=_tokenizer(pad),
        unet=unet,
        scheduler=_scheduler(prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(channels: int = 4):
    """SDXL's three levels of two layers each, on which kohya's numbering of blocks stands."""
    from diffusers import (
        StableDiffusionXLInpaintPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    unet = UNet2DConditionModel(
        sample_size=PIXELS // 8,
        in_channels=channels,
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        norm_num_groups=8,
        attention_head_dim=4,
        cross_attention_dim=32 + 64,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=64 + 6 * 8,
    )
    return (StableDiffusionXLPipeline if channels == 4 else StableDiffusionXLInpaintPipeline)(
        vae=_vae(8 if channels == 4 else 2),
        text_encoder=_text_encoder(CLIPTextModel, "quick_gelu", layers=3),
        text_encoder_2=_text_encoder(CLIPTextModelWithProjection, "gelu", layers=4, width=64),
        tokenizer=_tokenizer("<|endoftext|>"),
        tokenizer_2=_tokenizer("!"),
        unet=unet,
        scheduler=_scheduler("epsilon"),
    )


PIPELINES = {
    "sd15": lambda: _sd("quick_gelu", "<|endoftext|>", linear=False),
    "sd2": lambda: _sd("gelu", "!", linear=True),
    "sd2-v": lambda: _sd("gelu", "!", linear=True, prediction="v_prediction"),
    "sdxl": _sdxl,
    "sd15-inpainting": lambda: _sd("quick_gelu", "<|endoftext|>", linear=False, channels=9),
    "sdxl-inpainting": lambda: _sdxl(channels=9),
}
