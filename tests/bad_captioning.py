"""Bad wishes for captions, and models that can't write any."""

import json
from pathlib import Path

from bad import bad, write
from captioning_models import TAGS, blip, tagger
from PIL import Image
from safetensors.torch import load_file, save_file

from lora_sd.captioning.folder import caption


def captioned(folder: Path, model: Path | str, **wishes: object) -> None:
    (folder / "pictures").mkdir(exist_ok=True)
    Image.new("RGB", (64, 64)).save(folder / "pictures" / "cat.png")
    caption(folder / "pictures", model, **wishes)


@bad("model", "No model was given that writes captions")
def no_model_for_captions(folder):
    captioned(folder, " ")


@bad("owner/tagger", "python -m lora_sd download owner/tagger gets it")
def a_captioner_that_was_not_downloaded(folder):
    captioned(folder, "owner/tagger")


@bad("gone", "There is no model at")
def a_captioner_that_is_not_there(folder):
    captioned(folder, folder / "gone")


@bad("model", "is no model that writes captions")
def a_base_model_for_captions(folder):
    write(folder / "model" / "model_index.json", "{}")
    captioned(folder, folder / "model")


@bad("cat.onnx", "is no model that writes captions")
def a_file_of_another_name_for_captions(folder):
    write(folder / "cat.onnx", b"")
    captioned(folder, folder / "cat.onnx")


@bad("model", "has no model.onnx")
def a_tagger_without_its_model(folder):
    (tagger(folder / "model") / "model.onnx").unlink()
    captioned(folder, folder / "model")


@bad("model", "has no selected_tags.csv")
def a_tagger_without_its_tags(folder):
    (tagger(folder / "model") / "selected_tags.csv").unlink()
    captioned(folder, folder / "model")


@bad("model.onnx", "is damaged or no model that onnxruntime reads")
def a_tagger_cut_in_the_middle(folder):
    file = tagger(folder / "model") / "model.onnx"
    file.write_bytes(file.read_bytes()[:200])
    captioned(folder, folder / "model")


@bad("selected_tags.csv", "is no list of tags with a name and a category each")
def tags_without_categories(folder):
    write(tagger(folder / "model") / "selected_tags.csv", "id,name\n1,cat\n")
    captioned(folder, folder / "model")


@bad("selected_tags.csv", "has no tags in it")
def a_list_of_no_tags(folder):
    write(tagger(folder / "model") / "selected_tags.csv", "name,category\n")
    captioned(folder, folder / "model")


@bad("selected_tags.csv", "has 7 tags and model.onnx knows 8")
def the_tags_of_another_tagger(folder):
    captioned(folder, tagger(folder / "model", tags=TAGS[:7]))


@bad("model", "has its weights as pytorch_model.bin only")
def a_captioner_that_is_a_pickle(folder):
    file = blip(folder / "model") / "model.safetensors"
    file.rename(file.with_name("pytorch_model.bin"))
    captioned(folder, folder / "model")


@bad("model", "is damaged or incomplete")
def a_BLIP_cut_in_the_middle(folder):
    file = blip(folder / "model") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    captioned(folder, folder / "model")


@bad("model", "has no tokenizer.json")
def a_BLIP_without_its_words(folder):
    for file in blip(folder / "model").glob("tokenizer*"):
        file.unlink()
    captioned(folder, folder / "model")


@bad("model", "is damaged or incomplete")
def a_BLIP_that_lacks_a_layer(folder):
    file = blip(folder / "model") / "model.safetensors"
    save_file(dict(list(load_file(file).items())[1:]), file, {"format": "pt"})
    captioned(folder, folder / "model")


@bad("model", "is no model that writes captions")
def a_BLIP_that_answers_questions(folder):
    config = {"model_type": "blip", "architectures": ["BlipForQuestionAnswering"]}
    write(folder / "model" / "config.json", json.dumps(config))
    captioned(folder, folder / "model")


@bad("config.json", "can't be read")
def a_captioner_whose_settings_are_no_table(folder):
    write(folder / "model" / "config.json", "[]")
    captioned(folder, folder / "model")


@bad("threshold", "is a probability, more than 0 and less than 1")
def a_threshold_of_35_percent_as_35(folder):
    captioned(folder, tagger(folder / "model"), threshold=35)


@bad("tokens", "choose 1 to 200")
def captions_of_a_million_tokens(folder):
    captioned(folder, blip(folder / "model"), max_tokens=10**6)


@bad("cat.png", "would share the caption cat.txt")
def two_pictures_of_one_name_to_be_captioned(folder):
    write(folder / "pictures" / "cat.jpg", b"")
    captioned(folder, tagger(folder / "model"))


@bad("starter:streamline", "comes with the program and has its captions")
def captions_for_the_set_that_is_shipped(folder):
    caption("starter:streamline", tagger(folder / "model"))
