"""Which parts learn, and at what rate: learning_rate, unet_lr, text_encoder_lr and the switches of parts."""

from typing import Any

from . import optimizers
from .translation import Translation
from .values import decimal, flag, is_set, numbers

USUAL = 2e-6  # learning_rate there unless set


def translate(work: Translation) -> None:
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
    if not known:  # a header that tells no more than which parts there are
        _scope(work, not text_only, not unet_only)
        return
    default = USUAL if common is None else common
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
