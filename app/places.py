"""Folders under the program's home that the page uses. Only `thumbs` and `pictures` are served, and hold only pictures we encoded."""

import shutil
from pathlib import Path

from lora_sd import run


def thumbs() -> Path:
    return run.home() / "thumbs"


def pictures() -> Path:
    """Pictures made on Try it in this session."""
    return run.home() / "pictures"


def uploads() -> Path:
    """Where Gradio keeps what comes in and goes out."""
    return run.home() / "cache" / "page"


def tidy() -> None:
    """Fresh folders for a new session."""
    for folder in (pictures(), uploads()):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (thumbs(), pictures(), uploads()):
        folder.mkdir(parents=True, exist_ok=True)
