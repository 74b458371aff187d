"""What a LoRA file is, from its header alone: no torch, no model, whatever program wrote it."""

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..models.header import WIDTHS
from ..models.safetensors_file import Contents, open_header
from ..paths import shown, typed
from . import beside, products

TITLES = {"sd15": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "Stable Diffusion XL"}
VERSIONS = {"sd_v1": "sd15", "sd_v2": "sd2", "sdxl": "sdxl"}  # how ss_base_model_version begins

# What the key of a module's `down` tensor ends in; the rest of it names the module.
LAYOUTS = {
    ".lora_down.weight": "kohya",
    ".lora_A.weight": "peft",
    ".lora.down.weight": "diffusers",
    ".lora_linear_layer.down.weight": "diffusers",
    "_lora.down.weight": "diffusers",
}
PARTS = {
    "lora_te2_": "text_encoder_2",
    "lora_te": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "text_encoder.": "text_encoder",
    "text_encoders.clip_g.": "text_encoder_2",
    "text_encoders.": "text_encoder",
}  # what a key begins with; all else is the U-Net

COMFYUI = ("diffusion_model.", "text_encoders.")  # its own names of layers, with kohya's endings

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
TEXT_WIDTHS = (768, 1024, 1280)  # of the token embeddings of CLIP's text encoders
KEYS = {
    "emb_params",
    "clip_l",
    "clip_g",
}  # of textual-inversion files; diffusers names its one tensor as the word
MOST_VECTORS = 75  # of a word: more would not fit into a chunk of a prompt
MOST_ALPHA = 1_000_000  # those in use are below a few thousand

MAGNITUDES = (
    "dora_scale",
    "lora_magnitude_vector",
    "lora_magnitude_vector.weight",
)  # what a DoRA's keys end in
FOREIGN = {  # kinds of adapter that can't be loaded here, by what their keys end in
    "IA3": ("on_input",),
    "OFT": ("oft_blocks", "oft_diag", "rescale"),
    "full weight differences": ("diff", "diff_b"),
    "norm layers": ("w_norm", "b_norm"),
    "GLoRA": ("a1.weight", "a2.weight", "b1.weight", "b2.weight", "bm.weight"),
    "LoRA with biases": ("lora_B.bias", "lora_up.bias"),
}

# The training settings that a person asks for first, by their key in the header.
SETTINGS = {
    "ss_steps": "steps",
    "ss_epoch": "epochs",
    "ss_learning_rate": "learning rate",
    "ss_text_encoder_lr": "text encoder rate",
    "ss_embedding_rate": "rate of the vectors",
    "ss_optimizer": "optimizer",
    "ss_lr_scheduler": "schedule",
    "ss_total_batch_size": "batch size",
    "ss_resolution": "resolution",
    "ss_num_train_images": "pictures, with repeats",
    "ss_clip_skip": "clip skip",
    "ss_min_snr_gamma": "Min-SNR gamma",
    "ss_noise_offset": "noise offset",
    "ss_multires_noise_iterations": "pyramid noise levels",
    "ss_ip_noise_gamma": "input perturbation",
    "ss_loss_type": "loss",
    "ss_mixed_precision": "mixed precision",
    "ss_seed": "seed",
}


LORA, DORA, EMBEDDING = "LoRA", "DoRA", "textual inversion"
KINDS = (LORA, DORA, EMBEDDING, *products.KINDS)  # that can be loaded here


class Header(NamedTuple):
    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]
    alphas: Mapping[str, float]


def read_header(path: str | Path) -> Header:
    """Names, shapes, metadata and alphas, checked: `down` tensors have a rank, alphas are numbers above 0.

    ValueError with one sentence for a file of another kind, one cut short, or one with impossible tensors.
    """
    path = typed(str(path), "The LoRA")
    if not path.is_file():
        raise ValueError(f"There is no file at {shown(path)}; check the name.")
    if path.suffix.lower() in PICKLES:
        raise ValueError(
            f"{shown(path.name)} may hold program code and was not opened; use the .safetensors version of this LoRA."
        )
    with open_header(path) as contents:
        for key, shape in contents.shapes.items():
            if key.endswith((*LAYOUTS, *products.MARKS)) and (len(shape) < 2 or 0 in shape):
                raise ValueError(
                    f"{shown(path.name)} is damaged: {shown(key)!r} has the shape {shape}, which no LoRA has; "
                    "download it again."
                )
        alphas = {
            key: _alpha(path, contents, key) for key in contents.shapes if _is_used(key, contents.shapes)
        }
        return Header(contents.shapes, contents.metadata, alphas)


