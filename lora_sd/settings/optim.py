"""Settings of how it learns: optimizer, rates, schedule, length."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ..paths import is_text, shown
from .setting import Every, Section, setting

OPTIMIZERS = ("AdamW", "AdamW8bit", "Lion", "Adafactor", "Prodigy", "AdamWScheduleFree")
LENGTHS = ("optim.steps", "optim.epochs", "optim.images_seen")  # a run has one of them
DEFAULT_STEPS = 1000
MOST_STEPS = 1_000_000
CLASS = re.compile(r"^[A-Za-z_]\w{0,99}(\.[A-Za-z_]\w{0,99}){1,9}$", re.ASCII)


def _optimizer(name: str) -> str:
    if name not in OPTIMIZERS and not CLASS.match(name):
        raise ValueError(f"it must be {', '.join(OPTIMIZERS)}, or a package.Class such as torch.optim.RAdam")
    return name


def _arguments(values: dict[str, Any]) -> dict[str, Any]:
    for name, value in values.items():
        if not all(_is_simple(part) for part in (value if isinstance(value, list) else [value])):
            raise ValueError(f"{shown(name)!r} must be a number, true, false, a word, or a list of those")
    return values


def _is_simple(value: Any) -> bool:
    return is_text(value) if isinstance(value, str) else isinstance(value, int | float) and abs(value) < 1e300


Optimizer = Annotated[str, AfterValidator(_optimizer)]
Arguments = Annotated[dict[str, Any], AfterValidator(_arguments)]
Rates = Annotated[
    list[Annotated[float, Field(gt=0, le=10)]],
    BeforeValidator(lambda given: given if isinstance(given, list) else [given]),
]


class OptimSettings(Section):
    """Learning"""

    learning_rate: float = setting(
        1e-4,
        "How far each step goes; too high looks burnt, too low learns nothing.",
        label="Learning rate",
        gt=0,
        le=10,
    )
    text_encoder_rate: Rates = setting(
        [],
        "Learning rates of the text encoders, one for all or one each; that of the U-Net unless you set it.",
        label="Text encoder rate",
    )
    optimizer: Optimizer = setting(
        "AdamW",
        "How steps follow from what was learned: AdamW is good for nearly everything, Prodigy finds its own rate (set learning rate 1), AdamW8bit and Adafactor need less memory.",
        label="Optimizer",
        choices=OPTIMIZERS,
    )
    arguments: Arguments = setting(
        {},
        "What else the optimizer is told, by its own names: {betas = [0.9, 0.99]}.",
        label="Optimizer arguments",
    )
    steps: int | None = setting(
        None,
        "How long to train, in updates of the LoRA; 1,000 unless you set the length here or below.",
        label="Steps",
        basic=True,
        ge=1,
        le=MOST_STEPS,
    )
    epochs: int | None = setting(
        None,
        "Or: how often all pictures are gone through, each as often as its folder says; the steps follow from that.",
        label="Epochs",
        ge=1,
        le=MOST_STEPS,
    )
    images_seen: int | None = setting(
        None,
        "Or: how many pictures are looked at in all, those shown again included; the steps follow from that.",
        label="Pictures seen",
        ge=1,
        le=1_000_000_000,
    )
    batch_size: int = setting(
        1,
        "Pictures looked at together in one pass, over all cards; more is steadier and needs more memory.",
        label="Batch size",
        ge=1,
        le=1024,
    )
    accumulation: int = setting(
        1,
        "Passes collected before one update: a larger batch without more memory.",
        label="Accumulation",
        ge=1,
        le=1024,
    )
    schedule: Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial", "rex"] = setting(
        "constant",
        "How the learning rate goes on: the same to the end, or down to zero: straight, gently, several times, early or late (rex).",
        label="Schedule",
    )
    cycles: int = setting(
        3,
        "How often the schedule cosine_with_restarts goes down; each time from the whole learning rate.",
        label="Restarts",
        ge=1,
        le=100,
    )
    power: float = setting(
        2.0,
        "Of the schedule polynomial: 1 falls straight, more falls early and then slowly.",
        label="Power",
        gt=0,
        le=20,
    )
    warmup: Every = setting(
        0, 'Steps, or a share like "5%", in which the learning rate rises from zero.', label="Warm-up"
    )
    weight_decay: float = setting(
        0.01, "Pulls the weights towards zero; seldom worth a change.", label="Weight decay", ge=0, le=10
    )
    max_grad_norm: float = setting(
        1.0,
        "Gradients longer than this are shortened to it; 0 turns that off.",
        label="Gradient clipping",
        ge=0,
    )
    ema: float = setting(
        0.0,
        "Files, previews and held-out loss use an average of the last steps, which is steadier than the last: 0.99 to 0.9999, 0 is off.",
        label="Average of the weights (EMA)",
        ge=0,
        le=0.999999,
    )

    @property
    def known_steps(self) -> int:
        """The length of a run in steps, where no pictures have to be counted for that; else 0."""
        return self.steps or (0 if self.epochs or self.images_seen else DEFAULT_STEPS)
