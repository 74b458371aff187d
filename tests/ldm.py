"""A model's weights under the names of A1111 and ComfyUI checkpoints: the renaming that the loader has to undo."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
OPEN_CLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def to_ldm(unet: nn.Module, vae: nn.Module, text_encoders: list[nn.Module]) -> dict[str, Tensor]:
    """The state dict of a whole checkpoint."""
    with_attention = {
        name.split(".")[1] for name, _ in unet.up_blocks.named_modules(prefix="up") if "attentions" in name
    }
    weights = {
        f"model.diffusion_model.{_unet_name(key, with_attention)}": value
        for key, value in unet.state_dict().items()
    }
    for key, value in vae.state_dict().items():
        attention = "mid_block.attentions" in key and key.endswith("weight") and "group_norm" not in key
        weights[f"first_stage_model.{_vae_name(key)}"] = value[:, :, None, None] if attention else value
    if len(text_encoders) == 2:
        weights |= _clip(text_encoders[0], "conditioner.embedders.0.transformer.text_model.")
        weights |= _open_clip(text_encoders[1], "conditioner.embedders.1.model.")
    elif text_encoders[0].config.hidden_act == "gelu":
        weights |= _open_clip(text_encoders[0], "cond_stage_model.model.")
    else:
        weights |= _clip(text_encoders[0], "cond_stage_model.transformer.text_model.")
    return {key: value.contiguous() for key, value in weights.items()}


def write_header(
    path: Path, weights: dict[str, Tensor], values: Mapping[str, Tensor], **metadata: str
) -> None:
    """A safetensors file of these names and shapes in fp16, all zeros but `values`; sparse, so of no size on disk."""
    header, end = {"__metadata__": metadata}, 0
    for key, tensor in weights.items():
        start, end = end, end + 2 * tensor.numel()
        header[key] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
        for key, tensor in values.items():
            file.seek(8 + len(text) + header[key]["data_offsets"][0])
            file.write(tensor.half().numpy().tobytes())


def _renamed(name: str, table: dict[str, str]) -> str:
    return next(
        (name.replace(ours, theirs, 1) for ours, theirs in table.items() if name.startswith(ours)), name
    )


def _unet_name(key: str, with_attention: set[str]) -> str:
    part, *rest = key.split(".")
    if part == "mid_block":
        kind, j, *rest = rest
        place, name = f"middle_block.{2 * int(j) if kind == 'resnets' else 1}", ".".join(rest)
        return f"{place}.{_renamed(name, RESNET) if kind == 'resnets' else name}"
    if part not in ("down_blocks", "up_blocks"):
        return _renamed(key, UNET_ENDS)
    i, kind, j, *rest = rest
    name = ".".join(rest)
    first = 3 * int(i) + (part == "down_blocks")
    place = f"{'input' if part == 'down_blocks' else 'output'}_blocks.{first + int(j)}"
    match kind:
        case "resnets":
            return f"{place}.0.{_renamed(name, RESNET)}"
        case "attentions":
            return f"{place}.1.{name}"
        case "downsamplers":
            return f"input_blocks.{first + 2}.0.{name.replace('conv', 'op')}"
        case "upsamplers":
            return f"output_blocks.{first + 2}.{2 if i in with_attention else 1}.{name}"


def _vae_name(key: str) -> str:
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    side, part, *rest = key.split(".")
    if part == "mid_block":
        kind, j, *rest = rest
        name = ".".join(rest)
        return (
            f"{side}.mid.block_{int(j) + 1}.{name}"
            if kind == "resnets"
            else f"{side}.mid.attn_1.{_renamed(name, VAE_ATTENTION)}"
        )
    if part not in ("down_blocks", "up_blocks"):
        return key
    i, kind, j, *rest = rest
    place = f"{side}.down.{i}" if part == "down_blocks" else f"{side}.up.{3 - int(i)}"
    step = "downsample" if part == "down_blocks" else "upsample"
    return f"{place}.{f'block.{j}' if kind == 'resnets' else step}.{'.'.join(rest)}"


def _clip(encoder: nn.Module, prefix: str) -> dict[str, Tensor]:
    named = {prefix + key.removeprefix("text_model."): value for key, value in encoder.state_dict().items()}
    return named | {f"{prefix}embeddings.position_ids": torch.arange(77)[None]}


def _open_clip(encoder: nn.Module, prefix: str) -> dict[str, Tensor]:
    weights = {key.removeprefix("text_model."): value for key, value in encoder.state_dict().items()}
    width = encoder.config.hidden_size
    projection = weights.pop("text_projection.weight", torch.zeros(width, width))
    named = {f"{prefix}text_projection": projection.T, f"{prefix}logit_scale": torch.tensor(4.6)}
    for key, value in weights.items():
        if key in OPEN_CLIP_ENDS:
            named[prefix + OPEN_CLIP_ENDS[key]] = value
            continue
        _, _, layer, name = key.split(".", 3)
        block = f"{prefix}transformer.resblocks.{layer}."
        if name.startswith("self_attn.q_proj"):
            three = [weights[key.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            named[f"{block}attn.in_proj_{name.rpartition('.')[2]}"] = torch.cat(three)
        elif not name.startswith(("self_attn.k_proj", "self_attn.v_proj")):
            named[block + _renamed(name, OPEN_CLIP)] = value
    return named
