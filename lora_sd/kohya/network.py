"""The adapter: network_module and network_args → which layers learn, at what ranks and strengths."""

import re
from typing import Any

from ..paths import shown
from . import blocks, rates
from .table import NETWORK
from .translation import Translation
from .values import decimal, flag, pairs, whole, word

PLAIN = ("lora", "locon")  # of LyCORIS's algorithms
OTHER_MODELS = re.compile(r"networks\.\w+_(?!fa$)\w+")
PRESETS = {  # of LyCORIS: which layers learn
    "full": "full",
    "full-lin": "full",
    "attn-mlp": "transformer",
    "attn-only": "attention",
    "unet-transformer-only": "transformer",
}
LORAPLUS = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")


def translate(work: Translation, sdxl: bool | None) -> None:
    """All of the adapter's options. Options in network_args are looked up by their own names from here on."""
    args = work.take("network_args", pairs) or {}
    work.rest |= {name: value for name, value in args.items() if not work.has(name)}
    module = work.rest.get("network_module") or None
    lycoris = _kind(work)
    rates.translate(work)
    rank, alpha = _rank(work)
    _convolutions(work, module, lycoris, rank, alpha)
    blocks.translate(work, sdxl)
    _loraplus(work)
    _magnitudes(work)
    if work.has("dropout"):
        work.rest["network_dropout"] = work.rest.pop("dropout")
    work.one_by_one({name: option for name, option in NETWORK.items() if name != "dropout"})


def _kind(work: Translation) -> bool:
    """Whether it is LyCORIS, which counts convolutions otherwise."""
    module = work.take("network_module", word) or "networks.lora"
    algo = (work.take("algo", word) or "lora").lower()
    if OTHER_MODELS.fullmatch(module):
        raise ValueError(
            f"network_module is {shown(module, 80)!r}, which is for other models; only those for Stable Diffusion "
            "1.x, 2.x and SDXL can be used."
        )
    if module == "lycoris.kohya":
        if work.has("rank_dropout"):
            work.note(
                "rank_dropout",
                work.rest["rank_dropout"],
                "differs",
                "LyCORIS leaves out outputs, here it is ranks.",
            )
        if algo not in PLAIN:
            work.note(
                "algo",
                algo,
                "ignored",
                f"{shown(algo, 40)} is not made here; a plain LoRA is, which every program reads.",
            )
        return True
    if module == "networks.lora_fa":
        work.set("network_module", module, "lora.train_down", False)
    elif module != "networks.lora":
        work.note(
            "network_module", module, "ignored", "a plain LoRA is trained here, which every program reads."
        )
    return False


def _rank(work: Translation) -> tuple[int, float]:
    given = {name: work.rest.get(name) for name in ("network_dim", "network_alpha")}
    unset = {name: work.unset(name) for name in given}
    rank, alpha = work.take("network_dim", whole), work.take("network_alpha", decimal)
    if rank is not None or unset["network_dim"]:
        rank = 4 if rank is None else rank
        work.set("network_dim", given["network_dim"], "lora.rank", rank)
    rank = work.config.lora.rank
    if alpha is not None or unset["network_alpha"]:
        alpha = 1.0 if alpha is None else alpha or float(rank)  # 0 is the rank there
        work.set("network_alpha", given["network_alpha"], "lora.alpha", alpha)
    return rank, work.config.lora.alpha or rank / 2


def _convolutions(work: Translation, module: Any, lycoris: bool, rank: int, alpha: float) -> None:
    """Which layers learn, and the rank and strength of convolutions."""
    given_rank, given_alpha = work.rest.get("conv_dim"), work.rest.get("conv_alpha")
    conv_rank, conv_alpha = work.take("conv_dim", whole), work.take("conv_alpha", decimal)
    preset = work.take("preset", word)
    if lycoris:
        conv_rank, conv_alpha = conv_rank or rank, conv_alpha or alpha
        targets = PRESETS.get(preset or "full", "full")
        but = (
            "LyCORIS adds the first and last convolution and the time embedding" if targets == "full" else ""
        )
        if preset and preset not in PRESETS:
            but = f"the preset {shown(preset, 60)} is not here"
        work.set("preset", preset, "lora.targets", targets, but)
    else:
        if not conv_rank and work.has("conv_block_dims"):
            conv_rank, conv_alpha = blocks.usual_convolution(work)
        targets = "full" if conv_rank else "transformer"
        work.set("network_module", module, "lora.targets", targets)
    if targets != "full" or not conv_rank:
        if given_rank:
            work.note("conv_dim", given_rank, "ignored", "no convolution learns.")
        return
    work.set("conv_dim", given_rank, "lora.conv_rank", conv_rank)
    conv_alpha = 1.0 if conv_alpha is None else conv_alpha or float(conv_rank)
    work.set("conv_alpha", given_alpha, "lora.conv_alpha", conv_alpha)


def _magnitudes(work: Translation) -> None:
    """DoRA, which LyCORIS has of outputs unless told."""
    given = work.rest.get("dora_wd")
    wanted, of_outputs = work.take("dora_wd", flag), work.take("wd_on_output", flag)
    if wanted:
        work.set("dora_wd", given, "lora.dora", "input" if of_outputs is False else "output")


def _loraplus(work: Translation) -> None:
    given = {name: work.rest[name] for name in LORAPLUS if work.has(name)}
    read = {name: value for name in given if (value := work.take(name, decimal)) is not None}
    if not read:
        return
    learns = {
        "loraplus_unet_lr_ratio": True,
        "loraplus_text_encoder_lr_ratio": work.config.lora.text_encoders,
    }
    ratios = {read.get(name, read.get("loraplus_lr_ratio", 1.0)) for name, on in learns.items() if on}
    name = next(iter(read))
    wanted = read.get("loraplus_unet_lr_ratio", read.get("loraplus_lr_ratio", 1.0))
    but = "one ratio is for all parts here" if len(ratios) > 1 else ""
    work.set(name, given[name], "lora.plus_ratio", wanted, but)
