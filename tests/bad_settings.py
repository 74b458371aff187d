"""Bad settings: TOML with surprises, values no one means, and flags."""

import json
import os
from pathlib import Path

from bad import bad, write

from lora_sd import config as cfg
from lora_sd import flags, kohya
from lora_sd.__main__ import train
from lora_sd.training import adapter, word
from lora_sd.training.train import train as train_it


def toml(folder: Path, text: str | bytes) -> None:
    cfg.load(write(folder / "run.toml", text))


@bad("gone.toml", "There is no settings file")
def a_settings_file_that_is_not_there(folder):
    cfg.load(folder / "gone.toml")


@bad("run.toml", "There is no settings file")
def a_pipe_instead_of_a_settings_file(folder):
    os.mkfifo(folder / "run.toml")
    cfg.load(folder / "run.toml")


@bad("The settings file", "no path has")
def a_settings_file_with_NUL_in_its_name(folder):
    cfg.load("run\0.toml")


@bad("The settings file", "too long for a path")
def a_settings_file_with_a_name_of_300_letters(folder):
    train(["a" * 300])


@bad("run.toml", "is not a TOML file")
def a_settings_file_of_random_bytes(folder):
    toml(folder, bytes(range(128)))


@bad("run.toml", "is not a TOML file in UTF-8")
def a_settings_file_in_UTF_16(folder):
    toml(folder, "seed = 1".encode("utf-16"))


@bad("run.toml", "has more than 200,000 bytes")
def a_settings_file_of_100_MB(folder):
    write(folder / "run.toml", "")
    os.truncate(folder / "run.toml", 100_000_000)
    cfg.load(folder / "run.toml")


@bad("run.toml", "is nested too deeply")
def a_list_nested_50_000_deep(folder):
    toml(folder, "seed = " + "[" * 50_000)


@bad("run.toml", "is nested too deeply")
def a_name_of_20_000_parts(folder):
    toml(folder, "seed." + "a." * 20_000 + "a = 1")


@bad("seed", "too large to show")
def a_table_nested_2_000_deep(folder):
    value = 1
    for _ in range(2000):
        value = {"a": value}
    cfg.parse({"seed": value})


@bad("run.toml", "is not a TOML file")
def a_setting_that_is_given_twice(folder):
    toml(folder, "seed = 1\nseed = 2")


@bad("run.toml", "is not a TOML file")
def a_section_that_is_made_again_by_a_dotted_name(folder):
    toml(folder, "[lora]\nrank = 4\n[lora.rank]\na = 1")


@bad("run.toml", "write a Windows path in single quotes")
def a_Windows_path_with_unknown_escapes(folder):
    toml(folder, '[data]\nimages = "C:\\pictures\\cats"')


@bad("run.toml", "write a Windows path in single quotes")
def a_Windows_path_with_half_a_code_point(folder):
    toml(folder, '[data]\nimages = "C:\\Users\\me"')


@bad("data.images", "in single quotes")
def a_Windows_path_whose_escape_is_a_line_break(folder):
    toml(folder, '[data]\nimages = "C:\\new"')


@bad("model.base", "no path has")
def a_base_model_with_NUL(folder):
    toml(folder, '[model]\nbase = "cat\\u0000"')


@bad("output.dir", "too long for a path")
def an_output_folder_of_5_000_letters(folder):
    toml(folder, f'[output]\ndir = "{"a" * 5000}"')


@bad("data.images", "no user of that name")
def pictures_of_a_user_that_does_not_exist(folder):
    toml(folder, '[data]\nimages = "~nobody-here/cats"')


@bad("optim.learning_rate", "must be a finite number")
def a_learning_rate_that_is_NaN(folder):
    toml(folder, "[optim]\nlearning_rate = nan")


@bad("optim.learning_rate", "must be a finite number")
def a_learning_rate_of_1e400(folder):
    toml(folder, "[optim]\nlearning_rate = 1e400")


