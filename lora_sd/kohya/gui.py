"""A preset of kohya_ss, the graphical interface of sd-scripts → options. It has names of its own, and 0 and "" mean not set."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from .values import decimal, flag, is_set

MARKS = ("LoRA_type", "max_resolution", "lr_warmup", "stop_text_encoder_training_pct", "sdxl_no_half_vae")
OTHER_MODELS = {"flux1_checkbox": "Flux", "sd3_checkbox": "Stable Diffusion 3"}
RENAMED = {
    "optimizer": "optimizer_type",
    "max_resolution": "resolution",
    "lora_network_weights": "network_weights",
    "stop_text_encoder_training_pct": "stop_text_encoder_training",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
    "sdxl_no_half_vae": "no_half_vae",
}
OFF_AT_0 = {
    *("noise_offset", "adaptive_noise_scale", "multires_noise_iterations", "multires_noise_discount"),
    *("min_snr_gamma", "ip_noise_gamma", "scale_weight_norms", "network_dropout", "max_timestep", "seed"),
    *("unet_lr", "text_encoder_lr", "max_train_epochs", "max_train_steps", "lr_warmup_steps", "keep_tokens"),
    *("sample_every_n_steps", "sample_every_n_epochs", "save_every_n_steps", "save_every_n_epochs"),
    *("save_last_n_steps", "save_last_n_epochs", "save_last_n_steps_state", "save_last_n_epochs_state"),
    *("caption_dropout_rate", "caption_dropout_every_n_epochs", "vae_batch_size", "dataset_repeats"),
    *("max_data_loader_n_workers", "min_timestep", "token_warmup_step", "stop_text_encoder_training"),
    *("v_pred_like_loss", "token_warmup_min"),
}
# Which of a preset's values each LoRA_type hands on as network_args
BLOCKS = (
    *("down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_lr_zero_threshold"),
    *("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas"),
)
PLAIN = (
    *(*BLOCKS, "rank_dropout", "module_dropout"),
    *("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio"),
)
CONV = ("conv_dim", "conv_alpha")
LYCORIS = (
    *(*CONV, "rank_dropout", "module_dropout", "factor", "decompose_both", "full_matrix", "use_tucker"),
    *("unbalanced_factorization", "use_cp", "use_scalar", "rank_dropout_scale", "train_norm", "dora_wd"),
    *("bypass_mode", "constraint", "rescaled"),
)
KINDS = {  # LoRA_type -> network_module, and what it hands on
    "Standard": ("networks.lora", PLAIN),
    "Kohya LoCon": ("networks.lora", (*PLAIN, *CONV)),
    "LoRA-FA": ("networks.lora_fa", (*PLAIN, *CONV)),
    "Kohya DyLoRA": ("networks.dylora", (*CONV, "unit")),
}
ALGOS = {"ia3": "ia3", "native fine-tuning": "full", "diag-oft": "diag-oft"}  # else the name in small letters
IDLE = {"factor": -1, "unit": 1}  # values of network_args that do nothing; of the others it is 0
# Of the interface, or of starting the program: nothing that a training could tell
OF_THE_INTERFACE = {
    *("LoRA_type", "LyCORIS_preset", "additional_parameters", "dynamo_mode", "dynamo_use_dynamic", "gpu_ids"),
    *("dynamo_use_fullgraph", "extra_accelerate_launch_args", "main_process_port", "model_list", "multi_gpu"),
    *("noise_offset_type", "num_cpu_threads_per_process", "num_machines", "num_processes", "save_as_bool"),
    *(
        "use_wandb",
        "no_token_padding",
        "headless",
        "sdxl",
        "epoch",
        "lr_warmup",
        "sample_prompts",
        "constrain",
    ),
    *(*LYCORIS, *PLAIN, *OTHER_MODELS, "unit"),
}


class Found(NamedTuple):
    options: dict[str, Any]
    called: dict[str, str]  # option -> what the preset calls it
    sdxl: bool
    prompts: str  # those of previews, which a preset has in itself


def is_preset(table: Mapping[str, Any]) -> bool:
    return any(mark in table for mark in MARKS)


def options(table: Mapping[str, Any]) -> Found:
    """What the interface would start sd-scripts with."""
    for key, name in OTHER_MODELS.items():
        if _on(table.get(key)):
            raise ValueError(
                f"This preset is for {name}; only those for Stable Diffusion 1.x, 2.x and SDXL can be used."
            )
    if "LoRA_type" not in table and "network_dim" not in table:
        raise ValueError("This preset is not for a LoRA: it has no LoRA_type; choose one of the LoRA tab.")
    called = {option: name for name, option in RENAMED.items() if name in table}
    found = {RENAMED.get(key, key): value for key, value in table.items() if key not in OF_THE_INTERFACE}
    found = {name: value for name, value in found.items() if _counts(name, value)}
    for name in _other_noise(table):
        found.pop(name, None)
    if _number(found.get("max_token_length")) == 75:
        del found["max_token_length"]
    if found.get("xformers") == "none":
        del found["xformers"]
    found |= _network(table) | _scope(table) | _length(table, called) | _schedule(table, found, called)
    prompts = table.get("sample_prompts")
    return Found(found, called, _on(table.get("sdxl")), prompts if isinstance(prompts, str) else "")


def _counts(name: str, value: Any) -> bool:
    return is_set(value) and value is not False and not (name in OFF_AT_0 and _number(value) == 0)


def _on(value: Any) -> bool:
    try:
        return flag(value)
    except ValueError:
        return False


def _number(value: Any) -> float | None:
    try:
        return decimal(value)
    except ValueError:
        return None


def _other_noise(table: Mapping[str, Any]) -> tuple[str, ...]:
    """The kind of noise that is not chosen is not handed on."""
    multires = ("multires_noise_iterations", "multires_noise_discount")
    offset = ("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale")
    return {"Original": multires, "Multires": offset}.get(str(table.get("noise_offset_type")), ())


def _scope(table: Mapping[str, Any]) -> dict[str, Any]:
    """A rate of 0 for one of the two parts leaves it out; for both, they share learning_rate."""
    unet, text = (bool(_number(table.get(name))) for name in ("unet_lr", "text_encoder_lr"))
    if unet == text:
        return {}
    return {"network_train_unet_only" if unet else "network_train_text_encoder_only": True}


def _length(table: Mapping[str, Any], called: dict[str, str]) -> dict[str, Any]:
    """`epoch` counts where neither of sd-scripts' own two is set."""
    theirs = any(_number(table.get(name)) for name in ("max_train_epochs", "max_train_steps"))
    if theirs or not _number(table.get("epoch")):
        return {}
    called["max_train_epochs"] = "epoch"
    return {"max_train_epochs": table["epoch"]}


