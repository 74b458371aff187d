"""Every setting of a training run, described once: type, default, limits, and the sentence an artist reads.

Validation, TOML, the command line, the form in the page and the docs all come from here; `config.py` works with them.
"""

import json
import re
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from .paths import is_text, shown

EVERY = re.compile(r"^(\d{1,9}|\d{1,9}(\.\d{1,9})?\s*%|\d{1,9}(\.\d{1,9})?\s*epochs?|off)$")
MINUTES = re.compile(r"^(\d{1,9}(\.\d{1,9})?)\s*(min|minutes?)$")
PATHS = (
    "model.base",
    "data.images",
    "data.masks",
    "data.regularisation",
    "validate.images",
    "lora.start",
    "output.dir",
)  # settings that name a place
OPTIMIZERS = ("AdamW", "AdamW8bit", "Lion", "Adafactor", "Prodigy", "AdamWScheduleFree")
CLASS = re.compile(r"^[A-Za-z_]\w{0,99}(\.[A-Za-z_]\w{0,99}){1,9}$", re.ASCII)
MOST_RANK = 1024
LONGEST_PATTERN = 200


def _every(value: int | str) -> int | str:
    if not EVERY.match(str(value).strip()):
        raise ValueError('write a number of steps, a share like "10%", "2 epochs", or 0 for off')
    return int(value) if str(value).strip().isdecimal() else value


def _every_or_minutes(value: int | str) -> int | str:
    return value if MINUTES.match(str(value).strip()) else _every(value)


Every = Annotated[int | str, AfterValidator(_every)]  # steps, "10%", "2 epochs", 0 or "off"
EveryOrMinutes = Annotated[int | str, AfterValidator(_every_or_minutes)]  # or "5 minutes"


def _ranks(ranks: dict[str, int]) -> dict[str, int]:
    for pattern, rank in ranks.items():
        if not 0 <= rank <= MOST_RANK:
            raise ValueError(f"the rank of {shown(pattern)!r} must be 0 to {MOST_RANK}")
        if len(pattern) > LONGEST_PATTERN:
            raise ValueError(f"a pattern must have at most {LONGEST_PATTERN} letters")
    return ranks


Ranks = Annotated[dict[str, int], AfterValidator(_ranks)]


def _above_min(value: int, info: ValidationInfo) -> int:
    if value <= (lowest := info.data.get("min_timestep", 0)):
        raise ValueError(f"it must be more than noise.min_timestep, which is {lowest}")
    return value


AboveMin = Annotated[int, AfterValidator(_above_min)]


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


def setting(
    default: Any, help: str, *, label: str, basic: bool = False, choices: Sequence[str] = (), **limits: Any
) -> Any:
    """A field of the config: `help` is one plain sentence, `basic` ones are shown without opening Advanced.

    `choices` are offered for a text that can be others, too.
    """
    extra = {"basic": basic, "choices": list(choices)}
    return Field(default, description=help, title=label, json_schema_extra=extra, **limits)


