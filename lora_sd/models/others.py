"""Models that can't be taught here, and files that are no base model, by name: data for models/header.py.

Of a single file its keys tell, of a diffusers folder the class of its pipeline.
"""

FLUX, FLUX2, SD3 = "a Flux model", "a Flux.2 model", "a Stable Diffusion 3 model"
HUNYUAN, WAN, LTX, COSMOS = "a HunyuanVideo model", "a Wan model", "an LTX-Video model", "a Cosmos model"
CASCADE, KANDINSKY, IF = "a Stable Cascade (Würstchen) model", "a Kandinsky model", "a DeepFloyd IF model"
QWEN, LUMINA, Z_IMAGE, CHROMA = "a Qwen-Image model", "a Lumina model", "a Z-Image model", "a Chroma model"
SVD, UPSCALER, DEPTH = (
    "a Stable Video Diffusion model",
    "the Stable Diffusion upscaler",
    "a depth-to-image model",
)
PIX2PIX, UNCLIP, REFINER = "an image-editing model (instruct-pix2pix)", "an unCLIP model", "the SDXL refiner"
CONTROLNET, ADAPTER, LORA = "a ControlNet", "a T2I-adapter", "a LoRA"
VAE, TEXT_ENCODER, UNET = "a VAE", "a text encoder", "the U-Net of a model without its other parts"

# A part of a key → what such a file is, the more telling first: Chroma is built like Flux, and Z-Image like Lumina.
KEYS = {
    "edm_mean": "a Playground 2.5 model",
    "edm_vpred.": "a CosXL model",
    # What goes beside a base model
    "control_all_x_embedder.": CONTROLNET,
    "control_layers.": CONTROLNET,
    "control_model.": CONTROLNET,
    "controlnet_cond_embedding.": CONTROLNET,
    "controlnet_blocks.": CONTROLNET,
    "controlnet_down_blocks.": CONTROLNET,
    "controlnet_x_embedder.": CONTROLNET,
    "input_hint_block.": CONTROLNET,
    "lllite_": CONTROLNET,
    "body.0.resnets.0.block1.": ADAPTER,
    "body.0.block1.": ADAPTER,
    "ip_adapter.": "an IP-Adapter",
    "motion_modules.": "an AnimateDiff motion module",
    "emb_params": "a textual-inversion embedding",
    # Transformers
    "early_stream_modulations.": "a Flux.3 model",
    "ref_time_in.": "a Flux.3 model",
    "double_stream_modulation_img": FLUX2,
    "single_stream_modulation.": FLUX2,
    "distilled_guidance_layer.": CHROMA,
    "byt5_in.": "a HunyuanImage or HunyuanVideo 1.5 model",
    "individual_token_refiner.": HUNYUAN,
    "mlp_t5.": "a HunyuanDiT model",
    "double_blocks.0.img_attn.": FLUX,
    "joint_blocks.": SD3,
    "double_layers.0.attn.": "an AuraFlow model",
    "cond_seq_linear.": "an AuraFlow model",
    "double_stream_blocks.0.block.": "a HiDream model",
    "txtfusion.": "a Krea 2 model",
    "txt_in.text_norm.": QWEN,
    "transformer_blocks.0.img_mod.": QWEN,
    "layers.0.adaLN_modulation.0.": Z_IMAGE,
    "cap_embedder.": LUMINA,
    "attention_y_norm.": "a Sana model",
    ".inverted_conv.": "a Sana model",
    "t_block.1.": "a PixArt model",
    "cross_attn.q_linear.": "a PixArt or Sana model",
    "cross_attn.kv_linear.": "a PixArt or Sana model",
    "av_ca_a2v_gate_adaln_single.": LTX,
    "patchify_proj.": LTX,
    "transformer_blocks.27.scale_shift_table": LTX,
    "last_scale_shift_table": LTX,
    "per_channel_statistics.": LTX,
    "vae.decoder.up_blocks.9.": LTX,
    "attn.qkv_x.": "a Mochi model",
    "token_refiner.blocks.0.attn.qkv_proj.": "a MiniMax model",
    "motion_encoder.dec.": WAN,
    "vace_blocks.": WAN,
    "head.modulation": WAN,
    "llm_adapter.blocks.": "an Anima model",
    "net.x_embedder.proj.": COSMOS,
    "net.blocks.": COSMOS,
    "net.pos_embedder.": COSMOS,
    "net.extra_pos_embedder.": COSMOS,
    "patch_embed.text_proj.": "a CogVideo model",
    "mixins.final_layer.": "a CogVideo model",
    "adaln_single.": "a PixArt model",
    "joint_transformer_blocks.0.": "an AuraFlow model",
    "single_transformer_blocks.0.": FLUX,
    "transformer_blocks.0.norm1_context.": SD3,
    "text_transformer_blocks.0.": KANDINSKY,
    # U-Nets of other kinds
    "clip_txt_mapper.": CASCADE,
    "effnet_mapper.": CASCADE,
    ".channelwise.0.": CASCADE,
    "add_embedding.image_norm.": KANDINSKY,
    "add_embedding.image_proj.": KANDINSKY,
    "prd_embedding": KANDINSKY,
    "encoder_pooling.": IF,
    "add_embedding.pool.": IF,
    "encoder_hid_proj.": "a Kolors model",
    "conditioner.embedders.0.model.": REFINER,
    "time_stack.": SVD,
    "low_scale_model.": UPSCALER,
    "input_blocks.10.0.skip_connection.": UPSCALER,
    "depth_model.": DEPTH,
    "noise_augmentor.": UNCLIP,
    "embedder.model.visual.": UNCLIP,
    "cond_stage_model.roberta.": "an AltDiffusion model",
}

