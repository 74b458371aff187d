"""Settings ↔ components: every field of `TrainConfig` becomes one control by its type, and its value comes back checked."""

import json
import re
import shlex
import types
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import gradio as gr

from lora_sd import config as cfg
from lora_sd import flags
from lora_sd.config import Setting, TrainConfig
from lora_sd.kohya.table import DATASET, NETWORK, OPTIONS
from lora_sd.paths import shown
from lora_sd.settings import argument

ELSEWHERE = {
    "version",
    "model.base",
    "data.images",
    "data.trigger",
    "data.repeats",
    "output.name",
}  # have a place of their own on Make or Images
AUTOMATIC = "automatic"
NUMBER = re.compile(r"-?(\d{1,20}(\.\d{0,20})?|\.\d{1,20})(e-?\d{1,3})?", re.ASCII | re.IGNORECASE)


class Control(NamedTuple):
    """How a kind of setting is shown and read back."""

    build: Callable[..., gr.components.Component]
    show: Callable[[Any], Any]  # setting -> component value
    read: Callable[[Any], Any]  # component value -> setting; ValueError if it can't be one


def advanced() -> list[Setting]:
    """The settings of the form, in the order of the file."""
    return [setting for setting in cfg.settings() if setting.name not in ELSEWHERE]


@cache
def titles() -> dict[str, str]:
    """Dotted name -> what a person reads above the control."""
    return {setting.name: setting.field.title for setting in advanced()}


@cache
def other_names() -> dict[str, str]:
    """Element id -> by what names else its setting may be looked for: the dotted one, and those of sd-scripts."""
    theirs: dict[str, list[str]] = {name: [name] for name in titles()}
    for name, option in {**DATASET, **NETWORK, **OPTIONS}.items():
        for ours in option.ours:
            if ours in theirs:
                theirs[ours].append(name)
    return {element_id(name): " ".join(names) for name, names in theirs.items()}


def element_id(name: str) -> str:
    """Where the control of a setting is on the page. `"lora.rank" -> "set-lora-rank"`."""
    return "set-" + name.replace(".", "-")


def build() -> dict[str, gr.components.Component]:
    """One control for each advanced setting, grouped as in the file, by dotted name."""
    components: dict[str, gr.components.Component] = {}
    groups: dict[str, list[Setting]] = {}
    for setting in advanced():
        groups.setdefault(setting.group, []).append(setting)
    with gr.Row(elem_classes="groups"):
        for title, members in groups.items():
            with gr.Column(min_width=280, elem_classes="group"):
                gr.Markdown(f"#### {title}")
                for setting in members:
                    components[setting.name] = component(setting)
    return components


def component(setting: Setting) -> gr.components.Component:
    control = kind_of(setting)
    return control.build(
        label=setting.field.title,
        info=setting.field.description,
        value=control.show(default(setting)),
        elem_id=element_id(setting.name),
        interactive=True,
    )


def default(setting: Setting) -> Any:
    return setting.field.get_default(call_default_factory=True)


def kind_of(setting: Setting) -> Control:
    annotation, optional = _plain(setting.field.annotation)
    if get_origin(annotation) is Literal:
        return _choice(get_args(annotation), optional)
    if annotation is bool:
        return _answer() if optional else Control(gr.Checkbox, bool, bool)
    if annotation in (int, float):
        return _number(annotation, optional)
    if get_origin(annotation) is list and float in (
        get_args(annotation)[0],
        *get_args(get_args(annotation)[0]),
    ):
        return Control(_lines("one per line"), _show_numbers, _read_numbers)
    if get_origin(annotation) is list:  # of texts, or of what a text gives
        return Control(
            _lines("one per line"),
            lambda values: "\n".join(map(str, values)),
            lambda text: [s for s in map(str.strip, text.splitlines()) if s],
        )
    if annotation == dict[str, Any]:
        return Control(_lines("betas = [0.9, 0.99]"), _show_arguments, _read_arguments)
    if annotation in (dict[str, int], dict[str, float]):
        return _by_pattern(setting.name, get_args(annotation)[1])
    if annotation == int | str:
        return Control(gr.Textbox, str, _duration)
    if choices := setting.field.json_schema_extra["choices"]:
        return Control(_open_menu(choices), str, str.strip)
    return Control(gr.Textbox, str, str.strip)


