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
    zero_snr: bool | None = setting(
        None,
        "Whether the model was trained down to pure noise (zero terminal SNR), as NoobAI's v-prediction models were; "
        "found in the model unless you set it.",
        label="Zero terminal SNR",
    )
    clip_skip: int | None = setting(
        None,
        "Which layer of the text encoder to use, counted from the end; 2 for many anime models of SD 1.x.",
        label="Clip skip",
        ge=1,
        le=12,
    )
