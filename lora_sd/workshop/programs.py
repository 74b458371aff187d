"""Which tensors of a LoRA file each program would use, and which it would leave out in silence.

Each program is written out from its own code: the modules it has names for, and the endings it knows there. A tensor is used
where both are so. What is said of diffusers is tried in the tests; the others change, so that a "none" is a reason to convert.
"""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ..lora.inspection import FOREIGN, MAGNITUDES, Header, has_magnitudes, read_header
from ..lora.names import comfyui_name, kohya_name, ldm_path, numbered_name
from ..lora.products import ENDINGS
from ..models.family import FAMILIES, Family
from ..paths import shown, typed
from .lora_file import family_named
from .table import layer_names

PLAIN = ("lora_down.weight", "lora_up.weight", "alpha")
PEFT = ("lora_A.weight", "lora_B.weight")
OLD = ("lora.down.weight", "lora.up.weight")
OLD_TEXT = ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight")
OLDEST = ("_lora.down.weight", "_lora.up.weight")  # without a dot before them
KOHYA = ("lora_te_", "lora_te1_", "lora_te2_", "lora_unet_")
SGM = ("lora_unet_input_", "lora_unet_middle_", "lora_unet_output_")
NUMBERED = ("lora_unet_down_", "lora_unet_mid_", "lora_unet_up_")
Names = Callable[[str, Family], Iterator[str]]


def _kinds(*names: str) -> tuple[str, ...]:
    return tuple(end for name in names for end in (ENDINGS | FOREIGN)[name])


LYCORIS = _kinds(*ENDINGS, "full weight differences")
MORE = (*LYCORIS, *MAGNITUDES, *_kinds("norm layers", "GLoRA"))


class Verdict(NamedTuple):
    """What one program does with a file."""

    program: str
    used: list[str]
    ignored: list[str]
    why: str = ""  # it can't be loaded at all, or comes out at another strength

    def line(self, total: int) -> str:
        told = f"  {self.program:11} "
        if not self.ignored:
            told += f"uses all {total} tensors"
        elif not self.used:
            told += "uses none"
        else:
            told += f"uses {len(self.used)} of {total} tensors; ignored are {', '.join(map(shown, self.ignored[:2]))} …"
        return f"{told}; {self.why}" if self.why else told


class Program(NamedTuple):
    title: str
    keys: Names  # every key it knows for a layer of a family
    verdict: Callable[[str, Header, list[str]], Verdict]  # of the file, when it knows these keys


def _with(stems: Iterator[str] | list[str], ends: tuple[str, ...]) -> Iterator[str]:
    for stem in stems:
        yield from (f"{stem}{end}" if end.startswith("_") else f"{stem}.{end}" for end in ends)


def _sd_scripts(layer: str, family: Family) -> Iterator[str]:
    yield from _with([kohya_name(layer, family)], PLAIN)


def _kohya_names(layer: str, family: Family) -> list[str]:
    """In both numberings, and the only encoder of SD 1.x and 2.x under SDXL's name for its first."""
    names = [kohya_name(layer, family), numbered_name(layer, family)]
    return names + ([numbered_name(layer, family, "lora_te1")] if layer.startswith("text_encoder.") else [])


def _a1111(layer: str, family: Family) -> Iterator[str]:
    """It turns diffusers' block names into Stability's by SD 1.x's rule, which has another place for SDXL's first upsampler."""
    names = _kohya_names(layer, family)
    if family.name == "sdxl" and layer == "unet.up_blocks.0.upsamplers.0.conv":
        names = names[:1]
    if family.name == "sd2" and layer.startswith("text_encoder."):
        names = names[:2]
    if layer.startswith("unet."):
        names.append(f"lora_unet_{ldm_path(layer.removeprefix('unet.'), family).replace('.', '_')}")
    yield from _with(names, (*PLAIN, *MORE))


def _invoke(layer: str, family: Family) -> Iterator[str]:
    yield from _with(
        [kohya_name(layer, family), numbered_name(layer, family)], (*PLAIN, *LYCORIS, *MAGNITUDES)
    )


def _forge(layer: str, family: Family) -> Iterator[str]:
    ends = (*PLAIN, *PEFT, *OLD, *OLD_TEXT, *OLDEST, *MORE)
    part, path = layer.split(".", 1)
    if part != "unet":
        first = ["lora_te"] if part == "text_encoder" else []
        names = [numbered_name(layer, family, prefix) for prefix in first]
        yield from _with([*_kohya_names(layer, family), *names, layer], ends)
        return
    yield from _with([*_kohya_names(layer, family), comfyui_name(layer, family)], ends)
    ldm = ldm_path(path, family).replace(".", "_")
    # attention layers only in diffusers' oldest spelling, so that PEFT's names of them are unknown here
    dotted = path.replace(".to_", ".processor.to_")
    dotted = dotted.removesuffix(".0") if dotted.endswith(".to_out.0") else dotted
    yield from _with([f"lora_unet_{ldm}", dotted, f"unet.{dotted}"], ends)


