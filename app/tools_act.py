"""What the Tools page is asked for, as one command of the workshop: the words of its command line, and the Python that does the same.

All that comes from the page is checked here; files are chosen by the menus or at this computer (reach.py). New files have
names of their own in our folder of models and replace nothing.
"""

import math
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lora_sd import run
from lora_sd.lora.inspection import inspect
from lora_sd.lora.metadata import TEXTS
from lora_sd.models import find
from lora_sd.paths import shown

from . import loras, models, places
from .words import say

MOST_LORAS = 6  # at once
Values = Mapping[str, Any]


class Code(str):
    """Python that is written as it is."""

    def __repr__(self) -> str:
        return str(self)


class Act(NamedTuple):
    words: list[str]  # after `python -m lora_sd`
    python: str
    out: Path | None = None  # the new file or folder

    @property
    def command(self) -> str:
        return "python -m lora_sd " + shlex.join(self.words)


def act(values: Values) -> Act:
    """What the page's values ask for. ValueError for what can't be."""
    if values["tool"] not in ACTS:
        raise ValueError(say("Choose what to do."))
    return ACTS[values["tool"]](values)


# -- one for each tool -------------------------------------------------------------------------------------------------


def look(values: Values) -> Act:
    path, family = _lora(values["lora"]), _family(values)
    other = str(_lora(values["other"])) if values["other"] else None
    base = _base(values["look_base"]) if values["look_base"] else None
    of = {"of": values["of"]} if other and values["of"] != "delta" else {}
    words = ["analyse", str(path), *([other] if other else [])]
    python = [
        "from lora_sd.workshop.analysis import analyse_file",
        f"print({_call('analyse_file', [str(path)], family)})",
    ]
    if other:
        python += [
            "from lora_sd.workshop.lora_file import open_lora",
            "from lora_sd.workshop.similarity import compare",
            f"first, second = open_lora({str(path)!r}), open_lora({other!r})",
            f'print(*{_call("compare", [Code("first"), Code("second"), Code("first.family")], of)}.lines(), sep="\\n")',
        ]
    return Act([*words, *_flags({"base": base, **of, **family})], "\n".join(python))


def shrink(values: Values) -> Act:
    path, by = _lora(values["lora"]), values["by"]
    options: dict[str, Any] = {}
    if by in ("rank", "energy", "size"):
        options[by] = _number(values[by], by)
    named = {
        "rank": "{stem}-rank{rank}",
        "energy": "{stem}-energy{energy}",
        "size": "{stem}-{size}MB",
    }.get(by, "{stem}-new")
    out = _new(values, named.format(stem=path.stem, **{name: f"{n:g}" for name, n in options.items()}))
    words = ["resize", str(path), str(out), *_flags({**options, **_written(values)})]
    if "size" in options:
        options["size"] *= 1e6  # bytes
    return Act(words, _python("resize", "resize", [str(path), str(out)], options, values), out)


def combine(values: Values) -> Act:
    sources, method, cut = _sources(values), values["method"], values["cut"]
    if len(sources) < 2:
        raise ValueError(say("Choose at least two LoRAs to combine."))
    options: dict[str, Any] = {} if method == "sum" else {"method": method}
    if cut in ("rank", "energy"):
        options[cut] = _number(values[f"combine_{cut}"], cut)
    if method in ("ties", "dare"):
        options["density"] = _number(values["density"], "density")
    if method == "dare":
        options["seed"] = int(_number(values["seed"], "seed"))
    out = _new(values, "-and-".join(source.path.stem[:24] for source in sources[:3]))
    words = ["combine", str(out), *(source.word for source in sources), *_blocks_flags(sources)]
    return Act(
        [*words, *_flags({**options, **_written(values)})],
        _python("combine", "combine", [_listed(sources), str(out)], options, values),
        out,
    )


