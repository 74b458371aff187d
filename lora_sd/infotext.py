"""How a picture was made, as AUTOMATIC1111 writes it into PNG files, and as other programs read it back from there.

    a cat in the snow <lora:tabby:0.8>
    Negative prompt: blurry
    Steps: 8, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5, Seed: 42, Size: 512x512, Model: sd15, …

A value with a comma, a colon or a line break stands in quotes, as JSON has them. `<lora:NAME:TEXT:UNET>` is a LoRA whose
text encoders count differently; what blocks count is in "LoRA blocks", which only this program reads. No torch.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from . import __version__
from .files import written
from .lora.strength import Strength, parts

KEY = "parameters"  # of the PNG's text
SAMPLERS = {  # ours → (Sampler, Schedule type)
    "dpmpp_2m_karras": ("DPM++ 2M", "Karras"),
    "euler": ("Euler", ""),
    "euler_a": ("Euler a", ""),
    "ddim": ("DDIM", ""),
    "unipc": ("UniPC", ""),
}
SHORT = 12  # letters of a LoRA's hash
PAIR = re.compile(r'(\w[\w /-]*): ("(?:[^"\\]|\\.)*"|[^,]*)(?:, |,?$)')
TAG = re.compile(r"\s*<lora:([^:<>]+)((?::[^:<>]*)*)>")
UNNAMED = re.compile(r"[:<>,\s]+")  # what a name in a tag can't have
LEAST = 3  # pairs of the last line: fewer, and it is still the prompt


class Used(NamedTuple):
    """A LoRA as the text names it."""

    name: str
    strength: Strength
    hash: str = ""  # of its tensors, SHA-256


class Told(NamedTuple):
    """What a text says."""

    prompt: str
    negative: str
    loras: list[Used]
    pairs: dict[str, str]  # Steps, Seed, Size, …


def text(
    prompt: str,
    *,
    negative: str,
    seed: int,
    steps: int,
    guidance: float,
    sampler: str,
    size: tuple[int, int],
    base: str,
    loras: Sequence[Used] = (),
    rescale: float = 0.0,
    clip_skip: int | None = None,
    model_hash: str = "",
) -> str:
    """The text of one picture; a LoRA at strength 0 is not named."""
    used = [one._replace(name=UNNAMED.sub("_", one.name)) for one in loras if one.strength.whole]
    name, schedule = SAMPLERS[sampler]
    blocks = {one.name: _blocks(one.strength) for one in used if one.strength.blocks}
    pairs = {
        "Steps": steps,
        "Sampler": name,
        "Schedule type": schedule,
        "CFG scale": f"{guidance:g}",
        "Seed": seed,
        "Size": f"{size[0]}x{size[1]}",
        "Model hash": model_hash,
        "Model": Path(base).stem or base,
        "Clip skip": clip_skip or "",
        "CFG Rescale": f"{rescale:g}" if rescale else "",
        "RNG": "CPU",  # a seed means the same on every machine
        "Lora hashes": ", ".join(f"{one.name}: {one.hash[:SHORT]}" for one in used if one.hash),
        "LoRA blocks": ", ".join(f"{name} {text}" for name, text in blocks.items()),
        "Version": f"lora_sd {__version__}",
    }
    last = ", ".join(f"{key}: {_quoted(value)}" for key, value in pairs.items() if value != "")
    first = " ".join([prompt, *map(_tag, used)])
    return "\n".join([first, *([f"Negative prompt: {negative}"] if negative else []), last])


def _tag(used: Used) -> str:
    strength = used.strength
    text, unet = strength.whole * strength.text, strength.whole * strength.unet
    numbers = f"{unet:.6g}" if text == unet else f"{text:.6g}:{unet:.6g}"
    return f"<lora:{used.name}:{numbers}>"


def _blocks(strength: Strength) -> str:
    return " ".join(f"{name}={value:g}" for name, value in strength.blocks.items())


def _quoted(value: Any) -> str:
    plain = str(value)
    return json.dumps(plain, ensure_ascii=False) if re.search(r'[,:\n"]', plain) else plain


def parse(text: str) -> Told:
    """What a text says, of whatever program; words that are none of it stay in the prompt."""
    *lines, last = text.strip().split("\n")
    pairs = {key: _unquoted(value) for key, value in PAIR.findall(last.strip())}
    if len(pairs) < LEAST:
        lines, pairs = [*lines, last], {}
    head, _, negative = "\n".join(lines).partition("Negative prompt:")
    hashes = dict(_hashes(pairs.get("Lora hashes", "")))
    blocks = dict(_block_words(pairs.get("LoRA blocks", "")))
    loras = [_used(name, numbers, hashes, blocks) for name, numbers in TAG.findall(head)]
    return Told(TAG.sub("", head).strip(), negative.strip(), [one for one in loras if one], pairs)


def _used(name: str, numbers: str, hashes: Mapping[str, str], blocks: Mapping[str, str]) -> Used | None:
    """`("tabby", ":0.4:0.8")`: one number is both, of two the first is the text encoders'; others' words are left out."""
    try:
        given = [float(number) for number in numbers.split(":")[1:3]] or [1.0]
        text, unet = given[0], given[-1]
        more = parts(blocks.get(name, "").split())
        strength = Strength(unet, text=text / unet, **more) if unet else Strength(text, unet=0.0, **more)
    except ValueError:
        return None
    return Used(name, strength, hashes.get(name, ""))


def _hashes(text: str) -> list[tuple[str, str]]:
    split = (part.rpartition(":") for part in text.split(","))
    return [(name.strip(), value.strip()) for name, colon, value in split if colon]


def _block_words(text: str) -> list[tuple[str, str]]:
    return [(name, rest) for name, _, rest in (part.strip().partition(" ") for part in text.split(","))]


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value.strip()
    except ValueError:
        return value


def save(picture: Image.Image, path: Path, *, durable: bool = True) -> None:
    """Write a picture as PNG, with how it was made if it says so."""
    info = PngInfo()
    if told := picture.info.get(KEY):
        info.add_text(KEY, told)
    with written(path, durable=durable) as file:
        picture.save(file, format="PNG", pnginfo=info)


def of_picture(path: Path) -> str | None:
    """The text in a picture's file, of ours or another program's; ValueError where it is no picture."""
    try:
        with Image.open(path) as picture:
            found = picture.info.get(KEY)
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path.name} is not a picture that can be read.") from error
    return found if isinstance(found, str) and found.strip() else None