# A part of a key of weights in 4 or 8 bits: numbers of their own that have to be multiplied in.
QUANTISED = (
    ".quant_state.",
    ".quant_map",
    ".absmax",
    ".qweight",
    ".wscales",
    ".scale_weight",
    ".weight_scale",
    ".comfy_quant",
)

# What other files of models end in.
SUFFIXES = {
    ".gguf": "a GGUF file, whose weights are quantised",
    ".onnx": "an ONNX file",
    ".engine": "a TensorRT file",
}

# How keys begin → what a file is that has only such: a part of a model.
PARTS = {
    "encoder.block.0.layer.": TEXT_ENCODER,  # T5
    "encoder.embed_tokens.": TEXT_ENCODER,
    "shared.": TEXT_ENCODER,
    "model.layers.0.": TEXT_ENCODER,
    "model.embed_tokens.": TEXT_ENCODER,
    "text_model.": TEXT_ENCODER,
    "transformer.text_model.": TEXT_ENCODER,
    "transformer.resblocks.": TEXT_ENCODER,
    "text_encoders.": TEXT_ENCODER,
    "cond_stage_model.": TEXT_ENCODER,
    "conditioner.": TEXT_ENCODER,
    "visual.": "an image encoder",
    "vision_model.": "an image encoder",
    "first_stage_model.": VAE,
    "vae.": VAE,
    "decoder.conv_in.": VAE,
    "encoder.conv_in.": VAE,
    "decoder.middle.": VAE,
    "encoder.project_in.": VAE,
    "decoder.stages.": VAE,
    "conv_in.": UNET,
    "down_blocks.": UNET,
    "input_blocks.": UNET,
}

# How the name of a pipeline begins → what such a folder is; the longest that fits counts.
PIPELINES = {
    "Flux": FLUX,
    "FluxControlNet": CONTROLNET,
    "Flux2": FLUX2,
    "StableDiffusion3": SD3,
    "PixArt": "a PixArt model",
    "AuraFlow": "an AuraFlow model",
    "Sana": "a Sana model",
    "HunyuanDiT": "a HunyuanDiT model",
    "HunyuanVideo": HUNYUAN,
    "HunyuanSkyreels": HUNYUAN,
    "HunyuanImage": "a HunyuanImage model",
    "Wan": WAN,
    "Kolors": "a Kolors model",
    "Lumina": LUMINA,
    "ZImage": Z_IMAGE,
    "Chroma": CHROMA,
    "QwenImage": QWEN,
    "HiDream": "a HiDream model",
    "Krea2": "a Krea 2 model",
    "CogVideo": "a CogVideo model",
    "CogView": "a CogView model",
    "LTX": LTX,
    "Mochi": "a Mochi model",
    "Cosmos": COSMOS,
    "StableCascade": CASCADE,
    "Wuerstchen": CASCADE,
    "Kandinsky": KANDINSKY,
    "IF": IF,
    "StableVideoDiffusion": SVD,
    "StableDiffusionUpscale": UPSCALER,
    "StableDiffusionLatentUpscale": UPSCALER,
    "StableDiffusionDepth2Img": DEPTH,
    "StableDiffusionInstructPix2Pix": PIX2PIX,
    "StableDiffusionXLInstructPix2Pix": PIX2PIX,
    "StableUnCLIP": UNCLIP,
    "StableDiffusionControlNet": "a model with a ControlNet",
    "StableDiffusionXLControlNet": "a model with a ControlNet",
    "StableDiffusionAdapter": "a model with a T2I-adapter",
    "StableDiffusionXLAdapter": "a model with a T2I-adapter",
    "LatentConsistencyModel": "a latent consistency model",
    "AnimateDiff": "an AnimateDiff model",
    "AltDiffusion": "an AltDiffusion model",
}

# The class in a config.json → what a folder of one component is; it begins so, and the longest counts.
COMPONENTS = {
    "UNet2DConditionModel": "a U-Net",
    "ControlNet": CONTROLNET,
    "Flux": FLUX,
    "SD3": SD3,
    "AutoencoderKL": VAE,
    "T2IAdapter": ADAPTER,
    "MultiAdapter": ADAPTER,
    "MotionAdapter": "an AnimateDiff motion module",
    "CLIPText": TEXT_ENCODER,
    "T5": TEXT_ENCODER,
}

# The class of a folder's noise schedule that is none of ε or v → what such a model is.
SCHEDULERS = {
    "EDM": "a model of the EDM schedule, as Playground 2.5 and CosXL are",
    "FlowMatch": "a flow-matching model",
}


def longest(table: dict[str, str], name: str) -> str | None:
    """What the longest beginning of `name` in a table says.

    >>> longest(PIPELINES, "Flux2KleinPipeline"), longest(PIPELINES, "MyPipeline")
    ('a Flux.2 model', None)
    """
    found = [start for start in table if name.startswith(start)]
    return table[max(found, key=len)] if found else None
