"""What a person should look at in a set of pictures before training: each finding with the pictures it is about."""

from collections import Counter
from typing import Any, NamedTuple

from lora_sd.data import health
from lora_sd.data.buckets import MUCH_CROPPED, Fit, Size
from lora_sd.data.captions import has_word
from lora_sd.models.tokens import MOST

from .seen import Seen
from .words import say


class Card(NamedTuple):
    """What is known of one picture."""

    name: str
    on: bool
    caption: str
    tokens: int  # of the caption with the trigger word
    size: Size | None  # None of a file that is no picture
    fit: Fit | None  # None where the resolution is not known
    seen: Seen | None  # None until it was looked at


class Finding(NamedTuple):
    kind: str
    level: str  # "bad", "warn", "hint", or "good" where there is nothing to mend
    text: str
    names: list[str]  # of the pictures to show
    act: dict[str, Any] | None = None  # what its button asks for, with its label


def findings(cards: list[Card], trigger: str) -> list[Finding]:
    """Of the pictures that are used, the gravest first."""
    used = [card for card in cards if card.on]
    sound = [card for card in used if card.size and not (card.seen and card.seen.problem)]
    found = [
        _unreadable(used),
        _same(sound),
        _small(sound),
        _cropped(sound),
        _blurred(sound),
        _without_caption(used, trigger),
        _long(used),
        _without_trigger(used, trigger),
        _shapes(sound),
    ]
    return [finding for finding in found if finding]


def warnings(card: Card, doubles: dict[str, str]) -> list[tuple[str, str]]:
    """(level, words) of what is odd about one picture; `doubles` has the name of the one that it is nearly the same as."""
    said = []
    if card.size is None or (card.seen and card.seen.problem):
        return [("bad", card.seen.problem if card.seen else say("It can't be read."))]
    if card.name in doubles:
        said.append(("warn", say("Nearly the same as {name}.", name=doubles[card.name])))
    if _is_small(card):
        said.append(
            ("warn", say("Small: {w} × {h}, so enlarged and softer.", w=card.size[0], h=card.size[1]))
        )
    if _is_cropped(card):
        said.append(("warn", say("{share} is cropped away.", share=f"{card.fit.cropped_away:.0%}")))
    if _is_blurred(card):
        said.append(("hint", say("Perhaps blurred.")))
    if card.tokens > MOST:
        said.append(("hint", say("{count} tokens, read in pieces of {most}.", count=card.tokens, most=MOST)))
    return said


def doubles(cards: list[Card]) -> dict[str, str]:
    """Pictures that are nearly the same as one before them, and the name of that."""
    sound = [card for card in cards if card.on and card.size and card.seen and not card.seen.problem]
    groups = health.alike([card.seen.fingerprint for card in sound])
    return {sound[index].name: sound[first].name for first, *more in groups for index in more}


def _unreadable(cards: list[Card]) -> Finding | None:
    names = [card.name for card in cards if card.size is None or (card.seen and card.seen.problem)]
    if not names:
        return None
    text = (
        say("1 picture can't be read") if len(names) == 1 else say("{n} pictures can't be read", n=len(names))
    )
    return Finding("unreadable", "bad", text, names, _off(names))


def _same(cards: list[Card]) -> Finding | None:
    second = doubles(cards)
    if not second:
        return None
    text = (
        say("1 picture is nearly the same as another")
        if len(second) == 1
        else say("{n} pictures are nearly the same as another", n=len(second))
    )
    names = [card.name for card in cards if card.name in second or card.name in second.values()]
    act = {"act": "off", "names": list(second), "label": say("Leave out the second ones")}
    return Finding("same", "warn", text, names, act)


def _small(cards: list[Card]) -> Finding | None:
    names = [card.name for card in cards if _is_small(card)]
    text = (
        say("1 picture is small, so enlarged and softer")
        if len(names) == 1
        else say("{n} pictures are small, so enlarged and softer", n=len(names))
    )
    return Finding("small", "warn", text, names) if names else None


def _cropped(cards: list[Card]) -> Finding | None:
    names = [card.name for card in cards if _is_cropped(card)]
    text = (
        say("1 picture is so long that a quarter or more is cropped away")
        if len(names) == 1
        else say("{n} pictures are so long that a quarter or more is cropped away", n=len(names))
    )
    return Finding("cropped", "warn", text, names) if names else None


def _blurred(cards: list[Card]) -> Finding | None:
    names = [card.name for card in cards if _is_blurred(card)]
    text = (
        say("1 picture is perhaps blurred")
        if len(names) == 1
        else say("{n} pictures are perhaps blurred", n=len(names))
    )
    return Finding("blurred", "hint", text, names) if names else None


def _without_caption(cards: list[Card], trigger: str) -> Finding | None:
    names = [card.name for card in cards if not card.caption]
    if not names:
        return None
    if not trigger:
        text = say("{n} without a caption, and there is no trigger word to stand in", n=len(names))
        return Finding("uncaptioned", "bad", text, names)
    text = (
        say("1 picture has no caption: the trigger word stands in")
        if len(names) == 1
        else say("{n} pictures have no caption: the trigger word stands in", n=len(names))
    )
    return Finding("uncaptioned", "hint", text, names)


def _long(cards: list[Card]) -> Finding | None:
    names = [card.name for card in cards if card.tokens > MOST]
    text = (
        say("1 caption has more than {most} tokens", most=MOST)
        if len(names) == 1
        else say("{n} captions have more than {most} tokens", n=len(names), most=MOST)
    )
    return Finding("long", "hint", text, names) if names else None


def _without_trigger(cards: list[Card], trigger: str) -> Finding | None:
    """Training puts it in front of these."""
    captioned = [card for card in cards if card.caption]
    names = [card.name for card in captioned if trigger and not has_word(card.caption, trigger)]
    if not names:
        return None
    text = (
        say("1 caption lacks {trigger}: training puts it in front", trigger=trigger)
        if len(names) == 1
        else say("{n} captions lack {trigger}: training puts it in front", n=len(names), trigger=trigger)
    )
    act = {"act": "preview", "names": names, "edit": {"how": "first", "text": trigger}}
    return Finding("trigger", "good", text, names, {**act, "label": say("Write it")})


def _shapes(cards: list[Card]) -> Finding | None:
    """Which sizes the set is trained in."""
    counts = Counter(card.fit.bucket for card in cards if card.fit)
    if not counts:
        return None
    told = " · ".join(f"{w} × {h}: {count}" for (w, h), count in counts.most_common(6))
    if len(counts) == 1:
        return Finding("shapes", "good", say("All train in one shape. {sizes}", sizes=told), [])
    text = say("They train in {n} shapes. {sizes}", n=len(counts), sizes=told)
    return Finding("shapes", "good", text, [])


def _is_small(card: Card) -> bool:
    return bool(card.size and card.fit and card.fit.resized[0] > card.size[0])


def _is_cropped(card: Card) -> bool:
    return bool(card.fit and card.fit.cropped_away > MUCH_CROPPED)


def _is_blurred(card: Card) -> bool:
    return bool(card.seen and not card.seen.problem and card.seen.sharpness < health.BLURRED)


def _off(names: list[str]) -> dict[str, Any]:
    return {"act": "off", "names": names, "label": say("Leave out")}
