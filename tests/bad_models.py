"""Bad models and LoRA files: headers that lie, pickles, and folders whose tables point elsewhere."""

import json
import os
import pickle
import shutil
import zipfile
from functools import cache
from pathlib import Path

import safetensors.torch
import torch
from bad import bad, write

from app import loras
from lora_sd import run
from lora_sd.lora import formats
from lora_sd.lora.inspection import inspect
from lora_sd.models import find
from lora_sd.models.load import load

STEM = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
DOWN = {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}
UP = {"dtype": "F32", "shape": [2, 1], "data_offsets": [8, 16]}


def packed(header: bytes, body: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + body


def lora(folder: Path, header: object, body: bytes = bytes(16)) -> None:
    """Looks at a LoRA file with this header, as JSON or as bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    inspect(write(folder / "cat.safetensors", packed(text, body)))


def entries(**changes: object) -> dict[str, object]:
    """A sound header of one adapted layer, with changes to its first tensor."""
    down = {key: value for key, value in {**DOWN, **changes}.items() if value is not ...}
    return {f"{STEM}.lora_down.weight": down, f"{STEM}.lora_up.weight": UP}


def alpha(folder: Path, value: float | list[float], dtype: torch.dtype = torch.float32) -> None:
    tensors = {f"{STEM}.lora_down.weight": torch.ones(1, 2), f"{STEM}.alpha": torch.tensor(value).to(dtype)}
    safetensors.torch.save_file(tensors, folder / "cat.safetensors")
    inspect(folder / "cat.safetensors")


def lora_bytes() -> bytes:
    return packed(json.dumps(entries()).encode(), bytes(16))


# Headers


@bad("cat.safetensors", "is not a safetensors file")
def an_empty_lora_file(folder):
    inspect(write(folder / "cat.safetensors", b""))


@bad("cat.safetensors", "is not a safetensors file")
def a_header_length_of_2_to_the_63(folder):
    inspect(write(folder / "cat.safetensors", (2**63).to_bytes(8, "little") + b"{}"))


@bad("cat.safetensors", "header can't be read")
def a_header_longer_than_the_file(folder):
    inspect(write(folder / "cat.safetensors", (5000).to_bytes(8, "little") + b'{"a": '))


@bad("cat.safetensors", "header is no table")
def a_header_length_of_0(folder):
    inspect(write(folder / "cat.safetensors", bytes(8)))


@bad("cat.safetensors", "is not a safetensors file")
def a_web_page_saved_as_a_model(folder):
    inspect(write(folder / "cat.safetensors", "<!DOCTYPE html><html>Access denied</html>"))


@bad("cat.safetensors", "is cut short")
def a_lora_cut_in_the_middle(folder):
    inspect(write(folder / "cat.safetensors", lora_bytes()[:-3]))


@bad("cat.safetensors", "bytes follow after its last tensor")
def a_lora_with_something_after_its_end(folder):
    inspect(write(folder / "cat.safetensors", lora_bytes() + b"#!/bin/sh"))


@bad("cat.safetensors", "header is no table")
def a_header_that_is_a_list(folder):
    lora(folder, [1, 2])


@bad("cat.safetensors", "header can't be read")
def a_header_nested_100_000_deep(folder):
    lora(folder, b'{"a":' * 100_000)


@bad("cat.safetensors", "header can't be read")
def a_header_that_is_not_UTF_8(folder):
    lora(folder, b'{"caf\xe9": {}}')


@bad("cat.safetensors", "header can't be read")
def a_tensor_named_by_half_a_surrogate_pair(folder):
    lora(folder, b'{"\\ud800": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}')


@bad("cat.safetensors", "has NaN in it")
def a_header_with_NaN(folder):
    lora(folder, entries(shape=[float("nan")]))


@bad("cat.safetensors", "a name is twice")
def a_tensor_described_twice(folder):
    lora(folder, b'{"a": {}, "a": {}}')


@bad("cat.safetensors", "does not describe a tensor")
def an_entry_that_is_a_text(folder):
    lora(folder, {"a": "b"})


@bad("cat.safetensors", "does not describe a tensor")
def an_entry_without_a_number_format(folder):
    lora(folder, entries(dtype=...))


@bad("cat.safetensors", "does not describe a tensor")
def an_entry_without_a_shape(folder):
    lora(folder, entries(shape=...))


@bad("cat.safetensors", "does not describe a tensor")
def an_entry_with_three_offsets(folder):
    lora(folder, entries(data_offsets=[0, 8, 16]))


@bad("cat.safetensors", "unknown number format")
def a_number_format_that_does_not_exist(folder):
    lora(folder, entries(dtype="F33"))


@bad("cat.safetensors", "can't be right")
def a_negative_offset(folder):
    lora(folder, entries(data_offsets=[-8, 0]))


@bad("cat.safetensors", "can't be right")
def a_shape_of_true_and_false(folder):
    lora(folder, entries(shape=[True, 2]))


@bad("cat.safetensors", "can't be right")
def a_shape_of_fractions(folder):
    lora(folder, entries(shape=[1.0, 2.0]))


@bad("cat.safetensors", "can't be right")
def a_side_of_10_to_the_30(folder):
    lora(folder, entries(shape=[10**30, 2]))


@bad("cat.safetensors", "can't be right")
def a_tensor_of_a_thousand_dimensions(folder):
    lora(folder, entries(shape=[1] * 999 + [2]))


@bad("cat.safetensors", "does not fit its bytes")
def sides_whose_product_overflows(folder):
    lora(folder, entries(shape=[2**40, 2**40, 0], data_offsets=[0, 0]))


@bad("cat.safetensors", "does not fit its bytes")
def a_shape_larger_than_its_bytes(folder):
    lora(folder, entries(shape=[100, 200]))


@bad("cat.safetensors", "does not begin where")
def tensors_that_overlap(folder):
    lora(folder, {"a": DOWN, "b": {**UP, "data_offsets": [4, 12]}})


@bad("cat.safetensors", "does not begin where")
def a_hole_between_tensors(folder):
    lora(folder, {"a": DOWN, "b": {**UP, "data_offsets": [12, 20]}}, bytes(20))


@bad("cat.safetensors", "metadata is not a table of texts")
def metadata_that_is_a_list(folder):
    lora(folder, {"__metadata__": [1], **entries()})


@bad("cat.safetensors", "metadata is not a table of texts")
def metadata_with_a_number(folder):
    lora(folder, {"__metadata__": {"ss_steps": 5}, **entries()})


@bad("cat�.safetensors", "is cut short")
def a_damaged_lora_whose_name_turns_around(folder):
    inspect(write(folder / "cat\u202e.safetensors", lora_bytes()[:-3]))


# LoRA files


@bad("gone.safetensors", "There is no file")
def a_lora_that_is_not_there(folder):
    inspect(folder / "gone.safetensors")


@bad("cat.safetensors", "There is no file")
def a_pipe_instead_of_a_lora(folder):
    os.mkfifo(folder / "cat.safetensors")
    inspect(folder / "cat.safetensors")


@bad("The LoRA", "no path has")
def a_lora_with_NUL_in_its_path(folder):
    inspect(f"{folder}/cat\0.safetensors")


@bad("cat.pt", "may hold program code")
def a_lora_that_is_a_pickle(folder):
    torch.save({"a": torch.ones(1)}, folder / "cat.pt")
    inspect(folder / "cat.pt")


@bad("cat.safetensors", "is not a LoRA file")
def a_file_without_any_tensor(folder):
    lora(folder, {}, b"")


@bad("cat.safetensors", "which no LoRA has")
def a_lora_of_one_dimension(folder):
    lora(folder, entries(shape=[2]))


@bad("cat.safetensors", "which no LoRA has")
def a_lora_of_rank_0(folder):
    header = {f"{STEM}.lora_down.weight": {**DOWN, "shape": [0, 2], "data_offsets": [0, 0]}}
    lora(folder, header, b"")


@bad("cat.safetensors", "must be one number above 0")
def an_alpha_of_0(folder):
    alpha(folder, 0.0)


@bad("cat.safetensors", "must be one number above 0")
def a_negative_alpha(folder):
    alpha(folder, -4.0)


@bad("cat.safetensors", "must be one number above 0")
def an_alpha_that_is_NaN(folder):
    alpha(folder, float("nan"))


@bad("cat.safetensors", "must be one number above 0")
def an_alpha_without_end(folder):
    alpha(folder, float("inf"))


@bad("cat.safetensors", "is 0 numbers")
def an_alpha_without_a_number(folder):
    alpha(folder, [])


@bad("cat.safetensors", "convert the file to fp16")
def an_alpha_in_8_bits(folder):
    alpha(folder, 4.0, torch.float8_e4m3fn)


@bad("cat.safetensors", "larger than it can be")
def an_alpha_of_a_million_numbers(folder):
    alpha(folder, [1.0] * 1_000_000)


@cache
def _starter():
    return load("starter")


def _layer(name: str = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"):
    return _starter().parts()["unet"].get_submodule(name.removeprefix("unet.")).weight


def into_model(
    folder: Path, down: torch.Tensor, up: torch.Tensor, config: str = "{}", **more: torch.Tensor
) -> None:
    """Puts a LoRA of one layer on the starter model."""
    keys = {f"{STEM}.lora_down.weight": down.contiguous(), f"{STEM}.lora_up.weight": up.contiguous()}
    keys |= {f"{STEM}.{name}": tensor for name, tensor in more.items()}
    safetensors.torch.save_file(keys, folder / "cat.safetensors", {"lora_adapter_metadata": config})
    formats.load(folder / "cat.safetensors", _starter().parts(), _starter().family)


def with_config(folder: Path, config: str) -> None:
    out, inner = _layer().shape
    into_model(folder, torch.ones(4, inner), torch.ones(out, 4), config)


@bad("cat.safetensors", "not finite numbers")
def weights_that_are_NaN(folder):
    out, inner = _layer().shape
    into_model(folder, torch.full((4, inner), torch.nan), torch.ones(out, 4))


@bad("cat.safetensors", "stored as int8")
def weights_that_are_whole_numbers(folder):
    out, inner = _layer().shape
    into_model(folder, torch.ones(4, inner, dtype=torch.int8), torch.ones(out, 4))


@bad("cat.safetensors", "stored as complex64")
def weights_that_are_complex_numbers(folder):
    out, inner = _layer().shape
    into_model(folder, torch.ones(4, inner), torch.ones(out, 4, dtype=torch.complex64))


@bad("cat.safetensors", "does not fit this model")
def an_up_matrix_that_lies_on_its_side(folder):
    out, inner = _layer().shape
    into_model(folder, torch.ones(4, inner), torch.ones(4, out))


@bad("cat.safetensors", "does not fit this model")
def an_up_matrix_of_another_rank(folder):
    out, inner = _layer().shape
    into_model(folder, torch.ones(4, inner), torch.ones(out, 3))


@bad("cat.safetensors", "does not fit this model")
def an_up_matrix_that_is_one_number(folder):
    into_model(folder, torch.ones(4, _layer().shape[1]), torch.tensor(1.0))


def with_magnitudes(folder: Path, magnitudes: torch.Tensor) -> None:
    out, inner = _layer().shape
    into_model(folder, torch.ones(4, inner), torch.ones(out, 4), dora_scale=magnitudes)


@bad("cat.safetensors", "has magnitudes of the shape")
def magnitudes_of_a_DoRA_for_5_channels(folder):
    with_magnitudes(folder, torch.ones(5, 1))


@bad("cat.safetensors", "has magnitudes of the shape")
def magnitudes_of_a_DoRA_that_are_one_number(folder):
    with_magnitudes(folder, torch.tensor(1.0))


@bad("cat.safetensors", "not finite numbers")
def magnitudes_of_a_DoRA_that_are_NaN(folder):
    with_magnitudes(folder, torch.full((len(_layer()), 1), torch.nan))


@bad("cat.safetensors", "holds no LoRA for")
def layers_that_the_model_does_not_have(folder):
    keys = {
        "lora_unet_gone.lora_down.weight": torch.ones(4, 8),
        "lora_unet_gone.lora_up.weight": torch.ones(8, 4),
    }
    safetensors.torch.save_file(keys, folder / "cat.safetensors")
    formats.load(folder / "cat.safetensors", _starter().parts(), _starter().family)


@bad("cat.safetensors", "is not JSON")
def a_PEFT_config_that_is_no_JSON(folder):
    with_config(folder, "{")


@bad("cat.safetensors", "is no table")
def a_PEFT_config_that_is_a_list(folder):
    with_config(folder, "[]")


@bad("cat.safetensors", "is not JSON")
def a_PEFT_config_nested_100_000_deep(folder):
    with_config(folder, "[" * 100_000)


@bad("cat.safetensors", "which is no layer's name")
def an_alpha_pattern_that_would_run_for_years(folder):
    with_config(folder, json.dumps({"unet.alpha_pattern": {"(([a-z_.0-9]+)*)*!": 4}}))


@bad("cat.safetensors", "no table of at most")
def fifty_thousand_alpha_patterns(folder):
    with_config(folder, json.dumps({"unet.alpha_pattern": {f"layer{n}": 4 for n in range(50_000)}}))


@bad("cat.safetensors", "is not a number above 0")
def a_PEFT_alpha_that_is_a_text(folder):
    with_config(folder, json.dumps({"unet.lora_alpha": "a lot"}))


@bad("cat.safetensors", "cut short")
def a_damaged_lora_brought_to_the_page(folder):
    loras.bring(write(folder / "cat.safetensors", lora_bytes()[:-3]))


@bad("config.toml", "the only kind that is safe to open")
def the_id_of_a_lora_that_leads_out_of_its_run(folder):
    run_id = "20260101-120000-cat"
    write(run.home() / "runs" / run_id / "config.toml", "")
    loras.file(f"{run_id}/../config.toml")


# Models


@bad("model", "no path has")
def a_model_with_NUL_in_its_path(folder):
    find.describe("cat\0.safetensors")


@bad("model", "too long for a path")
def a_model_path_of_5_000_letters(folder):
    find.describe("a" * 5000)


@bad("~nobody-here/model", "no user of that name")
def the_home_of_a_user_that_does_not_exist(folder):
    find.describe("~nobody-here/model")


@bad("some/model", "python -m lora_sd download some/model")
def a_hub_model_that_was_not_downloaded(folder):
    find.describe("some/model")


@bad("aaaa/aaaa", "There is no model at")
def a_hub_model_with_a_name_of_400_letters(folder):
    find.describe("a" * 200 + "/" + "a" * 200)


@bad("cat.safetensors", "is not a file that can be read")
def a_pipe_instead_of_a_model(folder):
    os.mkfifo(folder / "cat.safetensors")
    find.describe(folder / "cat.safetensors")


@bad("loop.safetensors", "There is no model at")
def a_link_to_itself(folder):
    (folder / "loop.safetensors").symlink_to(folder / "loop.safetensors")
    find.describe(folder / "loop.safetensors")


@bad("cat.txt", "is not a model")
def a_text_file_as_a_model(folder):
    find.describe(write(folder / "cat.txt", "hello"))


@bad("cat.safetensors", "has no first layer")
def a_checkpoint_without_a_first_layer(folder):
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    entry = {"dtype": "F16", "shape": [2, 768], "data_offsets": [0, 3072]}
    find.describe(write(folder / "cat.safetensors", packed(json.dumps({key: entry}).encode(), bytes(3072))))


@bad("cat.safetensors", "is not a model that this program knows")
def a_cross_attention_of_one_dimension(folder):
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    entry = {"dtype": "F16", "shape": [768], "data_offsets": [0, 1536]}
    find.describe(write(folder / "cat.safetensors", packed(json.dumps({key: entry}).encode(), bytes(1536))))


def checkpoint_of(folder: Path, *keys: str) -> None:
    """A file of these tensors, all of no values."""
    table = {key: {"dtype": "F16", "shape": [0, 768], "data_offsets": [0, 0]} for key in keys}
    find.describe(write(folder / "cat.safetensors", packed(json.dumps(table).encode())))


@bad("cat.safetensors", "is a Flux model")
def a_Flux_model(folder):
    checkpoint_of(folder, "model.diffusion_model.double_blocks.0.img_attn.proj.bias")


@bad("cat.safetensors", "is a Stable Diffusion 3 model")
def a_Stable_Diffusion_3_model(folder):
    checkpoint_of(folder, "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight")


@bad("cat.safetensors", "is a VAE")
def a_VAE_as_a_base_model(folder):
    checkpoint_of(folder, "decoder.conv_in.weight", "encoder.conv_in.weight")


@bad("cat.safetensors", "is a ControlNet")
def a_ControlNet_as_a_base_model(folder):
    checkpoint_of(folder, "control_model.time_embed.0.weight")


@bad("cat.safetensors", "choose the fp16 version")
def a_model_in_4_bits(folder):
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    checkpoint_of(folder, key, f"{key}.absmax", f"{key}.quant_state.bitsandbytes__nf4")


@bad("cat.gguf", "is a GGUF file, whose weights are quantised")
def a_GGUF_file(folder):
    find.describe(write(folder / "cat.gguf", b"GGUF"))


class _Code:
    def __reduce__(self):
        return (os.system, ("echo this must never run",))


@bad("cat.ckpt", "holds program code and was not opened")
def a_checkpoint_that_runs_a_program(folder):
    load(str(write(folder / "cat.ckpt", pickle.dumps(_Code(), protocol=2))))


@bad("cat.ckpt", "is damaged")
def a_checkpoint_of_random_bytes(folder):
    load(str(write(folder / "cat.ckpt", bytes(range(256)) * 4)))


@bad("cat.ckpt", "is damaged")
def a_checkpoint_that_unpacks_to_a_hundred_times_its_size(folder):
    torch.save({"a": torch.zeros(2**20)}, folder / "plain.pt")
    with (
        zipfile.ZipFile(folder / "plain.pt") as plain,
        zipfile.ZipFile(folder / "cat.ckpt", "w", 8) as squeezed,
    ):
        for name in plain.namelist():
            squeezed.writestr(name, plain.read(name))
    load(str(folder / "cat.ckpt"))


@bad("cat.ckpt", "is not a model that this program knows")
def a_checkpoint_whose_tensor_repeats_one_number_a_billion_times(folder):
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    torch.save({key: torch.zeros(1, 1).expand(2**30, 768)}, folder / "cat.ckpt")
    load(str(folder / "cat.ckpt"))


def model_folder(folder: Path, file: str, content: str) -> str:
    """The starter model with another file in it; its weights are links."""
    path = folder / "model"
    shutil.copytree(find.STARTER, path, copy_function=os.symlink)
    (path / file).unlink(missing_ok=True)
    write(path / file, content)
    return str(path)


@bad("model", "has no model_index.json")
def a_folder_without_a_model(folder):
    find.describe(folder)


@bad("model_index.json", "it is no table")
def a_model_index_that_is_a_list(folder):
    find.describe(model_folder(folder, "model_index.json", "[1, 2]"))


@bad("model_index.json", "it is not JSON")
def a_model_index_nested_100_000_deep(folder):
    find.describe(model_folder(folder, "model_index.json", "[" * 100_000))


@bad("model", "is made for")
def a_pipeline_named_by_a_script(folder):
    find.describe(model_folder(folder, "model_index.json", '{"_class_name": "<script>alert(1)</script>"}'))


@bad("model", "is a Flux model")
def a_folder_of_a_Flux_model(folder):
    find.describe(model_folder(folder, "model_index.json", '{"_class_name": "FluxPipeline"}'))


@bad("model", "is made for HatPipeline")
def a_folder_of_a_pipeline_that_nobody_knows(folder):
    find.describe(model_folder(folder, "model_index.json", '{"_class_name": "HatPipeline"}'))


@bad("model", "is a ControlNet alone")
def a_folder_of_a_ControlNet(folder):
    write(folder / "model" / "config.json", '{"_class_name": "ControlNetModel"}')
    find.describe(folder / "model")


@bad("model", "instruct-pix2pix")
def a_folder_whose_U_Net_edits_pictures(folder):
    find.describe(model_folder(folder, "unet/config.json", '{"in_channels": 8}'))


@bad("model", "a flow-matching model")
def a_folder_that_matches_flows(folder):
    text = '{"_class_name": "FlowMatchEulerDiscreteScheduler"}'
    find.describe(model_folder(folder, "scheduler/scheduler_config.json", text))


INDEX = "unet/diffusion_pytorch_model.safetensors.index.json"


@bad("diffusion_pytorch_model.safetensors.index.json", "which is none beside it")
def a_table_of_weights_that_leads_out_of_the_folder(folder):
    find.describe(model_folder(folder, INDEX, '{"weight_map": {"a": "../../secret.safetensors"}}'))


@bad("diffusion_pytorch_model.safetensors.index.json", "which is none beside it")
def a_table_of_weights_with_an_absolute_path(folder):
    find.describe(model_folder(folder, INDEX, '{"weight_map": {"a": "/etc/passwd"}}'))


@bad("diffusion_pytorch_model.safetensors.index.json", "which is none beside it")
def a_table_of_weights_that_is_a_number(folder):
    find.describe(model_folder(folder, INDEX, '{"weight_map": 5}'))


@bad("config.json", "it is no table")
def a_component_config_that_is_a_text(folder):
    find.describe(model_folder(folder, "unet/config.json", '"hello"'))


@bad("model", "-channel model")
def a_number_of_channels_that_is_a_list(folder):
    find.describe(model_folder(folder, "unet/config.json", '{"in_channels": [4]}'))


@bad("model", "only models that predict epsilon or v_prediction")
def a_model_that_predicts_something_else(folder):
    find.describe(model_folder(folder, "scheduler/scheduler_config.json", '{"prediction_type": "flow"}'))


@bad("scheduler", "must be 2 to 10,000")
def a_scheduler_of_a_million_million_steps(folder):
    text = '{"num_train_timesteps": 1000000000000}'
    find.describe(model_folder(folder, "scheduler/scheduler_config.json", text))


@bad("scheduler_config.json", "no scheduler takes")
def a_scheduler_whose_betas_are_texts(folder):
    load(model_folder(folder, "scheduler/scheduler_config.json", '{"beta_start": "a", "beta_end": []}'))


@bad("unet", "don't belong together")
def a_U_Net_config_of_another_size(folder):
    config = json.loads((find.STARTER / "unet" / "config.json").read_text())
    config["block_out_channels"] = [width * 2 for width in config["block_out_channels"]]
    load(model_folder(folder, "unet/config.json", json.dumps(config)))


@bad("tokenizer", "don't belong together")
def a_tokenizer_that_is_a_picture(folder):
    load(model_folder(folder, "tokenizer/tokenizer.json", "\x89PNG"))