def merge(values: Values) -> Act:
    sources, base = _sources(values), _base(values["merge_base"])
    found = find.describe(base)
    suffix = ".safetensors" if found.path.is_file() else ""
    proposed = f"{found.title.removesuffix(suffix)[:40]}-with-{sources[0].path.stem[:32]}"
    out = _free(run.home() / "models", values["name"], proposed, suffix)
    family = _family(values)
    words = ["merge", base, str(out), *(source.word for source in sources), *_blocks_flags(sources)]
    return Act(
        [*words, *_flags(family)],
        f"{_IMPORT_SOURCE}from lora_sd.workshop.merge import merge\n\n{_call('merge', [base, _listed(sources), str(out)], family)}",
        out,
    )


def extract(values: Values) -> Act:
    tuned, base = _base(values["tuned"]), _base(values["extract_base"])
    options: dict[str, Any] = {"rank": _number(values["extract_rank"], "rank")}
    if (energy := _number(values["extract_energy"], "energy")) != 1:
        options["energy"] = energy
    options["targets"] = values["targets"]
    out = _new(values, f"{Path(tuned).stem}-lora")
    chosen = {name: value for name, value in _written(values).items() if name != "family"}
    words = ["extract", tuned, base, str(out), *_flags({**options, **chosen})]
    return Act(
        words, _python("extract", "extract", [tuned, base, str(out)], options, {**values, "family": ""}), out
    )


def convert(values: Values) -> Act:
    path, layout = _lora(values["lora"]), values["to_layout"]
    out = _new(values, f"{path.stem}-{layout}")
    options = {"projections": values["projections"] or None, **_family(values)}
    words = ["convert", str(path), str(out), *_flags({"layout": layout, **options})]
    given = {name: value for name, value in options.items() if value}
    python = _call("convert", [str(path), str(out), layout], given)
    return Act(words, f"from lora_sd.workshop.convert import convert\n\n{python}", out)


def check(values: Values) -> Act:
    path, family = _lora(values["lora"]), _family(values)
    python = f'from lora_sd.workshop.programs import check\n\nprint(*{_call("check", [str(path)], family)}.lines(), sep="\\n")'
    return Act(["check", str(path), *_flags(family)], python)


def edit(values: Values) -> Act:
    """Only what differs from what the file says now."""
    path = _lora(values["lora"])
    before = told(path)
    changes = {name: values[name].strip() for name in TEXTS if values[name].strip() != before[name]}
    if values["thumbnail"]:
        changes["thumbnail"] = str(_uploaded(values["thumbnail"]))
    elif values["no_thumbnail"]:
        changes["thumbnail"] = ""
    if not changes:
        raise ValueError(say("Nothing is changed yet; write a title, trigger words or another field."))
    out = _new(values, f"{path.stem}-edited")
    words = ["edit", str(path), f"--out={out}", *_flags(changes)]
    python = _call("edit", [str(path), changes, str(out)], {})
    return Act(words, f"from lora_sd.workshop.edit import edit\n\n{python}", out)


def told(path: Path) -> dict[str, str]:
    """What a LoRA's header says in each field of `TEXTS`."""
    metadata = inspect(path).metadata
    return {name: metadata.get(key, "").strip() for name, key in TEXTS.items()}


ACTS: dict[str, Callable[[Values], Act]] = {
    "look": look,
    "shrink": shrink,
    "combine": combine,
    "merge": merge,
    "extract": extract,
    "convert": convert,
    "check": check,
    "edit": edit,
}


# -- what they are made of ---------------------------------------------------------------------------------------------


class Source(NamedTuple):
    path: Path
    weight: float
    blocks: dict[str, float]

    @property
    def word(self) -> str:
        return f"{self.path}:{self.weight:.10g}"

    def __repr__(self) -> str:
        blocks = f", {self.blocks!r}" if self.blocks else ""
        return f"Source({str(self.path)!r}, {self.weight!r}{blocks})"


_IMPORT_SOURCE = "from lora_sd.workshop.combine import Source\n"


