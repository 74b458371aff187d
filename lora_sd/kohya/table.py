"""The names of sd-scripts (kohya) beside ours: the one table that the import and docs/settings.md are made from.

Facts of sd-scripts 0.10.1: what each option means there, what it is unless set, and what differs here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from .values import decimal, flag, whole, word

Read = Callable[[Any], Any]


class Option(NamedTuple):
    """An option of theirs."""

    ours: tuple[str, ...]  # the settings that say the same; none where it has no meaning here
    read: Read | None = None  # their value -> ours; None where it takes more than that option to tell
    but: str = ""  # what differs; or why it has no meaning here
    unset: Any = None  # our setting's value where theirs is not given, if it is not our default


def same(ours: str, read: Read, but: str = "", *, unset: Any = None) -> Option:
    return Option((ours,), read, but, unset)


def part(*ours: str, but: str = "") -> Option:
    """One of several options that make a setting together; `translate.py` and what it calls sees to it."""
    return Option(ours, None, but)


def nothing(why: str) -> Option:
    return Option((), None, why)


def epochs(value: Any) -> str:
    return "1 epoch" if whole(value) == 1 else f"{whole(value)} epochs"


def prediction(value: Any) -> str | None:
    return "v_prediction" if flag(value) else None


def zero_snr(value: Any) -> bool | None:
    return flag(value) or None  # off there is the default, also for models that have it; here they are found


def clip_skip(value: Any) -> int | None:
    return None if whole(value) <= 1 else whole(value)


def precision(value: Any) -> str:
    return {"no": "fp32"}.get(word(value), word(value))


def file_precision(value: Any) -> str:
    return {"float": "fp32"}.get(word(value), word(value))


def level(value: Any) -> str:
    return "minimal" if flag(value) else "full"


def upside_down(value: Any) -> bool:
    return not flag(value)


def sampler(value: Any) -> str:
    return SAMPLERS.get(word(value), word(value))


SAMPLERS = {
    "k_euler": "euler",
    "k_euler_a": "euler_a",
    "dpmsolver++": "dpmpp_2m_karras",
    "dpmsolver": "dpmpp_2m_karras",
    "k_dpm_2": "dpmpp_2m_karras",
    "pndm": "ddim",
    "lms": "euler",
    "k_lms": "euler",
    "heun": "euler",
}

CACHED = "latents are always cached here, and known by the picture's content"
TEXT_CACHED = "text states are always cached here while the text encoders do not learn"
ATTENTION = "attention is always PyTorch's own fast one here"
MEMORY = "machine.memory saves as much as the card needs, by itself"
LOADER = "cached latents need no processes to load them"
HALF = "what learns is always in fp32 here"
COMPILED = "the step is recorded and replayed here (machine.cuda_graph)"
CLUSTER = "several cards are those of the launcher that starts lora_sd"
LOGS = "every run keeps its own log, and nothing is sent anywhere"
NEVER_SENT = "nothing is sent anywhere"
STATES = "all that a resume needs is saved by itself (save.state_every)"
RESUMED = "a run goes on with: python -m lora_sd resume RUN"
NO_AUGMENTATION = "pictures are not recoloured here"
TITLES = "the header is filled in by itself (output.metadata)"

OF_OTHERS = (
    *(
        "apply_t5_attn_mask",
        "blocks_to_swap",
        "clip_l",
        "clip_g",
        "discrete_flow_shift",
        "double_blocks_to_swap",
    ),
    *("guidance_scale", "logit_mean", "logit_std", "mode_scale", "model_prediction_type", "sigmoid_scale"),
    *("sd3_text_encoder_batch_size", "single_blocks_to_swap", "split_mode", "t5xxl", "t5xxl_dtype"),
    *("t5xxl_max_token_length", "timestep_sampling", "train_blocks", "weighting_scheme", "split_qkv"),
    *("fused_optimizer_groups", "ae", "t5xxl_device", "enable_all_linear", "train_t5xxl", "mem_eff_save"),
)

OPTIONS: dict[str, Option] = {
    # the model
    "pretrained_model_name_or_path": same("model.base", word),
    "v_parameterization": same("model.prediction", prediction),
    "clip_skip": same("model.clip_skip", clip_skip),
    "v2": nothing("the family is read from the model"),
    "vae": nothing("the VAE of the model is used"),
    "no_half_vae": nothing("the VAE never works in fp16 here"),
    "zero_terminal_snr": same("model.zero_snr", zero_snr),
    "base_weights": nothing("merge those LoRAs into the model first"),
    "base_weights_multiplier": nothing("merge those LoRAs into the model first"),
    "tokenizer_cache_dir": nothing("the tokenizers come with the program"),
    "disable_mmap_load_safetensors": nothing("files are read as suits the system"),
    # the pictures
    "train_data_dir": part("data.images"),
    "reg_data_dir": part("data.regularisation"),
    "dataset_config": part("data.folders"),
    "prior_loss_weight": same("data.regularisation_weight", decimal),
    "resolution": part("data.resolution"),
    "enable_bucket": same("data.buckets", flag, unset=False),
    "min_bucket_reso": part("data.bucket_min"),
    "max_bucket_reso": part("data.bucket_max"),
    "bucket_reso_steps": part("data.bucket_step"),
    "bucket_no_upscale": same(
        "data.enlarge", upside_down, "the smallest side, which is left aside there, holds"
    ),
    "flip_aug": same("data.flip", flag),
    "random_crop": part("data.crops"),
    "alpha_mask": same(
        "data.alpha_mask", flag, "the loss is that of what the mask covers, and there of the whole picture"
    ),
    "masked_loss": part("data.masks"),
    "conditioning_data_dir": part("data.masks"),
    "validation_split": same("validate.split", decimal),
    "validate_every_n_steps": same("validate.every", whole),
    "validate_every_n_epochs": same("validate.every", epochs),
    "validation_seed": nothing("the seed of the run chooses what is held out"),
    "max_validation_steps": nothing("every held-out picture is measured"),
    "in_json": nothing("captions are read from files beside the pictures, or a metadata.jsonl"),
    "dataset_repeats": nothing("it is for in_json"),
    "dataset_class": nothing("there is one way to read pictures here"),
    "cache_info": nothing("sizes are remembered by themselves"),
    "color_aug": nothing(NO_AUGMENTATION),
    "face_crop_aug_range": nothing("pictures are not cropped to faces here"),
    "resize_interpolation": nothing("pictures are always resized by Lanczos here"),
    "debug_dataset": nothing("it shows pictures instead of training"),
    "cache_latents": nothing(CACHED),
    "cache_latents_to_disk": nothing(CACHED),
    "skip_cache_check": nothing(CACHED),
    "vae_batch_size": nothing(CACHED),
    "max_data_loader_n_workers": nothing(LOADER),
    "persistent_data_loader_workers": nothing(LOADER),
    # the captions
    "caption_extension": part(but=".txt, .caption and .json are read by themselves"),
    "caption_extention": part(but=".txt, .caption and .json are read by themselves"),
    "caption_separator": part(but="tags are always parted by commas here"),
    "caption_prefix": same("captions.prefix", word, "it stays in front, where shuffling moves it there"),
    "caption_suffix": same("captions.suffix", word, "it stays at the end, where shuffling moves it there"),
    "shuffle_caption": same("captions.shuffle", flag),
    "keep_tokens": part("captions.keep"),
    "keep_tokens_separator": same("captions.keep_separator", word),
    "caption_tag_dropout_rate": same("captions.tag_dropout", decimal),
    "caption_dropout_rate": same("captions.dropout", decimal),
    "enable_wildcard": part("captions.wildcards", "captions.lines"),
    "weighted_captions": same(
        "captions.weights", flag, "the mean of the text states is kept, as A1111 does and sd-scripts does not"
    ),
    "caption_dropout_every_n_epochs": nothing(
        "captions are left out by chance (captions.dropout), never for a whole epoch"
    ),
    "secondary_separator": nothing("tags move one by one here"),
    "token_warmup_min": nothing("captions are whole from the first step on"),
    "token_warmup_step": nothing("captions are whole from the first step on"),
    "max_token_length": nothing("captions of any length are read whole here"),
    "cache_text_encoder_outputs": part("lora.text_encoders", but=TEXT_CACHED),
    "cache_text_encoder_outputs_to_disk": nothing(TEXT_CACHED),
    # the LoRA
    "network_module": part("lora.targets", "lora.train_down"),
    "network_dim": part("lora.rank"),
    "network_alpha": part("lora.alpha"),
    "network_args": nothing("each of its arguments has a line of its own"),
    "network_dropout": same(
        "lora.dropout",
        decimal,
        "it leaves out numbers that the first matrix reads, there those that it gives",
    ),
    "scale_weight_norms": same("lora.max_norm", decimal),
    "network_train_unet_only": part("lora.text_encoders"),
    "network_train_text_encoder_only": part("lora.text_encoders", "lora.ranks"),
    "network_weights": same(
        "lora.start", word, "it goes on at the strength of that file, there at the alpha that is set"
    ),
    "dim_from_weights": nothing("a LoRA to start from may have any ranks (lora.start)"),
    "stop_text_encoder_training": nothing("the LoRA scripts there do not have it either"),
    # how it learns
    "learning_rate": part("optim.learning_rate"),
    "unet_lr": part("optim.learning_rate"),
    "text_encoder_lr": part("optim.text_encoder_rate"),
    "optimizer_type": part("optim.optimizer"),
    "use_8bit_adam": part("optim.optimizer"),
    "use_lion_optimizer": part("optim.optimizer"),
    "optimizer_args": part("optim.arguments", "optim.weight_decay"),
    "lr_scheduler": part("optim.schedule"),
    "lr_scheduler_type": part("optim.schedule"),
    "lr_scheduler_num_cycles": part("optim.cycles"),
    "lr_scheduler_power": part("optim.power"),
    "lr_scheduler_args": nothing("the schedules here have no arguments but optim.cycles and optim.power"),
    "lr_scheduler_timescale": nothing("it is for a schedule that is not here"),
    "lr_scheduler_min_lr_ratio": nothing("the schedules here end at 0"),
    "lr_decay_steps": nothing("it is for a schedule that is not here"),
    "lr_warmup_steps": part("optim.warmup"),
    "max_train_steps": part("optim.steps"),
    "max_train_epochs": part("optim.epochs"),
    "train_batch_size": same("optim.batch_size", whole),
    "gradient_accumulation_steps": same("optim.accumulation", whole),
    "max_grad_norm": same("optim.max_grad_norm", decimal),
    "seed": same("seed", whole),
    "fused_backward_pass": nothing("it does nothing in the LoRA scripts there either"),
    # the noise and the loss
    "noise_offset": same("noise.offset", decimal),
    "noise_offset_random_strength": same(
        "noise.offset_random", flag, "it is drawn for each picture, there for each batch"
    ),
    "adaptive_noise_scale": part("noise.offset_adaptive"),
    "multires_noise_iterations": same("noise.pyramid", whole),
    "multires_noise_discount": same("noise.pyramid_discount", decimal),
    "ip_noise_gamma": same("noise.perturbation", decimal),
    "ip_noise_gamma_random_strength": same(
        "noise.perturbation_random", flag, "it is drawn for each picture, there for each batch"
    ),
    "min_timestep": same("noise.min_timestep", whole),
    "max_timestep": same("noise.max_timestep", whole),
    "min_snr_gamma": same("loss.min_snr", decimal, unset=0.0),
    "debiased_estimation_loss": part("loss.weighting"),
    "loss_type": same("loss.kind", word),
    "huber_c": same("loss.huber_c", decimal),
    "huber_schedule": same("loss.huber_schedule", word),
    "huber_scale": part("loss.huber_scale", but="there it acts for no schedule but exponential and constant"),
    "scale_v_pred_loss_like_noise_pred": nothing(
        "v-prediction is weighed by loss.min_snr or loss.weighting alone"
    ),
    "v_pred_like_loss": nothing("v-prediction is weighed by loss.min_snr or loss.weighting alone"),
    # the machine
    "mixed_precision": same("machine.precision", precision),
    "full_fp16": nothing(HALF),
    "full_bf16": nothing(HALF),
    "fp8_base": nothing(MEMORY),
    "fp8_base_unet": nothing(MEMORY),
    "gradient_checkpointing": nothing(MEMORY),
    "cpu_offload_checkpointing": nothing(MEMORY),
    "lowram": nothing(MEMORY),
    "highvram": nothing(MEMORY),
    "xformers": nothing(ATTENTION),
    "sdpa": nothing(ATTENTION),
    "mem_eff_attn": nothing(ATTENTION),
    "torch_compile": nothing(COMPILED),
    "dynamo_backend": nothing(COMPILED),
    **dict.fromkeys(
        (
            *("deepspeed", "zero_stage", "offload_optimizer_device", "offload_optimizer_nvme_path"),
            *("offload_param_device", "offload_param_nvme_path", "zero3_init_flag", "zero3_save_16bit_model"),
            *("fp16_master_weights_and_gradients", "ddp_timeout", "ddp_gradient_as_bucket_view"),
            "ddp_static_graph",
        ),
        nothing(CLUSTER),
    ),
    # saving and previews
    "output_dir": same("output.dir", word),
    "output_name": same("output.name", word),
    "no_metadata": same("output.metadata", level),
    "save_precision": same("save.dtype", file_precision),
    "save_every_n_steps": same("save.every", whole),
    "save_every_n_epochs": same("save.every", epochs),
    "save_n_epoch_ratio": nothing('save.every is a number of steps, "25%" or "2 epochs"'),
    "save_last_n_epochs": same("save.keep_last", whole, "it counts files"),
    "save_last_n_steps": nothing("files are not told by how many steps ago they were written"),
    "save_model_as": nothing("LoRAs are always .safetensors files"),
    "save_state": nothing(STATES),
    "save_state_on_train_end": nothing(STATES),
    "save_last_n_epochs_state": nothing(STATES),
    "save_last_n_steps_state": nothing(STATES),
    "resume": nothing(RESUMED),
    "initial_epoch": nothing(RESUMED),
    "initial_step": nothing(RESUMED),
    "skip_until_initial_step": nothing(RESUMED),
    "sample_every_n_steps": same("preview.every", whole),
    "sample_every_n_epochs": same("preview.every", epochs),
    "sample_at_first": nothing("the first previews are always made before the first step"),
    "sample_prompts": part("preview.prompts", "preview.negative", "preview.steps"),
    "sample_sampler": same("preview.sampler", sampler),
    "training_comment": nothing(TITLES),
    **dict.fromkeys(
        (f"metadata_{name}" for name in ("title", "author", "description", "license", "tags")),
        nothing(TITLES),
    ),
    **dict.fromkeys(
        (
            *(
                "logging_dir",
                "log_with",
                "log_prefix",
                "log_tracker_name",
                "log_tracker_config",
                "log_config",
            ),
            *("wandb_run_name", "console_log_level", "console_log_file", "console_log_simple"),
        ),
        nothing(LOGS),
    ),
    **dict.fromkeys(
        (
            *("wandb_api_key", "huggingface_repo_id", "huggingface_repo_type", "huggingface_path_in_repo"),
            *("huggingface_token", "huggingface_repo_visibility", "save_state_to_huggingface"),
            *("resume_from_huggingface", "async_upload"),
        ),
        nothing(NEVER_SENT),
    ),
    **dict.fromkeys(OF_OTHERS, nothing("it is for other models")),
    "config_file": nothing("the file is read, too, where it is found"),
    "output_config": nothing("every run keeps its settings"),
}

# Of network_args; the names of LyCORIS among them.
NETWORK: dict[str, Option] = {
    "conv_dim": part("lora.conv_rank", "lora.targets"),
    "conv_alpha": part("lora.conv_alpha"),
    "rank_dropout": same("lora.rank_dropout", decimal),
    "module_dropout": same("lora.module_dropout", decimal),
    "dropout": OPTIONS["network_dropout"],
    "loraplus_lr_ratio": part("lora.plus_ratio"),
    "loraplus_unet_lr_ratio": part("lora.plus_ratio"),
    "loraplus_text_encoder_lr_ratio": part("lora.plus_ratio"),
    "block_dims": part("lora.ranks"),
    "block_alphas": part("lora.alphas"),
    "conv_block_dims": part("lora.ranks"),
    "conv_block_alphas": part("lora.alphas"),
    "down_lr_weight": part("lora.ranks"),
    "mid_lr_weight": part("lora.ranks"),
    "up_lr_weight": part("lora.ranks"),
    "block_lr_zero_threshold": part("lora.ranks"),
    "algo": nothing("a plain LoRA is trained, which every program reads"),
    "preset": part("lora.targets"),
    "dora_wd": part("lora.dora"),
    "wd_on_output": part("lora.dora"),
    "rs_lora": same("lora.rank_stabilized", flag),
    "unit": nothing("a LoRA of the whole rank is trained; it can be made smaller afterwards"),
    **dict.fromkeys(
        (
            *("use_tucker", "use_cp", "use_conv_cp", "use_scalar", "train_norm"),
            *("rank_dropout_scale", "factor", "decompose_both", "full_matrix", "unbalanced_factorization"),
            *("block_size", "constraint", "rescaled", "bypass_mode", "train_on_input"),
        ),
        nothing("a plain LoRA is trained, which every program reads"),
    ),
}

# Of a dataset_config, where they are not called as on the command line.
DATASET: dict[str, Option] = {
    "batch_size": OPTIONS["train_batch_size"],
    "image_dir": part("data.images", "data.folders"),
    "num_repeats": part("data.folders"),
    "class_tokens": part("data.trigger"),
    "is_reg": part("data.regularisation"),
    "metadata_file": OPTIONS["in_json"],
    "custom_attributes": nothing("loss.keep_base keeps what the base model would answer, for all pictures"),
}