def _is_used(key: str, stored: Container[str]) -> bool:
    """Whether it is an alpha that counts; in a LoKr of whole matrices it stands for nothing, and may be any number."""
    stem, _, end = key.rpartition(".")
    return end == "alpha" and not all(f"{stem}.{full}" in stored for full in products.FULL)


def _alpha(path: Path, contents: Contents, key: str) -> float:
    values = contents.values(key)
    if len(values) != 1 or not is_alpha(values[0]):
        told = values[0] if len(values) == 1 else f"{len(values)} numbers"
        raise ValueError(
            f"{shown(path.name)} is damaged: {shown(key)!r} is {told}; it must be one number above 0, at most "
            f"{MOST_ALPHA:,}. Download it again."
        )
    return values[0]


def is_alpha(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value <= MOST_ALPHA  # NaN is neither


def foreign_kinds(header: Header) -> list[str]:
    """Which kinds of adapter that can't be loaded the file has parts of."""
    return [kind for kind, suffixes in FOREIGN.items() if _has(header, suffixes)]


def product_kinds(header: Header) -> list[str]:
    """Which of LoHa, LoKr and LoCon with a core the file has parts of."""
    return [kind for kind, suffixes in products.ENDINGS.items() if _has(header, suffixes)]


def _has(header: Header, suffixes: tuple[str, ...]) -> bool:
    return any(key.endswith(tuple(f".{suffix}" for suffix in suffixes)) for key in header.shapes)


def has_magnitudes(header: Header) -> bool:
    """Whether it is a DoRA."""
    return _has(header, MAGNITUDES)


def kinds_besides_lora(header: Header) -> list[str]:
    """Which kinds of adapter besides the plain LoRA the file has parts of."""
    return ([DORA] if has_magnitudes(header) else []) + product_kinds(header) + foreign_kinds(header)


def text_width(header: Header) -> int | None:
    """Width of the text states that the LoRA was made for; None where it has no cross-attention."""
    for key, shape in header.shapes.items():
        if "attn2" in key and "to_k" in key and key.endswith(tuple(LAYOUTS)):
            return shape[1]
    found = products.find_all(header.shapes)
    to_k = next((stem for stem in found if "attn2" in stem and "to_k" in stem), None)
    return found[to_k].inputs(header.shapes) if to_k else None


def vectors_of(header: Header) -> dict[str, tuple[int, int]]:
    """How many vectors of which width a textual-inversion file has, by key; {} for a file of another kind."""
    shapes = {key: shape if len(shape) == 2 else (1, *shape) for key, shape in header.shapes.items()}
    named = bool(shapes) and shapes.keys() <= KEYS
    counts = {shape[0] for shape in shapes.values()}
    if len(counts) != 1 or any(len(shape) != 2 for shape in shapes.values()):
        return {}
    known = named or (len(shapes) == 1 and next(iter(shapes.values()))[1] in TEXT_WIDTHS)
    return shapes if known and 0 < counts.pop() <= MOST_VECTORS and not _modules(header)[1] else {}


class Module(NamedTuple):
    """One adapted layer as the file has it."""

    part: str
    rank: int
    alpha: float


class Word(NamedTuple):
    """A word that is vectors of its own."""

    text: str
    vectors: int
    file: str  # that has them; "" for this one


@dataclass(frozen=True)
class Inspection:
    """What a LoRA file or a textual-inversion file tells; `str()` of it is for people."""

    path: Path
    size: int  # bytes
    layout: str  # kohya, peft, diffusers, comfyui or other
    kinds: list[str]  # of adapter; others than one of KINDS can't be loaded here
    family: str | None  # sd15, sd2, sdxl
    inpainting: bool  # whether it was trained on an inpainting model
    base: str  # name of the model that it was trained on, "" if it does not say
    trigger: str
    word: Word | None  # of a textual-inversion file, or of the one that goes with the LoRA
    modules: dict[str, int]  # part → adapted layers
    ranks: dict[int, int]  # rank → layers
    strengths: dict[float, int]  # alpha / rank → layers
    settings: dict[str, str]
    metadata: dict[str, str]

    def lines(self) -> list[str]:
        """For the command line, one fact a line."""
        facts = {
            "made for": TITLES.get(self.family or "", "unknown")
            + (" inpainting" if self.inpainting else "")
            + (f", trained on {self.base}" if self.base else ""),
            "trigger": self.trigger,
            "kind": " + ".join(self.kinds)
            + ("" if all(kind in KINDS for kind in self.kinds) else ", which can't be loaded here"),
            "own word": _own_word(self.word) if self.word else "",
            "file": f"{self.layout} layout, {self.size / 1e6:.1f} MB"
            if self.layout
            else f"{self.size / 1e3:.1f} KB",
            "layers": ", ".join(f"{count} in {part}" for part, count in self.modules.items()),
            "rank": _table(self.ranks),
            "alpha / rank": _table(self.strengths),
            **self.settings,
        }
        return [
            shown(self.path.name),
            *(f"  {name:24} {shown(fact, 1000)}" for name, fact in facts.items() if fact),
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def _own_word(word: Word) -> str:
    count = "1 vector" if word.vectors == 1 else f"{word.vectors} vectors"
    return f"{word.text}, {count}" + (f" in {word.file}, which goes with this file" if word.file else "")


def _table(counts: Mapping[float, int]) -> str:
    """`16`, or `16 in 128 layers, 8 in 64 layers`."""
    if len(counts) == 1:
        return f"{next(iter(counts)):g}"
    return ", ".join(f"{value:g} in {count} layers" for value, count in counts.items())


def inspect(path: str | Path) -> Inspection:
    """Kind, base model, ranks, trigger word and training settings of a LoRA or textual-inversion file; ValueError for others."""
    path, header = Path(path), read_header(path)
    layout, modules = _modules(header)
    vectors = vectors_of(header)
    plain = any(key.endswith(tuple(LAYOUTS)) for key in header.shapes)
    own = [DORA] if modules and has_magnitudes(header) else [LORA] if plain else []
    kinds = own + ([EMBEDDING] if vectors else []) + product_kinds(header) + foreign_kinds(header)
    if not kinds:
        raise ValueError(
            f"{shown(path.name)} is not a LoRA file: none of its {len(header.shapes)} tensors belongs to one."
        )
    metadata = header.metadata
    return Inspection(
        path=path,
        size=path.stat().st_size,
        layout="" if vectors else layout,
        kinds=kinds,
        family=family_of(header),
        inpainting="inpainting" in metadata.get("modelspec.architecture", ""),
        base=metadata.get("lora_sd.base") or _told(metadata, "ss_sd_model_name"),
        trigger=metadata.get("modelspec.trigger_phrase", ""),
        word=_word(path, header, vectors),
        modules=_count_parts(modules),
        ranks=dict(Counter(module.rank for module in modules).most_common()),
        strengths=dict(Counter(module.alpha / module.rank for module in modules).most_common()),
        settings={label: value for key, label in SETTINGS.items() if (value := _told(metadata, key))},
        metadata=dict(metadata),
    )


def _word(path: Path, header: Header, vectors: Mapping[str, tuple[int, int]]) -> Word | None:
    if vectors:
        return Word(word_of(path, header), next(iter(vectors.values()))[0], "")
    told = beside.named(header.metadata)
    return Word(told.word, told.vectors, told.file) if told else None


def word_of(path: Path, header: Header) -> str:
    """The word of a textual-inversion file: as ours say in the header, diffusers by the key, and others by their name."""
    key = next(iter(header.shapes))
    return header.metadata.get(beside.WORD) or (path.stem if key in KEYS else key)


def _modules(header: Header) -> tuple[str, list[Module]]:
    layout, modules = "other", []
    for key, shape in header.shapes.items():
        suffix = next((suffix for suffix in LAYOUTS if key.endswith(suffix)), None)
        if suffix:
            layout, stem = LAYOUTS[suffix], key.removesuffix(suffix)
            layout = _of_comfyui(key) or layout
            modules.append(Module(_part(key), shape[0], header.alphas.get(f"{stem}.alpha", shape[0])))
    for stem, found in products.find_all(header.shapes).items():
        if found.kind != products.LOCON:  # its down is among those above
            layout, rank = _of_comfyui(stem) or "kohya", found.rank(header.shapes)
            modules.append(Module(_part(stem), rank, header.alphas.get(f"{stem}.alpha", rank)))
    return layout, modules


def _of_comfyui(key: str) -> str:
    return "comfyui" if key.startswith(COMFYUI) else ""


def _part(key: str) -> str:
    return next((part for prefix, part in PARTS.items() if key.startswith(prefix)), "unet")


def _count_parts(modules: list[Module]) -> dict[str, int]:
    counts = Counter(module.part for module in modules)
    return {part: counts[part] for part in ("unet", "text_encoder", "text_encoder_2") if counts[part]}


def family_of(header: Header) -> str | None:
    """By the width of the text states; where that is no public model's, by what the header says."""
    version = header.metadata.get("ss_base_model_version", "")
    told = next((family for start, family in VERSIONS.items() if version.startswith(start)), None)
    ours = header.metadata.get("lora_sd.family")
    return WIDTHS.get(text_width(header) or 0) or (ours if ours in TITLES else told)


def _told(metadata: Mapping[str, str], key: str) -> str:
    value = metadata.get(key, "")
    return "" if value == "None" else value
