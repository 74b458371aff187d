"""Bad wishes for pictures."""

from functools import cache
from pathlib import Path

import torch
from bad import bad, write
from PIL import Image
from safetensors.torch import save_file

from lora_sd import config, grid
from lora_sd.__main__ import generate as command
from lora_sd.grid_command import axis, best
from lora_sd.grid_command import draw as draw_sheet
from lora_sd.grid_drawing import job_of
from lora_sd.models.load import load
from lora_sd.sample import Inpaint, generate

starter = cache(lambda: load("starter"))


def draw(**wishes: object) -> None:
    generate(starter(), "a cat", **wishes)


@bad("size", "at most 4096")
def a_picture_of_100_000_by_100_000(folder: Path):
    draw(size=(100_000, 100_000))


@bad("size", "at least 32")
def a_picture_of_0_by_0(folder: Path):
    draw(size=(0, 0))


@bad("steps", "must be 1 to 1,000")
def a_picture_in_minus_one_steps(folder: Path):
    draw(steps=-1)


@bad("seed", "must be 0 to")
def a_seed_of_30_digits(folder: Path):
    draw(seeds=[10**30])


@bad("guidance", "must be 0 to 100")
def a_guidance_that_is_NaN(folder: Path):
    draw(guidance=float("nan"))


@bad("strength of a LoRA", "must be -100 to 100")
def a_LoRA_of_endless_strength(folder: Path):
    draw(loras={"cat.safetensors": float("inf")})


@bad("text=", "write text=0")
def a_part_of_a_LoRA_without_a_number(folder: Path):
    command(["a cat", "--lora", "cat.safetensors:0.8:text="])


@bad("strength of mid", "must be -100 to 100")
def a_part_of_a_LoRA_of_endless_strength(folder: Path):
    command(["a cat", "--lora", "cat.safetensors:0.8:mid=inf"])


@bad("cat.pt", "may hold program code")
def a_LoRA_that_is_a_pickle_to_draw_with(folder: Path):
    (folder / "cat.pt").touch()
    draw(loras={folder / "cat.pt": 1.0})


@bad("nope", "choose one of")
def a_sampler_that_does_not_exist(folder: Path):
    draw(sampler="nope")


@bad("rescale", "must be 0 to 1")
def a_rescale_of_two(folder: Path):
    draw(rescale=2.0)


@bad("starter", "is not an inpainting model")
def a_picture_to_paint_in_with_a_plain_model(folder: Path):
    draw(inpaint=Inpaint(Image.new("RGB", (64, 64)), Image.new("L", (64, 64))))


@bad("--mask", "Give both")
def a_mask_without_a_picture(folder: Path):
    command(["a cat", "--mask", str(folder / "mask.png")])


@bad("mask.png", "is not a picture that can be read")
def a_mask_that_is_a_text(folder: Path):
    Image.new("RGB", (64, 64)).save(folder / "cat.png")
    write(folder / "mask.png", "white")
    command(["a cat", "--image", str(folder / "cat.png"), "--mask", str(folder / "mask.png")])


@bad("mycat.pt", "may hold program code")
def an_embedding_that_is_a_pickle(folder: Path):
    (folder / "mycat.pt").touch()
    draw(embeddings=[folder / "mycat.pt"])


