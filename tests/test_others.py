"""What is no base model of ours is called by its name, whatever diffusers can tell of it."""

import json

import pytest
from diffusers import pipelines
from diffusers.loaders.single_file_utils import CHECKPOINT_KEY_NAMES

from lora_sd.models import find, others
from lora_sd.models.header import SUPPORTED, identify, pipeline_problem, prediction_of
from lora_sd.models.safetensors_file import Contents

# Keys that a model of ours has, too, or that tell something only beside others.
OURS = {"v1", "v2", "xl_base", "inpainting", "instruct-pix2pix", "controlnet_xl"}
ALL_AT_ONCE = {"auraflow"}  # of these diffusers wants all keys, of the others any
# What diffusers calls a key → what we call a file with it.
NAMES = {
    "xl_refiner": "the SDXL refiner",
    "upscale": "upscaler",
    "controlnet": "a ControlNet",
    "playground-v2-5": "Playground 2.5",
    "clip": "a text encoder",
    "open_clip_sd3": "a text encoder",
    "stable_cascade_stage_b": "Stable Cascade",
    "sd35_large": "a Stable Diffusion 3 model",
    "animatediff_v2": "AnimateDiff",
    "auraflow": "an AuraFlow model",
    "flux": "a Flux model",
    "flux2": "a Flux.2 model",
    "chroma": "a Chroma model",
    "ltx-video": "an LTX-Video model",
    "ltx2": "an LTX-Video model",
    "autoencoder-dc": "a VAE",
    "mochi-1-preview": "a Mochi model",
    "hunyuan-video": "a HunyuanVideo model",
    "lumina2": "a Lumina model",
    "z-image-turbo": "a Z-Image model",
    "z-image-turbo-controlnet": "a ControlNet",
    "sana": "Sana",
    "wan": "a Wan model",
    "wan_vae": "a VAE",
    "hidream": "a HiDream model",
    "cosmos-1.0": "a Cosmos model",
    "qwen-image-2.1": "a Qwen-Image model",
    "krea2": "a Krea 2 model",
}


def problem(*keys):
    return identify(Contents(dict.fromkeys(keys, (3, 3)), {}, lambda key: []))["problem"]


def all_keys(name):
    keys = CHECKPOINT_KEY_NAMES[name]
    return [keys] if isinstance(keys, str) else keys


@pytest.mark.parametrize("name", [name for name in CHECKPOINT_KEY_NAMES if name not in OURS])
def test_every_kind_of_file_that_diffusers_tells_has_a_name(name):
    keys = all_keys(name)
    for some in [keys] if name in ALL_AT_ONCE else [[key] for key in keys]:
        assert SUPPORTED in problem(*some) and "this program knows" not in problem(*some), some


@pytest.mark.parametrize("name, words", NAMES.items())
def test_names_are_the_right_ones(name, words):
    assert words in problem(*all_keys(name))


@pytest.mark.parametrize("keys, words", [
    (["double_blocks.0.img_attn.norm.key_norm.scale", "distilled_guidance_layer.in_proj.bias"], "a Chroma model"),
    (["cap_embedder.0.weight", "layers.0.adaLN_modulation.0.weight"], "a Z-Image model"),
    (["txt_in.individual_token_refiner.blocks.0.norm1.weight", "double_blocks.0.img_attn.qkv.weight"], "a HunyuanVideo model"),
    (["double_blocks.0.img_attn.qkv.weight.absmax", "double_blocks.0.img_attn.qkv.weight"], "a Flux model"),
    (["transformer_blocks.0.img_mod.1.weight"], "a Qwen-Image model"),
    (["blocks.0.cross_attn.kv_linear.weight", "t_block.1.weight", "blocks.0.mlp.inverted_conv.conv.weight"], "a Sana model"),
    (["t_block.1.weight", "blocks.0.attn.qkv.weight"], "a PixArt model"),
    (["mlp_t5.0.weight"], "a HunyuanDiT model"),
    (["encoder_hid_proj.weight", "down_blocks.1.attentions.0.norm.weight"], "a Kolors model"),
    (["patch_embed.text_proj.weight"], "a CogVideo model"),
    (["encoder_pooling.0.weight"], "a DeepFloyd IF model"),
    (["model.diffusion_model.input_blocks.1.0.time_stack.emb_layers.1.bias"], "a Stable Video Diffusion model"),
    (["adapter.body.0.resnets.0.block1.bias"], "a T2I-adapter"),
    (["encoder.block.0.layer.0.SelfAttention.k.weight", "shared.weight"], "a text encoder"),
    (["decoder.conv_in.weight", "quant_conv.weight"], "a VAE"),
    (["first_stage_model.decoder.conv_in.weight"], "a VAE"),
    (["down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"], "the U-Net of a model without its other parts"),
])  # fmt: skip
def test_the_more_telling_key_counts(keys, words):
    assert problem(*keys) == f"is {words}; only {SUPPORTED}"