@bad("optim.max_grad_norm", "must be a finite number")
def a_gradient_norm_without_end(folder):
    toml(folder, "[optim]\nmax_grad_norm = inf")


@bad("lora.rank", "must be at most 1024")
def a_rank_of_10_to_the_30(folder):
    toml(folder, f"[lora]\nrank = 1{'0' * 30}")


@bad("run.toml", "is not a TOML file")
def a_number_of_5_000_digits(folder):
    toml(folder, f"seed = {'1' * 5000}")


@bad("seed", "too large to show")
def a_number_of_50_000_hexadecimal_digits(folder):
    toml(folder, f"seed = 0x{'f' * 50_000}")


@bad("optim.steps", "must be at least 1")
def a_negative_number_of_steps(folder):
    toml(folder, "[optim]\nsteps = -1")


@bad("optim.steps", "must be a whole number")
def half_a_step(folder):
    toml(folder, "[optim]\nsteps = 0.5")


@bad("output.name", "must be a text")
def a_name_that_is_a_date(folder):
    toml(folder, "[output]\nname = 2026-01-01")


@bad("output.name", "at most 120 characters")
def a_name_of_a_thousand_letters(folder):
    toml(folder, f'[output]\nname = "{"a" * 1000}"')


@bad("lora", "must be a section of settings")
def a_list_where_a_section_belongs(folder):
    toml(folder, "lora = [1, 2]")


@bad("lora", "must be a section of settings")
def a_list_of_sections(folder):
    toml(folder, "[[lora]]\nrank = 4")


@bad("data.images", "must be a text")
def a_section_where_a_text_belongs(folder):
    toml(folder, "[data.images]\npath = 'cats'")


@bad("lora.rnak", "did you mean 'lora.rank'")
def a_setting_with_a_slip_of_the_pen(folder):
    toml(folder, "[lora]\nrnak = 4")


@bad("${HOME}<script>", "There is no setting")
def a_setting_named_by_a_script(folder):
    toml(folder, '"${HOME}<script>" = 1')


@bad("a�b c", "There is no setting")
def a_setting_whose_name_hides_signs(folder):
    toml(folder, '"a\\u202eb\\nc" = 1')


@bad("aaaa…", "There is no setting")
def a_setting_with_a_name_of_100_000_letters(folder):
    toml(folder, f"{'a' * 100_000} = 1")


@bad("save.every", "write a number of steps")
def a_share_of_nothing(folder):
    toml(folder, '[save]\nevery = "often"')


@bad("save.every", "write a number of steps")
def a_share_of_5_000_digits(folder):
    toml(folder, f'[save]\nevery = "{"9" * 5000}"')


@bad("lora.ranks", "must be 0 to 1024")
def a_rank_of_a_thousand_million_by_a_pattern(folder):
    toml(folder, '[lora.ranks]\n"unet.*" = 1000000000')


@bad("lora.ranks", "must be 0 to 1024")
def a_negative_rank_by_a_pattern(folder):
    toml(folder, '[lora.ranks]\n"unet.*" = -1')


@bad("data.repeats", "must be 0 to 999")
def repeats_of_a_picture_of_a_thousand(folder):
    toml(folder, '[data.repeats]\n"cat.png" = 1000')


@bad("data.repeats", "must be 0 to 999")
def repeats_of_a_picture_below_0(folder):
    flags.parse(["--data.repeats", "cat.png=-1"], cfg.TrainConfig())


@bad("data.repeats", "the limit is 1,000")
def repeats_of_two_thousand_pictures(folder):
    cfg.parse({"data": {"repeats": {f"{number}.png": 0 for number in range(2000)}}})


@bad("data.repeats", "at most 300 letters")
def repeats_of_a_name_of_a_thousand_letters(folder):
    cfg.parse({"data": {"repeats": {"a" * 1000: 0}}})


@bad("lora.ranks", "at most 200 letters")
def a_pattern_of_a_thousand_stars(folder):
    toml(folder, f'[lora.ranks]\n"{"*a" * 500}" = 4')