def embedding(folder: Path, name: str = "mycat", **tensors: torch.Tensor) -> Path:
    save_file(tensors, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


@bad("mycat.safetensors", "its vectors have 768 numbers")
def an_embedding_of_another_base_model(folder: Path):
    draw(embeddings=[embedding(folder, emb_params=torch.ones(2, 768))])


@bad("mycat.safetensors", "it has clip_g, clip_l")
def an_embedding_of_SDXL_for_another_family(folder: Path):
    draw(embeddings=[embedding(folder, clip_l=torch.ones(2, 768), clip_g=torch.ones(2, 1280))])


@bad("mycat.safetensors", "not of finite numbers")
def an_embedding_with_NaN(folder: Path):
    draw(embeddings=[embedding(folder, emb_params=torch.full((1, 192), torch.nan))])


@bad("mycat.safetensors", "not of finite numbers")
def an_embedding_of_whole_numbers(folder: Path):
    draw(embeddings=[embedding(folder, emb_params=torch.ones(1, 192, dtype=torch.int32))])


@bad("mycat.safetensors", "at most 75 vectors")
def an_embedding_of_a_thousand_vectors(folder: Path):
    draw(embeddings=[embedding(folder, emb_params=torch.ones(1000, 192))])


@bad("mycat", "brought by two files")
def two_embeddings_of_one_word(folder: Path):
    (folder / "other").mkdir()
    files = [embedding(place, emb_params=torch.ones(1, 192)) for place in (folder, folder / "other")]
    draw(embeddings=files)


def cells(x: str, y: str = "", lora: str = "cat.safetensors") -> None:
    loras = {lora: 1.0} if lora else {}
    grid.plan(job_of("a cat", loras, "starter"), axis(x, "--x"), axis(y, "--y") if y else grid.ALONE)


@bad("--x", "write what changes and its values")
def an_axis_of_a_grid_without_values(folder: Path):
    cells("strength")


@bad("colour", "choose one of strength")
def an_axis_of_a_grid_that_does_not_exist(folder: Path):
    cells("colour=red")


@bad("seed", "write numbers, such as")
def seeds_of_a_grid_that_are_words(folder: Path):
    cells("seed=one, two")


@bad("steps", "whole number")
def half_a_step_in_a_grid(folder: Path):
    cells("steps=10.5")


@bad("strength", "say by how much")
def a_range_of_strengths_without_a_step(folder: Path):
    cells("strength=0-0.5")


@bad("seed", "leads nowhere")
def a_range_that_goes_backwards(folder: Path):
    cells("seed=9-3")


@bad("guidance", "has no values")
def an_empty_axis_of_a_grid(folder: Path):
    cells("guidance=")


@bad("seed", "twice; leave one out")
def a_value_of_a_grid_that_is_there_twice(folder: Path):
    cells("seed=1, 2, 1")


@bad("seed", "at most 100 pictures")
def a_range_of_a_million_seeds(folder: Path):
    cells("seed=1-1000000")


@bad("12 × 12", "at most 100 are drawn at once")
def a_grid_of_144_pictures(folder: Path):
    cells("seed=1-12", "steps=1-12")


@bad("strength", "choose two different things")
def a_grid_with_the_same_axis_twice(folder: Path):
    cells("strength=0, 1", "strength=1, 2")


@bad("strength", "choose a LoRA first")
def a_grid_of_strengths_without_a_LoRA(folder: Path):
    cells("strength=0, 1", lora="")


@bad("strength of a LoRA", "must be -100 to 100")
def a_strength_of_a_thousand_in_a_grid(folder: Path):
    cells("strength=1000")


@bad("rank", "at least 1")
def a_rank_of_0_in_a_grid(folder: Path):
    cells("rank=0")


@bad("--out", "end its name in .png")
def a_sheet_that_is_a_JPEG(folder: Path):
    draw_sheet(["a cat", "--x", "seed=1", "--out", str(folder / "sheet.jpg")])


@bad("sheet.png", "choose another name")
def a_sheet_that_is_there_already(folder: Path):
    write(folder / "sheet.png", "")
    draw_sheet(["a cat", "--x", "seed=1", "--out", str(folder / "sheet.png")])


@bad("no-run", "There is no run at")
def the_best_checkpoint_of_a_run_that_does_not_exist(folder: Path):
    best([str(folder / "no-run")])


@bad("mycat", "has no checkpoint yet")
def the_best_checkpoint_of_a_run_that_has_none(folder: Path):
    write(folder / "mycat" / "config.toml", config.dumps(config.TrainConfig()))
    best([str(folder / "mycat")])
