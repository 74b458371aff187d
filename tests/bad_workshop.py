"""Bad inputs of the workshop: LoRAs that do not belong together, or to a model, and wishes that can't be."""

from pathlib import Path

import safetensors.torch
import torch
from bad import bad, write

from lora_sd.models.find import STARTER
from lora_sd.workshop.analysis import analyse_file
from lora_sd.workshop.combine import Source, combine
from lora_sd.workshop.convert import convert
from lora_sd.workshop.cut import cut
from lora_sd.workshop.edit import edit
from lora_sd.workshop.extract import extract
from lora_sd.workshop.merge import merge
from lora_sd.workshop.resize import resize

LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


def lora(folder: Path, name: str = "cat", out: int = 6, kind: str = "sd15", **others: torch.Tensor) -> Path:
    """A LoRA of one layer, (out, 5) at rank 2."""
    path = folder / f"{name}.safetensors"
    tensors = {f"{LAYER}.lora_down.weight": torch.ones(2, 5), f"{LAYER}.lora_up.weight": torch.ones(out, 2)}
    safetensors.torch.save_file({**tensors, **others}, path, {"lora_sd.family": kind} if kind else {})
    return path


@bad("cat.safetensors", "does not tell the base model")
def a_lora_that_does_not_say_what_it_is_for(folder):
    analyse_file(lora(folder, kind=""))


@bad("cat.safetensors", "do not fit together")
def a_lora_whose_factors_have_other_ranks(folder):
    analyse_file(lora(folder, **{f"{LAYER}.lora_up.weight": torch.ones(6, 3)}))


@bad("cat.safetensors", "has parts of IA3, which is no LoRA")
def arithmetic_with_an_ia3(folder):
    resize(lora(folder, **{f"{LAYER}.on_input": torch.ones(2)}), folder / "new.safetensors", rank=1)


@bad("cat.safetensors", "do not fit together")
def a_loha_whose_factors_have_other_sizes(folder):
    sizes = {"w1_a": (6, 2), "w1_b": (2, 5), "w2_a": (7, 2), "w2_b": (2, 5)}
    parts = {f"{LAYER}.hada_{name}": torch.ones(size) for name, size in sizes.items()}
    resize(lora(folder, **parts), folder / "new.safetensors", rank=1)


def dora(folder: Path) -> Path:
    return lora(folder, **{f"{LAYER}.dora_scale": torch.ones(6, 1)})


@bad("cat.safetensors", "depends on the base model")
def a_dora_cut_to_a_rank(folder):
    resize(dora(folder), folder / "new.safetensors", rank=1)


@bad("cat.safetensors", "can't be taken out of a model")
def a_dora_taken_out_of_a_model(folder):
    merge("starter", [Source(dora(folder), -1)], folder / "new")


@bad("cat.safetensors", "numbers that are not finite")
def a_lora_with_nan_in_it(folder):
    path = lora(folder, **{f"{LAYER}.lora_up.weight": torch.full((6, 2), float("nan"))})
    resize(path, folder / "new.safetensors", rank=1)


@bad("cat.safetensors", "would replace what it is made from")
def a_new_lora_in_the_place_of_its_source(folder):
    resize(lora(folder), folder / "cat.safetensors", rank=1)


@bad("size", "allow a larger file")
def a_file_size_that_holds_nothing(folder):
    resize(lora(folder), folder / "new.safetensors", size=100)


@bad("cat.safetensors", "no layers in common")
def loras_of_two_families_together(folder):
    combine([Source(lora(folder)), Source(lora(folder, "dog", kind="sdxl"))], folder / "new.safetensors")


@bad("mid_block", "made for different base models")
def loras_of_two_sizes_together(folder):
    combine([Source(lora(folder)), Source(lora(folder, "dog", out=7))], folder / "new.safetensors")


@bad("NOSE", "the blocks are MID")
def a_weight_for_a_block_that_is_not_there(folder):
    combine([Source(lora(folder), 1.0, {"NOSE": 0.5})], folder / "new.safetensors")


@bad("Starter model", "is not the base model of this LoRA")
def a_lora_merged_into_another_model(folder):
    merge("starter", [Source(lora(folder))], folder / "new")


@bad("folder", "a folder that is not there yet")
def a_merged_model_in_a_folder_with_things_in_it(folder):
    write(folder / "new" / "cat.txt", "mine")
    path = folder / "cat.safetensors"
    stem = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    side = safetensors.torch.load_file(next((STARTER / "unet").glob("*.safetensors")))[
        f"{stem[5:]}.weight"
    ].shape[0]
    ones = {f"{stem}.lora_A.weight": torch.ones(1, side), f"{stem}.lora_B.weight": torch.ones(side, 1)}
    safetensors.torch.save_file(ones, path, {"lora_sd.family": "sd15"})
    merge("starter", [Source(path)], folder / "new")


@bad("Starter model", "nothing to extract")
def a_model_extracted_from_itself(folder):
    extract("starter", "starter", folder / "new.safetensors")


@bad("layout", "must be one of kohya")
def a_layout_that_nobody_knows(folder):
    convert(lora(folder), folder / "new.safetensors", "webui")


@bad("cat.safetensors", "has no names for")
def a_loha_in_pefts_layout(folder):
    convert(lora(folder, **{f"{LAYER}.hada_w1_a": torch.ones(2, 2)}), folder / "new.safetensors", "peft")


@bad("cat.png", "is not a picture that can be read")
def a_text_as_a_thumbnail(folder):
    edit(lora(folder), {"thumbnail": str(write(folder / "cat.png", "a cat"))})


@bad("cat.safetensors", "has rank 2, so it can't be cut to 3")
def a_grid_with_a_rank_that_the_LoRA_has_not(folder):
    cut(lora(folder), 3, folder / "ranks")
