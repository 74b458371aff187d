"""A command line of sd-scripts, as people keep it in .sh, .bat, .ps1 and .txt files → options."""

import re
from typing import Any

from .values import is_set

SCRIPT = re.compile(r"(?:^|[\\/])((?:sdxl_)?train_network)(?:\.py)?$")
OTHER_SCRIPT = re.compile(r"(?:^|[\\/])(\w*train\w*)\.py$")
CONTINUED = re.compile(r"[\\^`][ \t]*\r?\n[ \t]*")
COMMENT = re.compile(r"^\s*(#|::|@?rem\b)", re.IGNORECASE)
VARIABLE = re.compile(
    r"^\s*(?:export\s+|set\s+|local\s+|\$)?[\"']?(\w{1,60})[\"']?\s*=\s*(.{0,1000})$", re.IGNORECASE
)
USED = re.compile(r"%(\w{1,60})%|\$\{(\w{1,60})\}|\$(\w{1,60})")
WORD = re.compile(r"(?:\"[^\"]*\"|'[^']*'|[^\s\"'])+")
LIST = (
    "network_args",
    "optimizer_args",
    "lr_scheduler_args",
    "base_weights",
    "base_weights_multiplier",
    "text_encoder_lr",
)
LONGEST = 1000  # letters of a script's path
ENDS = ("&&", "||", ";", "|", "&")


def options(text: str, name: str) -> tuple[dict[str, Any], bool | None]:
    """The options of the first training command in it, and whether that is for SDXL."""
    lines = [line for line in CONTINUED.sub(" ", text).splitlines() if not COMMENT.match(line)]
    variables = {
        found[1].lower(): found[2].strip().strip("\"'") for line in lines if (found := VARIABLE.match(line))
    }
    for line in lines:
        words = [_plain(word) for word in WORD.findall(_filled(line, variables))]
        for place, word in enumerate(words):
            if len(word) > LONGEST:
                continue
            if script := SCRIPT.search(word):
                return _options(words[place + 1 :]), script[1].startswith("sdxl")
            if (other := OTHER_SCRIPT.search(word)) and "--" in line:
                raise ValueError(
                    f"{name} has a command of {other[1]}.py; only those of train_network.py and sdxl_train_network.py "
                    "train a LoRA of Stable Diffusion."
                )
    words = [_plain(word) for word in WORD.findall(_filled(" ".join(lines), variables))]
    found = _options(words[next((i for i, word in enumerate(words) if word.startswith("--")), len(words)) :])
    if not found:
        raise ValueError(
            f"{name} has no command of sd-scripts in it, such as: train_network.py --network_dim 16."
        )
    return found, None


def _filled(line: str, variables: dict[str, str]) -> str:
    """Variables that the file itself sets, put in; once, so that none can grow."""
    if len(line) > 100_000 or line.count("$") + line.count("%") > 1000:
        return line
    return USED.sub(lambda used: variables.get(next(filter(None, used.groups())).lower(), used[0]), line)


def _plain(word: str) -> str:
    return re.sub(r"\"([^\"]*)\"|'([^']*)'", lambda quoted: quoted[1] or quoted[2] or "", word)


def _options(words: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    name = ""
    for word in words:
        if word in ENDS:
            break
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            found[name] = [value] if equals else []
        elif name:
            found[name].append(word)
    return {name: _value(name, values) for name, values in found.items() if _value(name, values) is not None}


def _value(name: str, values: list[str]) -> Any:
    values = [value for value in values if is_set(value)]
    if name in LIST:
        return values or None
    return True if not values else values[0]