def test_weights_in_few_bits_are_told():
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    assert "choose the fp16 version" in problem(key, f"{key}.absmax", f"{key}.quant_state.bitsandbytes__nf4")


@pytest.mark.parametrize("channels, words", [(8, "instruct-pix2pix"), (7, "upscaler"), (5, "depth-to-image")])
def test_other_widths_of_the_first_layer_are_told(channels, words):
    shapes = {
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
        "model.diffusion_model.input_blocks.0.0.weight": (320, channels, 3, 3),
    }
    assert words in identify(Contents(shapes, {}, lambda key: []))["problem"]


TAUGHT = {
    f"{family}{kind}Pipeline"
    for family in ("StableDiffusion", "StableDiffusionXL")
    for kind in ("", "Img2Img", "Inpaint")
}


def index_of(kind, *encoders):
    encoders = encoders or ("text_encoder", "text_encoder_2")[: 1 + kind.startswith("StableDiffusionXL")]
    return {"_class_name": kind, **{name: ["transformers", "CLIPTextModel"] for name in encoders}}


def test_of_all_pipelines_of_diffusers_six_are_taught_and_the_others_are_told():
    known = [name for name in dir(pipelines) if name.endswith("Pipeline")]
    known += [
        name for names in pipelines._import_structure.values() for name in names if name.endswith("Pipeline")
    ]
    assert len(known) > 200 and set(known) >= TAUGHT
    for kind in known:
        told = pipeline_problem(index_of(kind))
        assert (told == "") == (kind in TAUGHT), kind
        assert not told or others.longest(others.PIPELINES, kind) or kind in told


@pytest.mark.parametrize("kind, words", [
    ("FluxFillPipeline", "a Flux model"),
    ("Flux2Pipeline", "a Flux.2 model"),
    ("FluxKontextPipeline", "a Flux model"),
    ("StableDiffusion3Pipeline", "a Stable Diffusion 3 model"),
    ("PixArtSigmaPipeline", "a PixArt model"),
    ("AuraFlowPipeline", "an AuraFlow model"),
    ("SanaPipeline", "a Sana model"),
    ("HunyuanDiTPipeline", "a HunyuanDiT model"),
    ("HunyuanVideoPipeline", "a HunyuanVideo model"),
    ("WanPipeline", "a Wan model"),
    ("KolorsPipeline", "a Kolors model"),
    ("Lumina2Pipeline", "a Lumina model"),
    ("LuminaText2ImgPipeline", "a Lumina model"),
    ("ZImagePipeline", "a Z-Image model"),
    ("ChromaPipeline", "a Chroma model"),
    ("QwenImagePipeline", "a Qwen-Image model"),
    ("HiDreamImagePipeline", "a HiDream model"),
    ("CogVideoXPipeline", "a CogVideo model"),
    ("LTXPipeline", "an LTX-Video model"),
    ("StableCascadeCombinedPipeline", "Stable Cascade"),
    ("WuerstchenDecoderPipeline", "Würstchen"),
    ("KandinskyV22Pipeline", "a Kandinsky model"),
    ("IFPipeline", "a DeepFloyd IF model"),
    ("StableDiffusionUpscalePipeline", "upscaler"),
    ("StableDiffusionInstructPix2PixPipeline", "instruct-pix2pix"),
    ("StableDiffusionXLControlNetPipeline", "ControlNet"),
    ("LatentConsistencyModelPipeline", "latent consistency"),
])  # fmt: skip
def test_folders_are_told_by_their_pipeline(kind, words):
    assert words in pipeline_problem(index_of(kind))


def test_the_refiner_is_told_by_its_one_text_encoder():
    assert "the SDXL refiner" in pipeline_problem(
        index_of("StableDiffusionXLImg2ImgPipeline", "text_encoder_2")
    )


@pytest.mark.parametrize("kind", ["EDMDPMSolverMultistepScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_a_schedule_of_another_kind_is_not_taken_for_epsilon(kind):
    with pytest.raises(ValueError, match="only models that predict epsilon or v_prediction"):
        prediction_of({"_class_name": kind})


@pytest.mark.parametrize("config, words", [
    ({"_class_name": "ControlNetModel"}, "is a ControlNet alone"),
    ({"_class_name": "UNet2DConditionModel"}, "is a U-Net alone"),
    ({"architectures": ["T5EncoderModel"]}, "is a text encoder alone"),
    ({"_class_name": "NewModel"}, "is a NewModel alone"),
    ({"architectures": []}, "has no model_index.json"),
])  # fmt: skip
def test_a_folder_of_one_component_is_told(tmp_path, config, words):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words):
        find.describe(tmp_path)


def test_a_gguf_file_is_told(tmp_path):
    (tmp_path / "flux1-dev-Q4_K_S.gguf").write_bytes(b"GGUF")
    with pytest.raises(
        ValueError, match=r"flux1-dev-Q4_K_S.gguf is a GGUF file, whose weights are quantised"
    ):
        find.describe(tmp_path / "flux1-dev-Q4_K_S.gguf")
