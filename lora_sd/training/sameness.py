"""What the numbers of a run depend on, kept beside its states, so that a resume never goes on with others in silence."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import config as cfg
from ..data.buckets import listed
from ..data.folder import Example, names
from ..files import write_text
from .prepare import Dataset

NAME = "began.json"
# Settings that change no number, or only through the pictures and the model, which are compared themselves.
NEUTRAL = (
    "version model.base data.images data.masks data.repeats data.regularisation data.on_bad_image lora.start optim.steps optim.epochs optim.images_seen machine.device machine.memory machine.cuda_graph "
    "output. save. preview. validate."
).split()
NEUTRAL_OF_FOLDER = ("path", "masks", "repeats", "weight")  # the pictures and how they count are compared
Facts = dict[str, Any]


class Changed(ValueError):
    """A run would go on with other settings or pictures than it was trained with; its sentence lists them."""

    code = "changed"  # of the event that tells of it

    def __init__(self, differences: list[str]):
        super().__init__(
            f"This run would go on differently: {'; '.join(differences)}. Put that back, or go on so on purpose: "
            "lora_sd resume RUN_FOLDER --accept-changes."
        )


def check_settings(folder: Path, config: cfg.TrainConfig) -> None:
    """Before anything is loaded: Changed where settings alone tell that the run would go on differently."""
    before = read(folder)
    if before and (said := settings_differences(before["settings"], mathematics(config))):
        raise Changed(said)


def mathematics(config: cfg.TrainConfig) -> dict[str, Any]:
    """The settings that the numbers depend on, by dotted name, as JSON keeps them."""
    names = [s.name for s in cfg.settings() if not s.name.startswith(tuple(NEUTRAL))]
    found = {name: cfg.get(config, name) for name in names}
    found["data.folders"] = [
        folder.model_dump(exclude=set(NEUTRAL_OF_FOLDER)) for folder in config.data.folders
    ]
    return json.loads(json.dumps(found))


def facts(config: cfg.TrainConfig, data: Dataset, base: str, precision: str) -> Facts:
    """Everything as JSON keeps it. `base` is the identity of the base model in that number format."""
    pictures = [
        [
            name,
            data.latents.digests[example.path],
            example.caption,
            [example.repeats, example.weight, fit, *_mask(example, data)],
        ]
        for name, example, fit in zip(names(data.examples), data.examples, data.fits, strict=True)
    ]
    found = {"settings": mathematics(config), "precision": precision, "base": base, "pictures": pictures}
    return json.loads(json.dumps(found))


def _mask(example: Example, data: Dataset) -> list[str]:
    """A mask of its own by its content; that of a run before there were any is as if it had none."""
    return [data.latents.digests[example.mask]] if example.mask and example.mask != example.path else []


def write(folder: Path, now: Facts) -> None:
    write_text(folder / NAME, json.dumps(now, ensure_ascii=False))


def read(folder: Path) -> Facts | None:
    """The facts of the run when it began; None for a run of version 0.1.0, which kept none."""
    try:
        return json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def differences(before: Facts, now: Facts) -> list[str]:
    """What is not as it was, in words."""
    said = settings_differences(before["settings"], now["settings"])
    if before["precision"] != now["precision"]:
        said.append(
            f"the base model was in {before['precision']} and is in {now['precision']} (machine.precision)"
        )
    elif before["base"] != now["base"]:
        said.append("the base model is another one")
    return said + picture_differences(before["pictures"], now["pictures"])


def settings_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    # a setting that the run began without is of a later version, in which its default means what was done then
    before = {**mathematics(cfg.TrainConfig()), **before}
    return [
        f"{name} was {_shown(before[name])} and is {_shown(now[name])}"
        for name in before.keys() & now.keys()
        if before[name] != now[name]
    ]


def _shown(value: Any) -> str:
    return "automatic" if value is None else json.dumps(value, ensure_ascii=False)


def picture_differences(before: list[list[Any]], now: list[list[Any]]) -> list[str]:
    old, new = ({name: rest for name, *rest in pictures} for pictures in (before, now))
    both = [name for name in old if name in new]
    kinds = {
        "gone": [name for name in old if name not in new],
        "new": [name for name in new if name not in old],
        "another picture": [name for name in both if old[name][0] != new[name][0]],
        "captioned otherwise": [name for name in both if old[name][1] != new[name][1]],
        "counted, cropped or masked otherwise": [name for name in both if old[name][2] != new[name][2]],
    }
    said = [
        f"{listed(names)} {'is' if len(names) == 1 else 'are'} {what}"
        for what, names in kinds.items()
        if names
    ]
    if not said and before != now:
        said = ["the pictures come in another order"]
    return said
