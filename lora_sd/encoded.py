"""Text states of prompts that are kept as long as nothing they depend on changes: to move the U-Net's strength encodes nothing."""

from collections import OrderedDict
from typing import Any

from .lora import layers
from .models import text, words
from .models.family import Conditioning, Models

MOST = 32  # prompts; one of SDXL is a megabyte


class Encoded:
    """`text.encode`, remembered by the captions, the strengths in the text encoders and the words that are known."""

    def __init__(self) -> None:
        self.kept: OrderedDict[Any, Conditioning] = OrderedDict()
        self.count = 0  # how often something was encoded

    def __call__(self, models: Models, captions: list[str]) -> Conditioning:
        key = (tuple(captions), influences(models))
        if key not in self.kept:
            self.kept[key] = text.encode(models, captions)
            self.count += 1
        self.kept.move_to_end(key)
        while len(self.kept) > MOST:
            self.kept.popitem(last=False)
        return self.kept[key]

    def forget(self) -> None:
        """For when other weights came to the encoders, or went."""
        self.kept.clear()


def influences(models: Models) -> tuple[Any, ...]:
    """What changes text states besides the captions, as it is now."""
    encoders = {name: part for name, part in models.parts().items() if name != "unet"}
    strengths = [(layer, a.name, a.strength) for layer, a in layers.low_ranks(encoders) if a.strength]
    known = [tuple(sorted(words.ids(encoder))) for encoder in models.text_encoders]
    return (*strengths, *known)