def _plain(annotation: Any) -> tuple[Any, bool]:
    """The type without `| None`, and whether None was in it."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    kept = [part for part in parts if part is not types.NoneType]
    return (kept[0] if len(kept) == 1 else annotation), len(kept) < len(parts)


def _choice(names: tuple[str, ...], optional: bool) -> Control:
    choices = [AUTOMATIC, *names] if optional else list(names)

    def build(**options: Any) -> gr.Dropdown:
        return gr.Dropdown(choices, **options)

    return Control(
        build,
        lambda value: AUTOMATIC if value is None else value,
        lambda value: None if value == AUTOMATIC else value,
    )


def _answer() -> Control:
    """Yes or no, or automatic."""
    values = {AUTOMATIC: None, "yes": True, "no": False}
    words = {value: word for word, value in values.items()}

    def build(**options: Any) -> gr.Dropdown:
        return gr.Dropdown(list(values), **options)

    return Control(build, words.get, values.get)


def _number(kind: type, optional: bool) -> Control:
    def build(**options: Any) -> gr.Number:
        hint = AUTOMATIC if optional else None
        return gr.Number(
            placeholder=hint,
            precision=0 if kind is int else None,
            step=1 if kind is int else 0.0001,
            **options,
        )

    return Control(build, lambda value: value, lambda value: None if value is None else kind(value))


def _lines(hint: str) -> Callable[..., gr.Textbox]:
    def build(**options: Any) -> gr.Textbox:
        return gr.Textbox(lines=2, max_lines=8, placeholder=hint, **options)

    return build


def _by_pattern(name: str, kind: type) -> Control:
    """Whole numbers or others by layer-name pattern."""

    def is_one(text: str) -> bool:
        return _is_number(text) if kind is int else NUMBER.fullmatch(text.strip()) is not None

    def read(text: str) -> dict[str, Any]:
        numbers = {}
        for line in filter(str.strip, text.splitlines()):
            pattern, _, number = line.rpartition("=")
            if not pattern.strip() or not is_one(number):
                raise ValueError(
                    f"{name} has the line {shown(line.strip())!r}; write a pattern and its {name.rpartition('.')[2][:-1]}, "
                    "like unet.mid_block.* = 32."
                )
            numbers[pattern.strip().strip('"')] = kind(number)
        return numbers

    def show(numbers: Mapping[str, Any]) -> str:
        return "\n".join(f"{pattern} = {number}" for pattern, number in numbers.items())

    return Control(_lines("unet.mid_block.* = 32"), show, read)


def _show_numbers(numbers: list[float]) -> str:
    return "\n".join(map(str, numbers))


def _read_numbers(text: str) -> list[float]:
    words = re.split(r"[\s,;]+", text.strip()) if text.strip() else []
    if wrong := next((word for word in words if not NUMBER.fullmatch(word)), None):
        raise ValueError(f"{shown(wrong)!r} is no number; write them like 5e-5, one per line.")
    return [float(word) for word in words]


def _show_arguments(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())


def _read_arguments(text: str) -> dict[str, Any]:
    lines = [line.partition("=") for line in filter(str.strip, text.splitlines())]
    if wrong := next((name for name, equals, _ in lines if not (equals and name.strip())), None):
        raise ValueError(
            f"optim.arguments has the line {shown(wrong.strip())!r}; write a name and its value, like betas = [0.9, 0.99]."
        )
    return {name.strip(): argument(value.strip()) for name, _, value in lines}


def _open_menu(choices: list[str]) -> Callable[..., gr.Dropdown]:
    def build(**options: Any) -> gr.Dropdown:
        return gr.Dropdown(choices, allow_custom_value=True, **options)

    return build


def _duration(text: str) -> int | str:
    """Steps as a number, "10%" and "2 epochs" as they are."""
    return int(text) if _is_number(text) else text.strip()


def _is_number(text: str) -> bool:
    return (
        re.fullmatch(r"\s*[0-9]{1,9}\s*", text) is not None
    )  # ² is a digit, and Python reads no number of 5,000


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of component values, by dotted name. Raises ValueError for a value that can't be one."""
    known = {setting.name: setting for setting in advanced()}
    return {name: kind_of(known[name]).read(value) for name, value in values.items()}


def show(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Component values of settings."""
    known = {setting.name: setting for setting in advanced()}
    return {name: kind_of(known[name]).show(value) for name, value in settings.items()}


def with_defaults(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of the form: its default, or what `changes` says."""
    return {setting.name: changes.get(setting.name, default(setting)) for setting in advanced()}


def config(settings: Mapping[str, Any]) -> TrainConfig:
    """The validated config of `{dotted name: value}`. Raises ValueError with one sentence."""
    return cfg.changed(TrainConfig(), settings)


def as_command(config: TrainConfig) -> str:
    """The command that trains the same LoRA."""
    return shlex.join(["python", "-m", "lora_sd", "train", *flags.command(config)])


def as_python(config: TrainConfig) -> str:
    """The Python that trains the same LoRA."""
    pairs = "\n".join(
        f"    {json.dumps(name)}: {value!r}," for name, value in cfg.differences(config).items()
    )
    return f"import lora_sd\nfrom lora_sd.config import changed\n\nconfig = changed(lora_sd.TrainConfig(), {{\n{pairs}\n}})\nlora_sd.train(config)\n"


def as_toml(config: TrainConfig) -> str:
    """The settings file of the same LoRA; what is not in it stays at its default."""
    return cfg.dumps(config)
