"""The trigger word as vectors that learn: alone that is textual inversion, with a LoRA pivotal tuning.

(arXiv:2208.01618; arXiv:2106.05744 tunes the model around an inversion.)
"""

import itertools

import torch
from torch import Tensor

from ..models import text, words
from ..models.family import Models
from ..models.words import Rows
from ..paths import shown
from ..run import safe_name
from ..settings import TrainConfig

OWNER = "training"


def check(config: TrainConfig) -> None:
    """ValueError for settings with which no word, or nothing at all, would learn."""
    trigger = config.data.trigger.strip()
    if not config.embedding.tokens:
        return
    if not trigger:
        raise ValueError("embedding.tokens needs a word that the vectors stand for; set data.trigger.")
    if safe_name(trigger) != trigger:
        raise ValueError(
            f"data.trigger is {shown(trigger)!r}; with embedding.tokens it names the file of its vectors, by which other "
            f"programs call it. Use one word of letters, digits, - and _, such as {safe_name(trigger)!r}."
        )


def begin(models: Models, config: TrainConfig) -> dict[str, Rows]:
    """Let captions be read with the trigger word as new vectors; gives its rows, which learn, by text encoder."""
    if not config.embedding.tokens:
        return {}
    trigger, initial = config.data.trigger.strip(), config.embedding.initial.strip()
    ids = text.token_ids(models, initial or trigger)
    if not all(ids):
        raise ValueError(
            f"embedding.initial is {shown(initial)!r}, in which the model reads no word; give it another."
        )
    vectors = {
        part: spread(
            models.parts()[part].get_input_embeddings().weight[torch.tensor(own)], config.embedding.tokens
        )
        for part, own in zip(text_encoders(models), ids, strict=True)
    }
    rows = words.add(models, trigger, vectors, OWNER)
    for one in rows:
        one.requires_grad_(True)
    return words.learning(models)


def text_encoders(models: Models) -> list[str]:
    return [spec.attribute for spec in models.family.text_encoders]


def spread(rows: Tensor, count: int) -> Tensor:
    """`count` vectors from the rows (n, D) of some tokens, in their order: each repeated, or the means of neighbours.

    >>> spread(torch.tensor([[1.0], [3.0], [5.0]]), 2).flatten().tolist()
    [1.0, 4.0]
    >>> spread(torch.tensor([[1.0], [3.0]]), 4).flatten().tolist()
    [1.0, 1.0, 3.0, 3.0]
    """
    starts = [number * len(rows) // count for number in range(count + 1)]
    return torch.stack(
        [
            rows[start : max(start + 1, end)].float().mean(0)
            for start, end in itertools.pairwise(starts)
        ]
    )