@bad("lora.alphas", "must be above 0")
def an_alpha_of_0_by_a_pattern(folder):
    toml(folder, '[lora.alphas]\n"unet.*" = 0')


@bad("lora.alphas", "must be a finite number")
def an_alpha_by_a_pattern_that_is_no_number(folder):
    toml(folder, '[lora.alphas]\n"unet.*" = nan')


@bad("lora.dora", "must be one of 'off'")
def a_DoRA_that_is_only_switched_on(folder):
    toml(folder, '[lora]\ndora = "on"')


@bad("lora.dora", "set save.layout to kohya")
def a_DoRA_that_the_layout_has_no_place_for(folder):
    adapter.check(cfg.changed(cfg.TrainConfig(), {"lora.dora": "input", "save.layout": "peft"}))


@bad("lora.initial", "leave one of them out")
def a_training_that_begins_in_two_places(folder):
    adapter.check(cfg.changed(cfg.TrainConfig(), {"lora.initial": "pissa", "lora.start": "a.safetensors"}))


@bad("version", "must be one of 1")
def settings_of_a_version_to_come(folder):
    toml(folder, "version = 2")


@bad("data.trigger", "no text")
def a_flag_with_bytes_that_are_no_text(folder):
    flags.parse(["--data.trigger", os.fsdecode(b"caf\xe9")], cfg.TrainConfig())


@bad("lora.rnak", "did you mean")
def a_flag_with_a_slip_of_the_pen(folder):
    flags.parse(["--lora.rnak=4"], cfg.TrainConfig())


@bad("lora.ranks", "has no '='")
def a_rank_by_a_pattern_without_a_rank(folder):
    flags.parse(["--lora.ranks", "unet"], cfg.TrainConfig())


@bad("seed.x", "There is no setting")
def a_change_below_a_setting(folder):
    cfg.changed(cfg.TrainConfig(), {"seed.x": 1})


@bad("data.folders.0.repeats", "must be at least 1")
def a_folder_of_several_that_counts_nothing(folder):
    toml(folder, '[[data.folders]]\npath = "cats"\nrepeats = 0')


@bad("data.folders.0", "There is no setting")
def a_misspelled_setting_of_a_folder_of_several(folder):
    toml(folder, '[[data.folders]]\npath = "cats"\nreapeats = 2')


@bad("data.folders.0.path", "no path has")
def a_folder_of_several_with_NUL_in_its_name(folder):
    toml(folder, '[[data.folders]]\npath = "cats\\u0000"')


@bad("data.folders.0", "write a path, or JSON")
def a_folder_of_several_that_is_half_JSON(folder):
    flags.parse(["--data.folders", '{"path": '], cfg.TrainConfig())


@bad("data.regularisation_draw", "it needs data.regularisation_caption")
def regularisation_pictures_to_draw_of_nothing(folder):
    cfg.parse({"data": {"regularisation_draw": 10}})


def theirs(folder: Path, name: str, text: str | bytes) -> None:
    kohya.load(write(folder / name, text))


@bad("gone.json", "There is no settings file")
def a_file_to_import_that_is_not_there(folder):
    kohya.load(folder / "gone.json")


@bad("cat.png", "is no file of settings")
def a_picture_to_import_settings_from(folder):
    theirs(folder, "cat.png", b"\x89PNG")


@bad("recipe.toml", "has no setting of sd-scripts or kohya_ss")
def a_file_to_import_of_something_else(folder):
    theirs(folder, "recipe.toml", "[flour]\ngrams = 500")


@bad("preset.json", "is not valid JSON (line 2)")
def a_preset_that_is_cut_off(folder):
    theirs(folder, "preset.json", '{"LoRA_type": "Standard",\n"network_dim"')


@bad("preset.json", "is not valid JSON")
def a_preset_nested_50_000_deep(folder):
    theirs(folder, "preset.json", "[" * 50_000)


@bad("preset.json", "is no table of settings")
def a_preset_that_is_a_list(folder):
    theirs(folder, "preset.json", "[1, 2]")


