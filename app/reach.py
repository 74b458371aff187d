"""What a person at another computer may have this one read and write: what the menus offer, and what lies in our home.

Hidden controls are no hindrance, anyone can send what a control would; so it is checked where a value is used.
"""

import os
import re
from pathlib import Path

from lora_sd import config as cfg
from lora_sd import run
from lora_sd.models.find import HUB_NAME
from lora_sd.settings import OPTIMIZERS

from . import places, uploads

SHIPPED = re.compile(r"starter:\w+(/\w+)?")

confined = False  # whether others can reach the page: set once, before it is built


def check(config: cfg.TrainConfig) -> None:
    """Raises ValueError for a setting that leads elsewhere: to a place, or into code of whatever package is installed."""
    if confined:
        optimizer = config.optim.optimizer
        if optimizer not in OPTIMIZERS and not optimizer.startswith("torch.optim."):
            raise ValueError(
                f"optim.optimizer is {optimizer!r}; while other computers are let in, only those of the menu and of "
                "torch.optim can be used."
            )
        for name, value in cfg.places(config).items():
            if (
                name != "model.base" and value and not SHIPPED.fullmatch(value)
            ):  # the base is looked up in its menu
                at_home(value, name)


def at_home(path: str, what: str) -> None:
    """Raises ValueError unless `path` is in our home, also with its links followed, and not in a folder that is served.

    The plain comparison comes first: on Windows only to look at another computer's path tells it who is logged in here.
    """
    home = run.home()
    served = (places.thumbs(), places.pictures(), places.uploads())
    for whole in (os.path.abspath, os.path.realpath):
        found = Path(whole(path))
        inside = found.is_relative_to(whole(home))
        if not inside or any(found.is_relative_to(whole(folder)) for folder in served):
            raise ValueError(
                f"{what} is {path!r}; while other computers are let in, only what lies in the program's own folders "
                "can be used, or a set that comes with it, like starter:streamline."
            )


def folder(text: str) -> Path:
    """The folder that a person at this computer typed."""
    if confined:
        raise ValueError(
            "Folders can be named only at the computer itself, started without --listen and --share; drop the pictures instead."
        )
    return uploads.local_folder(text)


def not_in_menu(value: str, what: str) -> None:
    """Raises ValueError where only what a menu offers may be used."""
    if confined:
        raise ValueError(
            f"{what} is {value!r}, which is not in the menu; while other computers are let in, choose one that is."
        )


def hub_name(name: str) -> str:
    """A name to ask Hugging Face about, and no path."""
    if confined and not HUB_NAME.fullmatch(name.strip()):
        raise ValueError(f"{name.strip()!r} is not a Hugging Face name; write one like owner/model.")
    return name
