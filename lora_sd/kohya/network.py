"""The adapter: network_module and network_args → which layers learn, their ranks and strengths; and which parts at what rate."""

from typing import Any

from ..paths import shown
from . import blocks, optimizers
from .table import NETWORK
from .translation import Translation
from .values import decimal, flag, is_set, numbers, pairs, whole, word

ALGOS = {"lora": "lora", "locon": "lora"}  # of LyCORIS, that are a plain LoRA
PRESETS = {  # of LyCORIS: which layers learn
    "full": "full",
    "full-lin": "full",
    "attn-mlp": "transformer",
    "attn-only": "attention",
    "unet-transformer-only": "transformer",
}
LORAPLUS = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")
BLOCKS = ("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas")
WEIGHTS = ("down_lr_weight", "mid_lr_weight", "up_lr_weight")


def translate(work: Translation, sdxl: bool | None) -> None:
    """All of the adapter's options. Options in network_args are looked up by their own names from here on."""
    if work.unset("network_module") and work.complete:
        work.note("network_module", None, "assumed", "networks.lora, a plain LoRA.")
    args = work.take("network_args", pairs) or {}
    work.rest |= {name: value for name, value in args.items() if not work.has(name)}
    lycoris = _kind(work)
    parts(work)
    rank, alpha = _rank(work)
    conv = _convolutions(work, lycoris, rank, alpha)
    _by_block(work, rank, alpha, conv, sdxl)
    _loraplus(work)
    if work.has("dropout"):
        work.rest["network_dropout"] = work.rest.pop("dropout")
    work.one_by_one({name: option for name, option in NETWORK.items() if name != "dropout"})


def _kind(work: Translation) -> bool:
    """Whether it is LyCORIS, which counts convolutions otherwise."""
    module = work.take("network_module", word) or "networks.lora"
    algo = (work.take("algo", word) or "lora").lower()
    if module == "lycoris.kohya":
        if algo not in ALGOS:
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


def _convolutions(work: Translation, lycoris: bool, rank: int, alpha: float) -> bool:
    """Which layers learn; whether convolutions do."""
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
        targets = "full" if conv_rank or work.has("conv_block_dims") else "transformer"
        work.set("network_module", "networks.lora", "lora.targets", targets)
    if targets != "full" or not conv_rank:
        return targets == "full"
    work.set("conv_dim", given_rank, "lora.conv_rank", conv_rank)
    conv_alpha = 1.0 if conv_alpha is None else conv_alpha or float(conv_rank)
    work.set("conv_alpha", given_alpha, "lora.conv_alpha", conv_alpha)
    return True


def _by_block(work: Translation, rank: int, alpha: float, conv: bool, sdxl: bool | None) -> None:
    """Patterns of ranks; exact where all blocks are as strong, alpha / rank, as the rest, and no block is slower."""
    options = (*BLOCKS, *WEIGHTS, "block_lr_zero_threshold")
    given = {name: value for name in options if is_set(value := work.rest.pop(name, None))}
    if not given or "unet.*" in work.config.lora.ranks:  # which leaves out all of the U-Net
        return
    try:
        ranks, but = _ranks(given, rank, alpha, conv and (work.config.lora.conv_rank or rank), sdxl)
    except ValueError as error:
        work.note(next(iter(given)), next(iter(given.values())), "ignored", f"{error}.")
        return
    work.set(", ".join(given), _told(given), "lora.ranks", ranks, but)


def _told(given: dict[str, Any]) -> Any:
    return next(iter(given.values())) if len(given) == 1 else "…"