@bad("preset.json", "has 2,000 settings")
def a_preset_of_2_000_settings(folder):
    theirs(folder, "preset.json", json.dumps(dict.fromkeys(map(str, range(2000)), 1)))


@bad("for Flux", "only those for Stable Diffusion 1.x, 2.x and SDXL")
def a_preset_for_Flux(folder):
    theirs(folder, "preset.json", '{"LoRA_type": "Flux1", "flux1_checkbox": true}')


@bad("networks.lora_flux", "is for other models")
def settings_of_sd_scripts_for_Flux(folder):
    theirs(folder, "flux.toml", 'network_module = "networks.lora_flux"\nnetwork_dim = 8')


@bad("flux_train_network.py", "only those of train_network.py")
def a_command_that_trains_another_model(folder):
    theirs(folder, "train.sh", "accelerate launch flux_train_network.py --network_dim 8")


@bad("notes.txt", "has no command of sd-scripts")
def notes_without_a_command(folder):
    theirs(folder, "notes.txt", "buy milk")


@bad("data sets", "each must be a table of settings")
def data_sets_that_are_numbers(folder):
    theirs(folder, "sets.toml", "datasets = [1, 2]")


@bad("cat.safetensors", "does not tell how it was made")
def a_LoRA_that_does_not_tell_how_it_was_made(folder):
    entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    header = json.dumps({"lora_unet_a.lora_down.weight": entry}).encode()
    theirs(folder, "cat.safetensors", len(header).to_bytes(8, "little") + header + bytes(24))


@bad("optim.epochs", "a run has one length")
def a_length_in_steps_and_in_epochs(folder):
    toml(folder, "[optim]\nsteps = 100\nepochs = 2")


@bad("save.keep_best", "no held-out loss is measured")
def the_best_file_without_anything_to_measure_it_by(folder):
    toml(folder, "[save]\nkeep_best = true")


@bad("save.every", "write a number of steps")
def a_number_of_hours(folder):
    toml(folder, '[save]\nevery = "2 hours"')


@bad("optim.warmup", "write a number of steps")
def a_warm_up_in_minutes(folder):
    toml(folder, '[optim]\nwarmup = "2 minutes"')


@bad("output.trackers", "must be")
def a_tracker_that_is_not_known(folder):
    toml(folder, '[output]\ntrackers = ["paper"]')


@bad("embedding.tokens", "must be at most 32")
def a_word_of_a_thousand_vectors(folder):
    cfg.parse({"embedding": {"tokens": 1000}})


@bad("data.trigger", "needs a word")
def vectors_of_no_word(folder):
    word.check(cfg.parse({"embedding": {"tokens": 2}}))


@bad("data.trigger", "such as 'my_cat'")
def a_word_of_its_own_that_is_two(folder):
    word.check(cfg.parse({"embedding": {"tokens": 2}, "data": {"trigger": "my cat"}}))


@bad("loss.keep_base", "for layers that learn")
def a_word_alone_that_is_to_keep_the_base(folder):
    alone = {"lora": {"targets": "none"}, "loss": {"keep_base": 1.0}}
    word.check(cfg.parse({"embedding": {"tokens": 2}, "data": {"trigger": "mycat"}, **alone}))


@bad("lora.targets", "nothing would learn")
def neither_layers_nor_a_word(folder):
    cfg_of = {"lora.targets": "none", "data.images": "starter:streamline"}
    train_it(cfg.changed(cfg.TrainConfig(), {**cfg_of, "output.dir": str(folder)}))


@bad("embedding.rate", "finds the learning rate of all parts itself")
def a_word_of_another_rate_than_Prodigy_finds(folder):
    settings = {"optim.optimizer": "Prodigy", "embedding.tokens": 1, "data.trigger": "mycat"}
    chosen = {**settings, "data.images": "starter:streamline", "output.dir": str(folder)}
    train_it(cfg.changed(cfg.TrainConfig(), chosen))
