"""Bad wishes for pictures."""

from functools import cache
from pathlib import Path

import torch
from bad import bad, write
from PIL import Image
from safetensors.torch import save_file

from lora_sd.__main__ import generate as command
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
