"""What a caption is at one showing of its picture: tags in another order, some left out, one of several wordings.

Every showing draws for itself, from (seed, example, showing). Text states are made once for every text and kept, so the
texts of a run are a finite set: an example has at most `num_variants` of them and goes through them in turn.
"""

import random
import re
from typing import NamedTuple

from .captions import has_word

MOST_TEXTS = (
    5000  # of all examples together: 600 MB of text states of SD 1.x, 1.6 GB of SDXL in half precision
)
CHOICE = re.compile(r"\{([^{}]*)\}")
HELD = str.maketrans({"\x02": "{", "\x03": "}"})  # signs that no caption has stand for {{ and }} meanwhile


class Wording(NamedTuple):
    """What may be done to captions."""

    prefix: str = ""
    suffix: str = ""
    shuffle: bool = False
    keep: int = 0  # tags at the front that stay
    separator: str = (
        "|||"  # ends the tags that stay, instead of `keep`; a second one begins tags that stay at the end
    )
    tag_dropout: float = 0.0
    dropout: float = 0.0
    wildcards: bool = False
    trigger: str = ""  # a tag with this word is never left out

    def varies(self, caption: str) -> bool:
        """Whether it has more than one text."""
        chosen = "\n" in caption or (self.wildcards and "{" in caption)
        return bool(self.shuffle or self.tag_dropout or chosen)


AS_IT_IS = Wording()


def num_variants(num_examples: int) -> int:
    """How many texts each of so many examples may have."""
    return max(1, MOST_TEXTS // num_examples)


def drawn(caption: str, wording: Wording, seed: int, index: int, shown: int, num_variants: int) -> str:
    """The text of an example that was `shown` so often before, as a function of (seed, index, shown); "" where it is left out."""
    if random.Random(f"{seed}/{index}/without/{shown}").random() < wording.dropout:
        return ""
    return variant(caption, wording, seed, index, shown % num_variants)


def variant(caption: str, wording: Wording, seed: int, index: int, number: int) -> str:
    """One of an example's texts, as a function of (seed, index, number)."""
    rng = random.Random(f"{seed}/{index}/{number}") if wording.varies(caption) else None
    return text(caption, wording, rng)


def text(caption: str, wording: Wording, rng: random.Random | None = None) -> str:
    """The caption as it is shown; without `rng` nothing is left to chance: first line, first choices, all tags in order."""
    lines = caption.split("\n")
    line = rng.choice(lines) if rng else lines[0]
    if wording.wildcards:
        line = chosen(line, rng)
    return " ".join(
        filter(None, (wording.prefix.strip(), arranged(line, wording, rng), wording.suffix.strip()))
    )


def chosen(line: str, rng: random.Random | None = None) -> str:
    """One of each `{a|b}`; `{{` and `}}` are braces that stay. Choices inside choices are not read.

    >>> chosen("a {red|blue} fox {{sic}}")
    'a red fox {sic}'
    """

    def one(match: re.Match) -> str:
        choices = match[1].split("|")
        return rng.choice(choices) if rng else choices[0]

    held = line.replace("{{", "\x02").replace("}}", "\x03")
    return " ".join(CHOICE.sub(one, held).translate(HELD).split())


def arranged(line: str, wording: Wording, rng: random.Random | None = None) -> str:
    """The line with its tags between those that stay shuffled or left out; the separator never stays.

    >>> arranged("my cat, sleepy ||| snow", Wording())
    'my cat, sleepy, snow'
    """
    marked = bool(wording.separator) and wording.separator in line
    by_chance = rng and (wording.shuffle or wording.tag_dropout)
    if not marked and not by_chance:
        return line
    first, free, last = _parts(line, wording, marked)
    if by_chance:
        free = [tag for tag in free if rng.random() >= wording.tag_dropout or has_word(tag, wording.trigger)]
        if wording.shuffle:
            rng.shuffle(free)
    return ", ".join(first + free + last)


def _parts(line: str, wording: Wording, marked: bool) -> tuple[list[str], list[str], list[str]]:
    """(tags that stay in front, those that may move or go, those that stay at the end)."""
    if not marked:
        tags = _tags(line)
        return tags[: wording.keep], tags[wording.keep :], []
    first, free, *last = line.split(wording.separator)
    return _tags(first), _tags(free), [tag for part in last for tag in _tags(part)]


def _tags(text: str) -> list[str]:
    return [tag for tag in map(str.strip, text.split(",")) if tag]
