"""Bad inputs of the Tools page."""

from bad import bad
from bad_workshop import lora
from test_tools_act import act


@bad("LoRA", "Choose a LoRA")
def nothing_to_look_into(folder):
    act("look")


@bad("LoRAs", "at least two")
def one_lora_to_combine(folder):
    act("combine", lora=str(lora(folder)))


@bad("OUT", "is no weight of a block")
def a_block_without_a_weight(folder):
    act("combine", lora=str(lora(folder)), lora_1=str(lora(folder, "dog")), blocks_0="OUT")


@bad("rank", "Write a number")
def no_rank_to_shrink_to(folder):
    act("shrink", lora=str(lora(folder)), rank=None)


@bad("cat.pt", "not a .safetensors file")
def a_pickle_to_check(folder):
    act("check", lora=str(folder / "cat.pt"))


@bad("changed", "Nothing is changed yet")
def an_edit_that_changes_nothing(folder):
    act("edit", lora=str(lora(folder)))
