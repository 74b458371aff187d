"""Pictures: a dataset_config with its inheritance, or train_data_dir and reg_data_dir → folders, and options for all of them."""

import math
from collections.abc import Mapping
from typing import Any

from .translation import Translation
from .values import flag, is_set, numbers, whole, word

OWN = {  # of a folder of ours, by their name in a subset
    "num_repeats": ("repeats", whole),
    "caption_prefix": ("prefix", word),
    "flip_aug": ("flip", flag),
    "conditioning_data_dir": ("masks", word),
}
RENAMED = {"batch_size": "train_batch_size", "batch_size_per_device": "train_batch_size"}
OF_A_SUBSET = ("image_dir", "num_repeats", "class_tokens", "is_reg", "conditioning_data_dir", "metadata_file")
COUNTS = (  # in a header's ss_datasets: what the run found, and no setting
    *("is_dreambooth", "num_train_images", "num_reg_images", "tag_frequency", "bucket_info", "img_count"),
    *("resize_interpolation", "network_multiplier", "total_batch_size"),
)
MOST_FOLDERS = 100


def spread(work: Translation, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The subsets of a dataset_config, each with all that it inherits; what they agree on is an option for all."""
    general = _table(config.get("general"))
    subsets: list[dict[str, Any]] = []
    for dataset in config.get("datasets") or []:
        inherited = general | {k: v for k, v in _table(dataset).items() if k != "subsets"}
        listed = _table(dataset).get("subsets")
        for subset in listed if isinstance(listed, list) and listed else [listed or {}]:
            merged = {RENAMED.get(k, k): v for k, v in (inherited | _table(subset)).items()}
            subsets.append({k: v for k, v in merged.items() if is_set(v) and k not in COUNTS})
    if len(subsets) > MOST_FOLDERS:
        raise ValueError(
            f"The file has {len(subsets)} folders of pictures; at most {MOST_FOLDERS} can be imported."
        )
    subjects = [subset for subset in subsets if not _is_prior(subset)] or subsets
    for name in dict.fromkeys(name for subset in subjects for name in subset):
        _for_all(work, name, [subset.get(name) for subset in subjects])
    return subsets


def _table(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(
            "The file's data sets are not as sd-scripts has them: each must be a table of settings."
        )
    return {str(key): part for key, part in value.items()}


def _is_prior(subset: Mapping[str, Any]) -> bool:
    return str(subset.get("is_reg", "")).lower() == "true"


def _for_all(work: Translation, name: str, values: list[Any]) -> None:
    alike = all(value == values[0] for value in values)
    if name in OF_A_SUBSET or (name in OWN and not alike):
        return
    value = next(value for value in values if value is not None)
    if not alike:
        work.note(
            name, value, "differs", "the data sets differ in it; here it is one for all, that of the first."
        )
    work.rest[name] = value


def translate(work: Translation, config: Mapping[str, Any] | None) -> None:
    """Where the pictures are, how they are shaped and how their captions are read."""
    subsets = spread(work, config) if config else []
    subjects = [subset for subset in subsets if not _is_prior(subset)]
    _folders(work, subjects)
    _prior(work, [subset for subset in subsets if _is_prior(subset)])
    _captions(work, bool(subjects) or work.has("train_data_dir"))
    _directory(work)
    _shape(work)
    if work.take("random_crop", flag):
        work.set(
            "random_crop",
            True,
            "data.crops",
            8,
            "a picture has so many places in turn, there any at each time",
        )
    masks, asked = work.take("conditioning_data_dir", word), work.take("masked_loss", flag)
    if masks:
        work.set(
            "conditioning_data_dir", masks, "data.masks", masks, "the loss is that of what the mask covers"
        )
    elif asked:
        work.note(
            "masked_loss",
            True,
            "ignored",
            "data.masks is the folder of masks, and data.alpha_mask takes the transparency.",
        )


def _folders(work: Translation, subsets: list[dict[str, Any]]) -> None:
    folders = [folder for subset in subsets if (folder := _folder(work, subset))]
    named = ", ".join(folder["path"] for folder in folders)
    if len(folders) == 1 and set(folders[0]) <= {"path", "trigger"}:
        work.set("image_dir", named, "data.images", folders[0]["path"])
        if trigger := folders[0].get("trigger"):
            work.set("class_tokens", trigger, "data.trigger", trigger, OF_CLASS)
    elif folders:
        work.set("image_dir", named, "data.folders", folders)


OF_CLASS = "it is put in front of captions that lack it, there only where there is no caption"


def _folder(work: Translation, subset: dict[str, Any]) -> dict[str, Any]:
    """One of data.folders. class_tokens are captions where no caption files are told of."""
    if not is_set(subset.get("image_dir")):
        return {}
    folder: dict[str, Any] = {"path": str(subset["image_dir"])}
    for theirs, (ours, read) in OWN.items():
        if theirs in subset and theirs not in work.rest:
            try:
                folder[ours] = read(subset[theirs])
            except ValueError as error:
                work.note(theirs, subset[theirs], "ignored", f"{error}.")
    if folder.get("repeats") == 1:
        del folder["repeats"]
    tokens = subset.get("class_tokens")
    if is_set(tokens) and "caption_extension" not in subset:
        folder["trigger"] = str(tokens)
    elif is_set(tokens):
        work.note(
            "class_tokens",
            tokens,
            "ignored",
            "it is for pictures without a caption; set data.trigger if yours have none.",
        )
    return folder


def _prior(work: Translation, subsets: list[dict[str, Any]]) -> None:
    folder = work.rest.get("reg_data_dir")
    work.rest.pop("reg_data_dir", None)
    if is_set(folder):
        work.set("reg_data_dir", folder, "data.regularisation", folder)
    for number, subset in enumerate(subsets):
        path, tokens = subset.get("image_dir"), subset.get("class_tokens")
        if number or is_set(folder):
            work.note(
                "is_reg",
                path,
                "ignored",
                "there is one folder of regularisation pictures here; put them in one.",
            )
        elif is_set(path):
            work.set("is_reg", path, "data.regularisation", str(path))
            if is_set(tokens):
                work.set("class_tokens", tokens, "data.regularisation_caption", str(tokens), OF_CLASS)


def _directory(work: Translation) -> None:
    path = work.rest.get("train_data_dir")
    work.rest.pop("train_data_dir", None)
    if is_set(path):
        but = "pictures without a caption file get data.trigger, there what follows the N_ of their folder's name"
        work.set("train_data_dir", path, "data.images", path, but)


def _captions(work: Translation, has_folders: bool) -> None:
    for name in ("caption_extension", "caption_extention"):
        given = work.take(name, word)
        if given and given.lower() in (".txt", ".caption", ".json"):
            work.note(name, given, "taken", "read by itself.")
        elif given:
            work.note(
                name, given, "ignored", "captions are read from .txt, .caption and .json files; rename yours."
            )
        elif has_folders and name == "caption_extension" and work.complete:
            work.note(
                name,
                None,
                "assumed",
                ".caption files; here .txt files are read, too, and there they are not.",
            )
    separator = work.take("caption_separator", word)
    if separator and separator != ",":
        work.note("caption_separator", separator, "ignored", "tags are always parted by commas here.")
    if work.take("enable_wildcard", flag):
        work.set("enable_wildcard", True, "captions.wildcards", True)
        work.set("enable_wildcard", True, "captions.lines", True)
    given, keep = work.rest.get("keep_tokens"), work.take("keep_tokens", whole)
    moves = any(work.has(name) for name in ("shuffle_caption", "caption_tag_dropout_rate"))
    if keep or moves:
        work.set("keep_tokens", given, "captions.keep", keep or 0)


def _shape(work: Translation) -> None:
    """Size and buckets: theirs are 256 to 1024 in steps of 64 unless set, whatever the resolution."""
    given, sides = work.rest.get("resolution"), work.take("resolution", numbers)
    buckets = str(work.rest.get("enable_bucket")).lower() == "true"
    if sides:
        w, h = sides[0], sides[-1]
        but = (
            ""
            if w == h or buckets
            else "pictures are cropped to a square of the same area, there to that rectangle"
        )
        work.set("resolution", given, "data.resolution", round(math.sqrt(abs(w * h))), but)
    for name, ours, default in (
        ("min_bucket_reso", "data.bucket_min", 256),
        ("max_bucket_reso", "data.bucket_max", 1024),
        ("bucket_reso_steps", "data.bucket_step", 64),
    ):
        unset, given, value = work.unset(name), work.rest.get(name), work.take(name, whole)
        if buckets and (value is not None or unset):
            work.set(name, given, ours, default if value is None else value)