def argument(text: str) -> Any:
    """A value as a person writes it in a line: a number, true, a list in brackets, or else a word.

    >>> argument("0.9"), argument("[0.9, 0.99]"), argument("true"), argument("fast")
    (0.9, [0.9, 0.99], True, 'fast')
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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


class Folder(Section):
    """A folder of pictures with settings of its own; what is not set is as for all. A text is its path, or all of it as JSON."""

    path: str = setting(..., "The folder, flat or nested.", label="Folder", min_length=1)
    repeats: int = setting(1, "How often each of its pictures counts.", label="Repeats", ge=1, le=999)
    weight: float = setting(1.0, "How much each of its pictures teaches.", label="Weight", ge=0, le=10)
    trigger: str | None = setting(None, "Its trigger word.", label="Trigger word")
    prefix: str | None = setting(None, "Words put before its captions.", label="Before captions")
    flip: bool | None = setting(None, "Whether its pictures are shown mirrored, too.", label="Mirror")
    masks: str = setting("", "The folder of its masks.", label="Masks")

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value) if value.lstrip().startswith("{") else {"path": value.strip()}
        except (ValueError, RecursionError) as error:
            raise ValueError('write a path, or JSON like {"path": "cats", "repeats": 2}') from error

    def __str__(self) -> str:
        own = self.model_dump(exclude_defaults=True)
        return json.dumps(own, ensure_ascii=False) if len(own) > 1 or "{" in self.path else self.path

    def __repr__(self) -> str:
        return repr(str(self))


class DataSettings(Section):
    """The pictures"""

    images: str = setting(
        "",
        "The folder of pictures, flat or nested; a subfolder named 5_cat counts each of its pictures five times.",
        label="Pictures",
        basic=True,
    )
    folders: list[Folder] = setting(
        [],
        'More folders, each with its own settings: a path, or {"path": "cats", "repeats": 2, "trigger": "mycat"}.',
        label="More folders",
        max_length=100,
    )
    trigger: str = setting(
        "",
        "The word you will type to call this LoRA; put in front of every caption without it.",
        label="Trigger word",
        basic=True,
    )
    resolution: int | None = setting(
        None,
        "Side in pixels of a square of equal area; the model's own size unless you set it.",
        label="Resolution",
        ge=64,
        le=4096,
    )
    buckets: bool = setting(
        True,
        "Train wide and tall pictures in their own shapes; off, each is cropped to a square.",
        label="Shapes of their own",
    )
    enlarge: bool = setting(
        True,
        "Enlarge pictures that are smaller than the training size; off, they train at their own size down to the smallest side.",
        label="Enlarge small pictures",
    )
    bucket_step: int | None = setting(
        None,
        "Sides of training sizes are multiples of this many pixels; the model's own step unless you set it.",
        label="Step of sides",
        ge=8,
        le=512,
        multiple_of=8,
    )
    bucket_min: int | None = setting(
        None,
        "The shortest side of a training size, in pixels; half the resolution unless you set it.",
        label="Shortest side",
        ge=8,
        le=4096,
    )
    bucket_max: int | None = setting(
        None,
        "The longest side of a training size, in pixels; twice the resolution unless you set it.",
        label="Longest side",
        ge=8,
        le=16384,
    )
    captions: Literal["files", "filename"] = setting(
        "files",
        "Where captions come from: caption files beside the pictures, or the pictures' file names.",
        label="Captions from",
    )
    flip: bool = setting(
        False,
        "Show pictures mirrored half of the time; not for writing, or faces and things whose sides differ.",
        label="Mirror",
    )
    crops: int = setting(
        1,
        "How many parts of a picture that is longer than its training size are shown in turn; 1 is the middle only.",
        label="Crops",
        ge=1,
        le=64,
    )
    regularisation: str = setting(
        "",
        "A folder of pictures of what your subject is one of, so that the base model does not forget it; as many are shown as of yours.",
        label="Regularisation pictures",
    )
    regularisation_caption: str = setting(
        "",
        'What regularisation pictures show, as in "a cat"; put in front of every caption of theirs without it.',
        label="Regularisation caption",
    )
    regularisation_weight: float = setting(
        1.0,
        "How much regularisation pictures count beside yours.",
        label="Regularisation weight",
        ge=0,
        le=10,
    )
    masks: str = setting(
        "",
        "A folder of masks named as the pictures: what is white is learned, what is black is not.",
        label="Masks",
    )
    alpha_mask: bool = setting(
        False,
        "Learn nothing from the transparent parts of pictures, such as cut-outs.",
        label="Transparency is a mask",
    )
    on_bad_image: Literal["stop", "skip"] = setting(
        "stop",
        "What to do about a picture that can't be read: stop and name it, or train without it.",
        label="Damaged pictures",
    )


class CaptionSettings(Section):
    """The captions"""

    prefix: str = setting("", "Words put before every caption; they stay there.", label="Before captions")
    suffix: str = setting("", "Words put after every caption; they stay there.", label="After captions")
    shuffle: bool = setting(
        False,
        "Another order of the tags, which commas part, each time a picture is shown; for tags, not for sentences.",
        label="Shuffle tags",
    )
    keep: int | None = setting(
        None,
        "How many tags at the front are neither moved nor left out; one where there is a trigger word unless you set it.",
        label="Tags that stay",
        ge=0,
        le=1000,
    )
    keep_separator: str = setting(
        "|||",
        "In a caption, ends the tags that stay in front; a second one begins tags that stay at the end, and neither is learned.",
        label="Mark after tags that stay",
    )
    tag_dropout: float = setting(
        0.0,
        "How often a tag is left out, so that the LoRA can do without it; up to 0.1 is usual.",
        label="Tags left out",
        ge=0,
        le=1,
    )
    dropout: float = setting(
        0.0,
        "How often a picture is shown without any caption; up to 0.1 is usual, for styles.",
        label="Captions left out",
        ge=0,
        le=1,
    )
    wildcards: bool = setting(
        False,
        "Read {red|blue} in a caption as one of these words, another each time; {{ and }} are plain braces then.",
        label="Choices in captions",
    )
    weights: bool = setting(
        False,
        "Read (red:1.3), (red) and [red] in captions and preview prompts as words that count more or less, as A1111 does.",
        label="Weights in captions",
    )
    lines: bool = setting(
        False,
        "Read every line of a caption file as a caption of its own, one of which is taken each time.",
        label="A caption a line",
    )


class LoraSettings(Section):
    """The LoRA"""

    rank: int = setting(
        16,
        "How much the LoRA can hold; higher learns finer detail and makes a larger file.",
        label="Rank",
        ge=1,
        le=MOST_RANK,
    )
    alpha: float | None = setting(
        None,
        "The update is scaled by alpha / rank; half the rank unless you set it.",
        label="Alpha",
        gt=0,
        le=4096,
    )
    rank_stabilized: bool = setting(
        False,
        "Scale by alpha / √rank instead, so that high ranks learn as fast as low ones (rsLoRA); alpha is then best near 4.",
        label="Rank-stabilized",
    )
    conv_rank: int = setting(
        0,
        "The rank of convolutions that look at more than one point, where lora.targets has them; 0 for the same rank as the rest.",
        label="Convolution rank",
        ge=0,
        le=MOST_RANK,
    )
    conv_alpha: float = setting(
        0.0,
        "The alpha of these convolutions; 0 for the same strength as the rest.",
        label="Convolution alpha",
        ge=0,
        le=4096,
    )
    targets: Literal["attention", "attention-qv", "transformer", "full"] = setting(
        "attention",
        "Which layers learn: attention is enough for most subjects, transformer adds the feed-forward layers, full adds convolutions.",
        label="Layers",
    )
    ranks: Ranks = setting(
        {},
        'Ranks by layer-name pattern, over the preset: {"unet.mid_block.*" = 32}; 0 leaves a layer out.',
        label="Ranks by pattern",
    )
    text_encoders: bool = setting(
        False,
        "Train the text encoders too; helps a new word to take, and over-fits sooner.",
        label="Train text encoders",
    )
    dropout: float = setting(
        0.0,
        "The share of the numbers going into the LoRA that each pass leaves out by chance; 0.1 over-fits later.",
        label="Dropout",
        ge=0,
        le=0.95,
    )
    rank_dropout: float = setting(
        0.0,
        "The share of the ranks that each pass leaves out by chance, for each picture; 0.1 to 0.3 over-fits later.",
        label="Rank dropout",
        ge=0,
        le=0.95,
    )
    module_dropout: float = setting(
        0.0,
        "The share of the layers that each pass leaves as in the base model, by chance; 0.1 over-fits later.",
        label="Layer dropout",
        ge=0,
        le=0.95,
    )
    max_norm: float = setting(
        0.0,
        "No layer's update becomes larger than this: 1 keeps a LoRA from burning and lets it mix with others; 0 is off.",
        label="Largest update",
        ge=0,
        le=1000,
    )
    plus_ratio: float = setting(
        1.0,
        "How many times faster the second matrix of each layer learns than the first (LoRA+): 4 to 16 learns sooner, 1 is off.",
        label="LoRA+ ratio",
        ge=1,
        le=100,
    )
    train_down: bool = setting(
        True,
        "Off keeps the first matrix of each layer as it began: half as much learns, which needs less memory.",
        label="Train both matrices",
    )
    start: str = setting(
        "",
        "A LoRA file to go on from, of any rank and alpha; training starts at exactly its strength.",
        label="Start from LoRA",
    )


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
    steps: int = setting(
        1000, "How long to train, in updates of the LoRA.", label="Steps", basic=True, ge=1, le=1_000_000
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
        "Updates larger than this are shortened to it; 0 turns that off.",
        label="Gradient clipping",
        ge=0,
    )


class NoiseSettings(Section):
    """The noise"""

    offset: float = setting(
        0.0,
        "Lets very dark and very bright pictures be learnt, by noise that shifts whole channels; 0.05 is usual, 0 is off.",
        label="Noise offset",
        ge=0,
        le=1,
    )
    offset_random: bool = setting(
        False,
        "Draw the noise offset of each picture anew, between 0 and what is set.",
        label="Random noise offset",
    )
    offset_adaptive: float = setting(
        0.0,
        "Noise offset that grows with how dark, bright or coloured a picture is as a whole; 0 is off.",
        label="Adaptive noise offset",
        ge=-1,
        le=1,
    )
    pyramid: int = setting(
        0,
        "Levels of coarser noise on top (multires noise), for large shapes and light; 6 is usual, 0 is off.",
        label="Pyramid noise levels",
        ge=0,
        le=16,
    )
    pyramid_discount: float = setting(
        0.3,
        "How strong each level of pyramid noise is beside the one before.",
        label="Pyramid noise discount",
        gt=0,
        le=1,
    )
    perturbation: float = setting(
        0.0,
        "More noise in what the model sees than in what it must find (ip noise gamma), against over-fitting; 0.1 is usual, 0 is off.",
        label="Input perturbation",
        ge=0,
        le=1,
    )
    perturbation_random: bool = setting(
        False,
        "Draw the input perturbation of each picture anew, between 0 and what is set.",
        label="Random input perturbation",
    )
    min_timestep: int = setting(
        0,
        "The lowest noise level trained on, of 0 to 999: higher leaves out fine detail.",
        label="Lowest timestep",
        ge=0,
        le=999,
    )
    max_timestep: AboveMin = setting(
        1000,
        "Training stays below this noise level: lower leaves out composition.",
        label="Timesteps below",
        ge=1,
        le=1000,
    )
    density: Literal["uniform", "logit_normal"] = setting(
        "uniform",
        "How often noise levels come: all alike, or those in the middle more often (logit-normal).",
        label="Timestep density",
    )
    logit_mean: float = setting(
        0.0,
        "Where the peak of logit-normal timesteps lies: above 0 is more noise, below 0 is less.",
        label="Logit-normal mean",
        ge=-5,
        le=5,
    )
    logit_std: float = setting(
        1.0,
        "How wide the peak of logit-normal timesteps is.",
        label="Logit-normal width",
        gt=0,
        le=5,
    )
    shift: float = setting(
        1.0,
        "Moves timesteps of either density: above 1 to more noise, for large shapes, below 1 to less, for detail.",
        label="Timestep shift",
        gt=0,
        le=20,
    )


class LossSettings(Section):
    """The loss"""

    weighting: Literal["min_snr", "soft_min_snr", "debiased"] = setting(
        "min_snr",
        "How easy and hard noise levels are evened out: by Min-SNR, sharply or softly bounded by gamma, or by debiased estimation.",
        label="Weighting",
    )
    min_snr: float = setting(
        5.0,
        "Gamma of Min-SNR, sharp or soft: the lower, the less easy noise levels count; 5 is usual, 0 turns it off.",
        label="Min-SNR gamma",
        ge=0,
        le=100,
    )
    kind: Literal["l2", "l1", "huber", "smooth_l1"] = setting(
        "l2",
        "How errors count: squared (l2), by size (l1), or large ones by size (huber, smooth_l1), for sets with faulty pictures.",
        label="Loss",
    )
    huber_c: float = setting(
        0.1,
        "Where large errors begin for huber and smooth_l1, at the highest noise level.",
        label="Huber threshold",
        ge=0.001,
        le=1,
    )
    huber_schedule: Literal["snr", "exponential", "constant"] = setting(
        "snr",
        "How the Huber threshold falls from 1 to that as noise grows: by signal-to-noise ratio, exponentially, or not at all.",
        label="Huber schedule",
    )
    huber_scale: float = setting(
        1.0, "A factor on the Huber threshold at every noise level.", label="Huber scale", ge=0.01, le=100
    )
    keep_base: float = setting(
        0.0,
        "Pulls back to what the base model alone would answer, so that less is forgotten; 0.1 to 1 is usual, each step takes longer, 0 is off.",
        label="Keep the base",
        ge=0,
        le=100,
    )


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
        "Record the training step once and replay it, which is several times faster; for NVIDIA cards.",
        label="Recorded steps",
    )


class SaveSettings(Section):
    """Saving"""

    every: Every = setting(
        "25%",
        'How often a LoRA file is written on the way: steps, "10%", "2 epochs", or 0 for only at the end.',
        label="Save every",
    )
    state_every: EveryOrMinutes = setting(
        "5 minutes",
        'How often all that a resume needs is saved: "5 minutes", steps, "10%", "2 epochs", or 0 for only with the LoRA files.',
        label="Save state every",
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

    every: Every = setting(
        "25%",
        'How often preview pictures are made: steps, "10%", "2 epochs", or 0 for never.',
        label="Preview every",
    )
    prompts: list[str] = setting(
        [],
        "What the preview pictures show, one prompt each; your first captions if you give none.",
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
    every: Every = setting(
        "10%", 'How often the held-out loss is measured: steps, "10%" or "2 epochs".', label="Measure every"
    )


class OutputSettings(Section):
    """The result"""

    dir: str = setting(
        "", "Where the run's folder goes; our runs folder unless you set it.", label="Output folder"
    )
    name: str = setting(
        "lora", "Name of the LoRA file.", label="Name", basic=True, min_length=1, max_length=120
    )
    metadata: Literal["full", "minimal"] = setting(
        "full",
        "What the file tells of its training; minimal leaves out captions, tags and folder names.",
        label="Training details in the file",
    )


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
        optim: OptimSettings = OptimSettings()
        noise: NoiseSettings = NoiseSettings()
        loss: LossSettings = LossSettings()
        machine: MachineSettings = MachineSettings()
        save: SaveSettings = SaveSettings()
        preview: PreviewSettings = PreviewSettings()
        validate: ValidateSettings = ValidateSettings()
        output: OutputSettings = OutputSettings()