def _comfyui(layer: str, family: Family) -> Iterator[str]:
    yield from _forge(layer, family)
    ends = (*PLAIN, *PEFT, *OLD, *OLD_TEXT, *OLDEST, *MORE)
    path = layer.split(".", 1)[1].replace(".", "_")
    names = [comfyui_name(layer, family), *([f"lycoris_{path}"] if layer.startswith("unet.") else [])]
    yield from _with(names, (*ends, *_kinds("OFT")))


def _diffusers(layer: str, family: Family) -> Iterator[str]:
    yield from _with(_kohya_names(layer, family), PLAIN)
    if layer.startswith("text_encoder."):
        yield from _with([numbered_name(layer, family, "lora_te")], PLAIN)
    part, path = layer.split(".", 1)
    stems = [layer] if part == "unet" else [layer, f"{part}.{path.removeprefix('text_model.')}"]
    yield from _with(stems, (*PEFT, *OLD, *OLD_TEXT))
    attention, _, leaf = layer.removesuffix(".0").rpartition(".")
    if ".attn" in layer:
        yield from _with([f"{attention}.processor.{leaf}"], OLDEST)


class Check(NamedTuple):
    path: Path
    family: str
    total: int
    verdicts: list[Verdict]

    def lines(self) -> list[str]:
        return [
            f"{shown(self.path.name)}, for {FAMILIES[self.family].title}:",
            *(verdict.line(self.total) for verdict in self.verdicts),
        ]

    def facts(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        verdicts = [{**v._asdict(), "used": len(v.used)} for v in self.verdicts]
        return {"family": self.family, "total": self.total, "verdicts": verdicts}


def check(path: str | Path, *, family: str | None = None) -> Check:
    """Which tensors of a LoRA file of any kind each program uses; ValueError where it is no such file."""
    path = typed(str(path), "The LoRA")
    header = read_header(path)
    name = family_named(path, header, family)
    verdicts = []
    for program in PROGRAMS:
        known = _known(program.keys, FAMILIES[name])
        used = [key for key in header.shapes if key in known]
        verdicts.append(program.verdict(program.title, header, used))
    return Check(path, name, len(header.shapes), verdicts)


@cache
def _known(keys: Names, family: Family) -> frozenset[str]:
    return frozenset(key for layer in layer_names(family) for key in keys(layer, family))


def _verdict(title: str, header: Header, used: list[str], why: str = "") -> Verdict:
    taken = set(used)
    return Verdict(title, used, [key for key in header.shapes if key not in taken], why)


def _plain(title: str, header: Header, used: list[str]) -> Verdict:
    lost = len(used) < len(header.shapes) and has_magnitudes(header)
    return _verdict(
        title, header, used, "without its DoRA scales it is another LoRA" if lost and used else ""
    )


def _all_or_nothing(title: str, header: Header, used: list[str]) -> Verdict:
    refused = next((key for key in header.shapes if key not in set(used)), None)
    return _verdict(
        title, header, [] if refused else used, f"it refuses the file for {shown(refused)}" if refused else ""
    )


def _turns(title: str, header: Header, used: list[str]) -> Verdict:
    """diffusers takes kohya's names only where all are such, then refuses what is left over; of SDXL's two numberings one."""
    kept, why = [key for key in used if not key.startswith(KOHYA)], ""
    if all(key.startswith(KOHYA) for key in header.shapes):
        scales = [key for key in header.shapes if key.endswith(".dora_scale")]
        left = [key for key in header.shapes if key not in {*used, *scales}]
        if left:
            return _verdict(title, header, [], f"it refuses the file for {shown(left[0])}")
        both = any(key.startswith(SGM) for key in used) and any(key.startswith(NUMBERED) for key in used)
        kept = [key for key in used if not key.startswith(SGM)] if both else used
        why = "it takes one of two numberings of blocks" if both else ""
        why = "without its DoRA scales it is another LoRA" if scales else why
    if len(set(header.alphas.values())) > 1 and kept and not why:
        why = "layers of another alpha than most come out at another strength"
    return _verdict(title, header, kept, why)


PROGRAMS = (
    Program("diffusers", _diffusers, _turns),
    Program("A1111", _a1111, _plain),
    Program("Forge", _forge, _plain),
    Program("ComfyUI", _comfyui, _plain),
    Program("InvokeAI", _invoke, _all_or_nothing),
    Program("sd-scripts", _sd_scripts, _plain),
)
