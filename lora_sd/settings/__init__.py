"""Every setting of a training run, described once: type, default, limits, and the sentence an artist reads.

Validation, TOML, the command line, the form in the page and the docs all come from here; `config.py` works with them.
"""

import warnings
from typing import Literal

from .adapter import LoraSettings
from .embedding import EmbeddingSettings
from .model import ModelSettings
from .noise import LossSettings, NoiseSettings
from .optim import LENGTHS, MOST_STEPS, OPTIMIZERS, OptimSettings
from .pictures import CaptionSettings, DataSettings, Folder
from .running import MachineSettings, OutputSettings, PreviewSettings, SaveSettings, ValidateSettings
from .setting import MINUTES, Section, argument, setting

__all__ = [
    "LENGTHS",
    "MINUTES",
    "MOST_STEPS",
    "OPTIMIZERS",
    "PATHS",
    "PLACES",
    "CaptionSettings",
    "DataSettings",
    "EmbeddingSettings",
    "Folder",
    "LoraSettings",
    "OptimSettings",
    "PreviewSettings",
    "TrainConfig",
    "ValidateSettings",
    "argument",
]

PATHS = (
    "model.base",
    "data.images",
    "data.masks",
    "data.regularisation",
    "validate.images",
    "lora.start",
    "output.dir",
)  # settings that name a place
PLACES = (*PATHS, "data.folders")  # and the one that names several

with warnings.catch_warnings():
    warnings.filterwarnings(
        "ignore", message='Field name "validate"'
    )  # pydantic's own is a relic of version 1

    class TrainConfig(Section):
        """A training run, whole. Sections are read as attributes: `config.lora.rank`."""

        version: Literal[1] = setting(1, "Of the settings file.", label="Version")
        seed: int = setting(
            42, "Same seed, same settings, same pictures: same LoRA.", label="Seed", ge=0, lt=2**32
        )
        model: ModelSettings = ModelSettings()
        data: DataSettings = DataSettings()
        captions: CaptionSettings = CaptionSettings()
        lora: LoraSettings = LoraSettings()
        embedding: EmbeddingSettings = EmbeddingSettings()
        optim: OptimSettings = OptimSettings()
        noise: NoiseSettings = NoiseSettings()
        loss: LossSettings = LossSettings()
        machine: MachineSettings = MachineSettings()
        save: SaveSettings = SaveSettings()
        preview: PreviewSettings = PreviewSettings()
        validate: ValidateSettings = ValidateSettings()
        output: OutputSettings = OutputSettings()
