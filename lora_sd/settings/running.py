"""Settings of the machine, and of what a run saves, shows and measures on the way."""

from typing import Literal

from .setting import EveryOrMinutes, Section, setting


class MachineSettings(Section):
    """The machine"""

    device: Literal["auto", "cuda", "mps", "cpu"] = setting(
        "auto", "Where to train; the graphics card where there is one.", label="Device"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto",
        "Number format of the base model: half precision on a graphics card, fp32 on the CPU.",
        label="Precision",
    )
    memory: Literal["auto", "fast", "low", "lowest"] = setting(
        "auto",
        "How to save graphics memory: auto takes the fastest that fits, low computes parts twice, lowest also keeps the base in 8 bits.",
        label="Memory",
    )
    cuda_graph: bool = setting(
        True,
        "Record the training step once and replay it, so that the card does not wait for Python; for NVIDIA cards.",
        label="Recorded steps",
    )


class SaveSettings(Section):
    """Saving"""

    every: EveryOrMinutes = setting(
        "25%",
        'How often a LoRA file is written on the way: steps, "10%", "2 epochs", "30 minutes", or 0 for only at the end.',
        label="Save every",
    )
    state_every: EveryOrMinutes = setting(
        "5 minutes",
        'How often all that a resume needs is saved: "5 minutes", steps, "10%", "2 epochs", or 0 for only with the LoRA files.',
        label="Save state every",
    )
    keep_last: int = setting(
        20,
        "How many of the LoRA files written on the way are kept, the newest; 0 keeps all. The final and the best one always stay.",
        label="Keep the last",
        ge=0,
        le=100_000,
    )
    keep_best: bool = setting(
        False,
        "Also keep the LoRA with the lowest held-out loss so far, as NAME-best.safetensors.",
        label="Keep the best",
    )
    layout: Literal["kohya", "peft"] = setting(
        "kohya",
        "Key names of the file: kohya loads everywhere, peft is what diffusers writes itself.",
        label="File layout",
    )
    dtype: Literal["fp16", "bf16", "fp32"] = setting(
        "fp16", "Number format of the file; fp16 is small and exact enough.", label="File precision"
    )


class PreviewSettings(Section):
    """Preview pictures"""

    every: EveryOrMinutes = setting(
        "25%",
        'How often preview pictures are made: steps, "10%", "2 epochs", "10 minutes", or 0 for never.',
        label="Preview every",
    )
    prompts: list[str] = setting(
        [],
        "What the preview pictures show, one prompt each; some of your captions if you give none.",
        label="Preview prompts",
    )
    negative: str = setting("", "What the preview pictures should not show.", label="Negative prompt")
    steps: int = setting(
        25,
        "Sampling steps of a preview picture; more is slower and a little finer.",
        label="Preview steps",
        ge=1,
        le=150,
    )
    guidance: float = setting(5.0, "How strongly the prompt is followed.", label="Guidance", ge=1, le=30)
    rescale: float = setting(
        0.0,
        "Keeps strong guidance from making pictures glaring; 0.7 suits models trained down to pure noise.",
        label="Guidance rescale",
        ge=0,
        le=1,
    )
    sampler: Literal["ddim", "euler", "euler_a", "dpmpp_2m_karras", "unipc"] = setting(
        "dpmpp_2m_karras", "The way from noise to picture.", label="Sampler"
    )
    seed: int = setting(
        42,
        "The noise that preview pictures start from; the same at every step, so that only learning changes them.",
        label="Preview seed",
        ge=0,
        lt=2**32,
    )


class ValidateSettings(Section):
    """Held-out loss"""

    images: str = setting(
        "",
        "A folder of pictures that are never trained on; their loss tells when over-fitting begins.",
        label="Held-out pictures",
    )
    split: float = setting(
        0.0,
        "Or: the share of your pictures to keep out of training for this.",
        label="Held-out share",
        ge=0,
        le=0.5,
    )
    every: EveryOrMinutes = setting(
        "10%",
        'How often the held-out loss is measured: steps, "10%", "2 epochs" or "10 minutes".',
        label="Measure every",
    )


class OutputSettings(Section):
    """The result"""

    dir: str = setting(
        "", "Where the run's folder goes; our runs folder unless you set it.", label="Output folder"
    )
    name: str = setting(
        "lora", "Name of the LoRA file.", label="Name", basic=True, min_length=1, max_length=120
    )
    trackers: list[Literal["tensorboard", "wandb"]] = setting(
        [],
        "Also tell the losses, rates and previews to tensorboard (kept in the run's folder) or wandb (Weights & Biases, on the network).",
        label="Trackers",
    )
    metadata: Literal["full", "minimal"] = setting(
        "full",
        "What the file tells of its training; minimal leaves out captions, tags and folder names.",
        label="Training details in the file",
    )
