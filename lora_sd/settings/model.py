"""Settings of the base model."""

from typing import Literal

from .setting import Section, setting


class ModelSettings(Section):
    """The base model"""

    base: str = setting(
        "starter",
        "The model to teach: a .safetensors file, a diffusers folder, a Hugging Face name, or 'starter'.",
        label="Base model",
        basic=True,
    )
    prediction: Literal["epsilon", "v_prediction"] | None = setting(
        None,
        "What the model was trained to predict; found in the model unless you set it.",
        label="Prediction type",
    )
    clip_skip: int | None = setting(
        None,
        "Which layer of the text encoder to use, counted from the end; 2 for many anime models of SD 1.x.",
        label="Clip skip",
        ge=1,
        le=12,
    )
