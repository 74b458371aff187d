"""Folders under the program's home that the page uses. Only `thumbs` and `pictures` are served, and hold only pictures we encoded."""

import shutil
from pathlib import Path

from lora_sd import run


def thumbs() -> Path:
    return run.home() / "thumbs"


def pictures() -> Path:
    """Pictures made on Try it, of all sessions: `gallery` keeps them."""
    return run.home() / "pictures"


def making() -> Path:
    """Where a picture is written before it is in the gallery."""
    return run.home() / "cache" / "drawn"


def uploads() -> Path:
    """Where Gradio keeps what comes in and goes out."""
    return run.home() / "cache" / "page"


def tidy() -> None:
    """A fresh folder for what comes and goes in a session."""
    shutil.rmtree(uploads(), ignore_errors=True)
    for folder in (thumbs(), pictures(), uploads()):
        folder.mkdir(parents=True, exist_ok=True)