def _ranks(
    given: dict[str, Any], rank: int, alpha: float, conv_rank: int, sdxl: bool | None
) -> tuple[dict[str, int], str]:
    lists = {name: numbers(given[name]) for name in BLOCKS if name in given}
    lengths = {len(values) for values in lists.values()}
    count = lengths.pop() if lengths else blocks.XL if sdxl else blocks.SD
    if lengths or count not in (blocks.SD, blocks.XL):
        raise ValueError(f"lists of blocks have {blocks.SD} numbers each, {blocks.XL} for SDXL")
    dims = [whole(value) for value in lists.get("block_dims", [rank] * count)]
    conv_dims = [whole(value) for value in lists.get("conv_block_dims", [conv_rank] * count)]
    factors, named = [1.0] * count, [name for name in WEIGHTS if name in given]
    if named:
        sides = [_weights(given[name]) if name in given else None for name in WEIGHTS]
        factors = blocks.weights(*sides, count, decimal(given.get("block_lr_zero_threshold", 0)))
    table: dict[str, int] = {}
    for index in range(count):
        place, on = blocks.block(index, count), bool(factors[index])
        patterns = place.patterns(
            dims[index] * on, conv_dims[index] * on if conv_rank or "conv_block_dims" in given else None
        )
        usual = place.patterns(rank, conv_rank if conv_rank else None)
        table |= {name: value for name, value in patterns.items() if usual.get(name) != value}
    alphas = lists.get("block_alphas", [alpha] * count)
    strengths = {a / d for a, d, f in zip(alphas, dims, factors, strict=True) if d and f}
    but = []
    if strengths - {alpha / rank}:
        but.append("all blocks are as strong as network_alpha / network_dim here")
    if set(factors) - {0.0, 1.0}:
        but.append("all blocks learn at one rate here, those with weight 0 are left out")
    return table, "; ".join(but)


def _weights(value: Any) -> list[float]:
    if isinstance(value, str) and any(sign.isalpha() for sign in value.replace("e", "")):
        raise ValueError("curves of weights are not here; write a number for each block")
    return numbers(value)


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


def parts(work: Translation) -> None:
    """Which parts learn, and their rates: text encoders do there unless told not to, at the rate of all."""
    given = {name: work.rest.get(name) for name in ("learning_rate", "unet_lr", "text_encoder_lr")}
    known = work.complete or any(is_set(value) for value in given.values())
    common, unet = work.take("learning_rate", decimal), work.take("unet_lr", decimal)
    text = work.take("text_encoder_lr", numbers)
    unet_only = bool(work.take("network_train_unet_only", flag))
    text_only = bool(work.take("network_train_text_encoder_only", flag))
    if work.take("cache_text_encoder_outputs", flag) and not unet_only:
        work.note(
            "cache_text_encoder_outputs",
            True,
            "ignored",
            "text states are always cached here; there it asks for the U-Net alone.",
        )
        unet_only = True
    if not known:
        return
    default = 2e-6 if common is None else common
    of_unet, of_text = default if unet is None else unet, text[0] if text else default
    learn_unet, learn_text = bool(of_unet) and not text_only, bool(of_text) and not unet_only
    if not learn_unet and not learn_text:
        work.note("learning_rate", given["learning_rate"], "ignored", "nothing would learn at a rate of 0.")
        return
    _scope(work, learn_unet, learn_text)
    name = next((name for name in ("unet_lr", "learning_rate") if is_set(given[name])), "learning_rate")
    name = name if learn_unet else "text_encoder_lr"
    rate = of_unet if learn_unet else of_text
    work.set(name, given[name], "optim.learning_rate", rate)
    if learn_unet and learn_text and of_text != of_unet:
        _rate_of_text(work, given["text_encoder_lr"], of_text, len(text or []))
    elif is_set(given["text_encoder_lr"]) and not learn_text:
        work.note("text_encoder_lr", given["text_encoder_lr"], "ignored", "the text encoders do not learn.")


def _scope(work: Translation, learn_unet: bool, learn_text: bool) -> None:
    if learn_text:
        told = None if learn_unet else True
        name = "network_train_unet_only" if learn_unet else "network_train_text_encoder_only"
        work.set(name, told, "lora.text_encoders", True)
    if not learn_unet:
        work.set("network_train_text_encoder_only", True, "lora.ranks", {"unet.*": 0})


def _rate_of_text(work: Translation, given: Any, rate: float, count: int) -> None:
    if optimizers.found(str(work.rest.get("optimizer_type") or "AdamW")).one_rate:
        work.note("text_encoder_lr", given, "ignored", "this optimizer finds the rate of all parts itself.")
        return
    but = "the first number is for all text encoders, as it is there" if count > 1 else ""
    work.set("text_encoder_lr", given, "optim.text_encoder_rate", [rate], but)
