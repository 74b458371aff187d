"""Every way to name a base model gives the same frozen Models; what can't be taught is refused with one sentence."""

import json
import shutil

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file

from lora_sd.models import load as loading
from lora_sd.models.load import alpha_bar, load
from lora_sd.models.text import encode

NAMES = ["sd15", "sd2", "sdxl"]
CONFIGS = loading.CONFIGS


def weights_of(models):
    modules = {"vae": models.vae, **models.parts()}
    return {
        f"{name}.{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }


def same(ours, theirs):
    ours, theirs = weights_of(ours), weights_of(theirs)
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", [*NAMES, "sd2-v"])
def test_a_folder_loads_frozen(tiny_models, name):
    models = tiny_models(name)
    assert models.family.name == name.removesuffix("-v")
    assert models.prediction == ("v_prediction" if name == "sd2-v" else "epsilon")
    assert models.resolution == 128
    assert not any(
        p.requires_grad for module in (models.vae, *models.parts().values()) for p in module.parameters()
    )
    assert models.unet.training  # else gradient checkpointing of the text encoders would be off


@pytest.mark.parametrize("name", [*NAMES, "sd15-inpainting", "sdxl-inpainting"])
def test_a_single_file_equals_its_folder(tiny_checkpoint, tiny_models, name):
    ours, folder = load(str(tiny_checkpoint(name))), tiny_models(name)
    assert ours.family is folder.family and ours.prediction == folder.prediction
    assert same(ours, folder)
    assert torch.equal(ours.alpha_bar, folder.alpha_bar)
    captions = ["a photo of a cat", ""]
    assert torch.equal(
        encode(ours, captions).tokens, encode(folder, captions).tokens
    )  # so the padding is right too


def test_a_pickled_checkpoint_equals_its_folder(tiny_checkpoint, tiny_models):
    assert same(load(str(tiny_checkpoint("sd15", ".ckpt"))), tiny_models("sd15"))


def test_early_merges_without_the_text_model_level_load(tiny_checkpoint, tiny_models):
    path = tiny_checkpoint("sd15", rename=lambda key: key.replace("transformer.text_model.", "transformer."))
    assert same(load(str(path)), tiny_models("sd15"))


def test_a_folder_of_older_transformers_loads(tiny_folder, tiny_models, tmp_path):
    """Hub repositories have the text encoder's `text_model.` level that transformers 5 dropped, and .bin files."""
    folder = tmp_path / "old"
    shutil.copytree(tiny_folder("sd15"), folder)
    weights = tiny_models("sd15").text_encoders[0].state_dict()
    (folder / "text_encoder" / "model.safetensors").unlink()
    old = {f"text_model.{key}": value for key, value in weights.items()}
    torch.save(old, folder / "text_encoder" / "pytorch_model.bin")
    assert same(load(str(folder)), tiny_models("sd15"))


def test_half_precision_variant_files_load(tiny_folder, tiny_models, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(tiny_folder("sd15"), folder)
    for file in folder.glob("*/*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    assert same(load(str(folder)), tiny_models("sd15"))


def test_the_starter_loads(starter):
    assert (
        starter.family.name == "sd15"
        and starter.resolution == 128
        and starter.vae.config.scaling_factor == 0.73717
    )


@pytest.mark.parametrize("dtype, single", [(torch.bfloat16, True), (torch.float16, False)])
def test_the_vae_stays_in_fp32(tiny_checkpoint, tiny_folder, dtype, single):
    models = load(str(tiny_checkpoint("sd15") if single else tiny_folder("sd15")), dtype=dtype)
    assert {p.dtype for part in models.parts().values() for p in part.parameters()} == {dtype}
    assert {p.dtype for p in models.vae.parameters()} == {torch.float32}


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_are_those_of_the_file_converted_once(tiny_checkpoint, tiny_folder, tmp_path, dtype, single):
    """Weights of several precisions in one file: none goes through a narrower one on its way."""
    if single:
        path = tiny_checkpoint("sd15")
        files = [path]
    else:
        path = tmp_path / "folder"
        shutil.copytree(tiny_folder("sd15"), path)
        files = path.glob("*/*.safetensors")
    whole = weights_of(load(str(path)))
    for file in files:
        weights = load_file(file)
        halves = {key: value.half() for key, value in list(weights.items())[::2]}
        save_file(weights | halves, file, {"format": "pt"})
    for key, value in weights_of(load(str(path), dtype=dtype)).items():
        exact, halved = whole[key].to(value.dtype), whole[key].half().to(value.dtype)
        assert torch.equal(value, exact) or torch.equal(value, halved)


def test_zero_terminal_snr_is_found_in_the_file(tiny_checkpoint):
    """Other markers of the prediction type are in test_find.py: they need no weights."""
    marks = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
    models = load(str(tiny_checkpoint("sd15", extra=marks)))
    assert models.prediction == "v_prediction" and models.alpha_bar[-1] == 0


def test_sd2_of_768_pixels_is_told_by_its_weights(tiny_checkpoint):
    key = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
    assert (
        load(str(tiny_checkpoint("sd2-v", extra={key: torch.linspace(-1, 1, 16)}))).prediction
        == "v_prediction"
    )


def test_zero_terminal_snr_can_be_set(tiny_models):
    models = tiny_models("sd2-v", zero_snr=True)
    assert models.zero_snr and models.alpha_bar[-1] == 0
    assert not tiny_models("sd2-v").zero_snr and tiny_models("sd2-v").alpha_bar[-1] > 0


def test_what_an_inpainting_model_sees_more_is_counted(tiny_models):
    assert [tiny_models(name).extra_channels for name in ("sd15", "sd15-inpainting")] == [0, 5]


def test_the_users_prediction_wins(tiny_models):
    models = tiny_models("sd15", prediction="v_prediction")
    assert models.prediction == models.scheduler_config["prediction_type"] == "v_prediction"


@pytest.mark.parametrize("zero_snr", [False, True])
def test_the_noise_schedule_equals_diffusers(zero_snr):
    config = json.loads((CONFIGS / "sdxl" / "scheduler" / "scheduler_config.json").read_text())
    config["rescale_betas_zero_snr"] = zero_snr
    torch.testing.assert_close(alpha_bar(config), DDIMScheduler.from_config(config).alphas_cumprod)


def test_refusals(tiny_checkpoint, tiny_folder, tmp_path):
    """One sentence each, none of them a traceback of a library."""

    def refusal(source, **options):
        with pytest.raises(ValueError) as caught:
            load(str(source), **options)
        return str(caught.value)

    whole = tiny_checkpoint("sd15")
    half = tmp_path / "half.safetensors"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert "half.safetensors is cut short" in refusal(half)

    lacking = tmp_path / "lacking.safetensors"
    kept = {k: v for k, v in load_file(whole).items() if "middle_block.1" not in k}
    save_file(kept, lacking)
    assert "pruned" in refusal(lacking)

    pickled = tmp_path / "half.ckpt"
    pickled.write_bytes(b"PK" + b"\0" * 100)
    assert "half.ckpt is damaged" in refusal(pickled)

    torch.save({"state_dict": {}, "callback": torch.nn.Module()}, pickled)
    assert "program code" in refusal(pickled)

    assert "clip_skip is 9" in refusal(tiny_folder("sd15"), clip_skip=9)