def _schedule(table: Mapping[str, Any], found: Mapping[str, Any], called: dict[str, str]) -> dict[str, Any]:
    """`lr_warmup` is in percent, and not for constant; restarts that are not set are as many as epochs."""
    more: dict[str, Any] = {}
    percent = _number(table.get("lr_warmup"))
    if percent and "lr_warmup_steps" not in found and table.get("lr_scheduler") != "constant":
        called["lr_warmup_steps"] = "lr_warmup"
        more["lr_warmup_steps"] = percent / 100
    if table.get("lr_scheduler_num_cycles") == "" and _number(table.get("epoch")):
        more["lr_scheduler_num_cycles"] = table["epoch"]
    return more


def _network(table: Mapping[str, Any]) -> dict[str, Any]:
    name = str(table.get("LoRA_type") or "Standard")
    args: dict[str, Any] = {}
    if name.startswith("LyCORIS/"):
        module, takes = "lycoris.kohya", LYCORIS
        algo = name.removeprefix("LyCORIS/").lower()
        args = {"algo": ALGOS.get(algo, algo), "preset": table.get("LyCORIS_preset")}
    else:
        module, takes = KINDS.get(name, (name, ()))
    args |= {key: table[key] for key in takes if key in table and not _idle(key, table[key])}
    args = {key: value for key, value in args.items() if is_set(value)}
    return {"network_module": module} | ({"network_args": args} if args else {})


def _idle(key: str, value: Any) -> bool:
    return value is False or (key != "conv_alpha" and _number(value) == IDLE.get(key, 0))
