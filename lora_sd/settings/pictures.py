"""Settings of the pictures and their captions."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ValidationInfo, model_validator

from ..paths import shown
from .setting import Section, setting

MOST_REPEATS = 999  # of a picture in an epoch
MOST_NAMES = 1000  # a settings file has to hold them
LONGEST_NAME = 300


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


def _to_draw(count: int, info: ValidationInfo) -> int:
    if count and info.data.get("regularisation"):
        raise ValueError("it must be 0 where data.regularisation is a folder of them")
    if count and not str(info.data.get("regularisation_caption", "")).strip():
        raise ValueError('it needs data.regularisation_caption, what they shall show, as in "a cat"')
    return count


def _repeats(repeats: dict[str, int]) -> dict[str, int]:
    for name, times in repeats.items():
        if not 0 <= times <= MOST_REPEATS:
            raise ValueError(f"the repeats of {shown(name)!r} must be 0 to {MOST_REPEATS}")
        if len(name) > LONGEST_NAME:
            raise ValueError(f"a name or pattern must have at most {LONGEST_NAME} letters")
    if len(repeats) > MOST_NAMES:
        raise ValueError(
            f"it has {len(repeats):,} names, and the limit is {MOST_NAMES:,}; use a pattern, or a subfolder named 0_off"
        )
    return repeats


class DataSettings(Section):
    """The pictures"""

    images: str = setting(
        "",
        "The folder of pictures, flat or nested; a subfolder named 5_cat counts each of its pictures five times.",
        label="Pictures",
        basic=True,
    )
    repeats: Annotated[dict[str, int], AfterValidator(_repeats)] = setting(
        {},
        "How often pictures of this folder count, by their path in it or a pattern like face*: 0 leaves them out; the last that fits decides.",
        label="Repeats of single pictures",
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
        "Enlarge pictures that are smaller than the training size; off, they train at their own size down to the shortest side.",
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
        "How many parts of a picture that is longer in shape than its training size are shown in turn; 1 is the middle only.",
        label="Crops",
        ge=1,
        le=64,
    )
    regularisation: str = setting(
        "",
        "A folder of pictures of the kind of thing that your subject is, so that the base model does not forget it; as many are shown as of yours.",
        label="Regularisation pictures",
    )
    regularisation_caption: str = setting(
        "",
        'What regularisation pictures show, as in "a cat"; put in front of every caption of theirs without it.',
        label="Regularisation caption",
    )
    regularisation_draw: Annotated[int, AfterValidator(_to_draw)] = setting(
        0,
        "Or: how many regularisation pictures the base model draws of the regularisation caption before training; 0 is none.",
        label="Draw regularisation pictures",
        ge=0,
        le=10_000,
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
        "Read {red|blue} in a caption as one of these words, drawn anew each time; {{ and }} are plain braces then.",
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