def _sources(values: Values) -> list[Source]:
    sources = []
    for number in range(MOST_LORAS):
        chosen = values["lora"] if number == 0 else values[f"lora_{number}"]
        if chosen:
            weight = _number(values[f"weight_{number}"], "weight")
            sources.append(Source(_lora(chosen), weight, _blocks(values[f"blocks_{number}"])))
    if not sources:
        raise ValueError(say("Choose a LoRA."))
    return sources


def _blocks(text: str) -> dict[str, float]:
    """`"OUT*=0.5, MID=0" -> {"OUT*": 0.5, "MID": 0.0}`"""
    factors = {}
    for word in re.split(r"[,;\s]+", text.strip()):
        pattern, _, factor = word.rpartition("=")
        try:
            factors |= {pattern: float(factor)} if word else {}
        except ValueError:
            pattern = ""
        if word and not pattern:
            raise ValueError(
                say(
                    "{word} is no weight of a block; write them like OUT*=0.5, MID=0.", word=repr(shown(word))
                )
            )
    return factors


def _blocks_flags(sources: list[Source]) -> list[str]:
    return [
        f"--blocks={number}:{pattern}={factor:.10g}"
        for number, source in enumerate(sources, 1)
        for pattern, factor in source.blocks.items()
    ]


def _listed(sources: list[Source]) -> Code:
    return Code("[" + ", ".join(map(repr, sources)) + "]")


def _lora(chosen: str | None) -> Path:
    if not chosen:
        raise ValueError(say("Choose a LoRA."))
    return loras.file(chosen).absolute()


def _base(chosen: str | None) -> str:
    if not chosen:
        raise ValueError(say("Choose a model."))
    return models.base(chosen.strip()).source


def _uploaded(path: str) -> Path:
    """A picture that was dropped on the page: nothing else of this computer may be read under that name."""
    whole = Path(path).resolve()
    if not whole.is_relative_to(places.uploads().resolve()):
        raise ValueError(say("Drop the picture on the page again."))
    return whole


def _number(value: Any, what: str) -> float:
    """As the page's field holds it; whole where it has no fraction."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(say("Write a number where it is missing: {field}.", field=what))
    return int(value) if value == int(value) else value


def _family(values: Values) -> dict[str, str]:
    return {"family": values["family"]} if values["family"] else {}


def _written(values: Values) -> dict[str, str]:
    """layout, dtype and family, where they are not left as they are."""
    return {name: values[name] for name in ("layout", "dtype", "family") if values[name]}


def _flags(options: Mapping[str, Any]) -> list[str]:
    return [f"--{name}={_plain(value)}" for name, value in options.items() if value is not None]


def _plain(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


TORCH = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


def _python(module: str, function: str, args: list[Any], options: dict[str, Any], values: Values) -> str:
    chosen = _written(values)
    lines = [f"from lora_sd.workshop.{module} import {function}"]
    if function == "combine":
        lines = [f"from lora_sd.workshop.{module} import Source, {function}"]
    if dtype := chosen.pop("dtype", None):
        lines.insert(0, "import torch")
        options = {**options, "dtype": Code(f"torch.{TORCH[dtype]}")}
    return "\n".join([*lines, "", _call(function, args, {**options, **chosen})])


def _call(function: str, args: list[Any], options: Mapping[str, Any]) -> str:
    given = [*map(repr, args), *(f"{name}={value!r}" for name, value in options.items())]
    return f"{function}({', '.join(given)})"


def _new(values: Values, proposed: str) -> Path:
    """The path of a new LoRA, among those that the menus offer."""
    return _free(loras.folder(), values["name"], proposed, ".safetensors")


def _free(folder: Path, name: str, proposed: str, suffix: str) -> Path:
    """`name`, or else what is proposed, in this folder; with -2, -3 … where there is one already."""
    stem = run.safe_name((name or "").strip().removesuffix(".safetensors") or proposed)
    number, path = 1, (folder / f"{stem}{suffix}").absolute()
    while path.exists():
        number += 1
        path = (folder / f"{stem}-{number}{suffix}").absolute()
    return path
