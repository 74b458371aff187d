"""The trigger word as vectors that learn: alone that is textual inversion, with a LoRA pivotal tuning.

(arXiv:2208.01618; arXiv:2106.05744 tunes the model around an inversion.)
"""

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from ..data.captions import has_word
from ..lora import beside, embedding
from ..lora.inspection import read_header
from ..models import text, words
from ..models.family import Models
from ..models.words import Rows
from ..paths import shown
from ..run import safe_name
from ..settings import TrainConfig

OWNER = "training"
OnNote = Callable[[str], None]


def check(config: TrainConfig) -> None:
    """ValueError for settings with which the word can't learn, or not be called by other programs."""
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
    if config.loss.keep_base and config.lora.targets == "none":
        raise ValueError(
            f"loss.keep_base is {config.loss.keep_base:g}, which is for layers that learn, and lora.targets is none; set it to 0."
        )


def begin(
    models: Models, config: TrainConfig, *, start: str = "", on_note: OnNote = lambda text: None
) -> dict[str, Rows]:
    """Let captions be read with the trigger word as new vectors; gives its rows, which learn, by text encoder.

    `start` is a LoRA file whose own word they are at the start, unless embedding.initial says otherwise.
    """
    settings, trigger = config.embedding, config.data.trigger.strip()
    if not settings.tokens:
        return {}
    initial = settings.initial.strip()
    known = None if initial or not start else _of_lora(models, Path(start), on_note)
    before = known or _of_vocabulary(models, initial or trigger)
    vectors = {part: spread(rows, settings.tokens) for part, rows in before.items()}
    for rows in words.add(models, trigger, vectors, OWNER):
        rows.requires_grad_(True)
    return words.learning(models)


def check_captions(trigger: str, captions: Iterable[str]) -> None:
    """ValueError where no caption has the word, as with triggers of their own for every folder."""
    if not any(has_word(caption, trigger) for caption in captions):
        raise ValueError(
            f"No caption has the word {shown(trigger)!r} (data.trigger), so its vectors would not learn; use it in a folder "
            "of data.folders, or set embedding.tokens to 0."
        )


def _of_vocabulary(models: Models, initial: str) -> dict[str, Tensor]:
    """The token embeddings (n, D) of some words for each text encoder."""
    found = {}
    for spec, encoder, ids in zip(
        models.family.text_encoders, models.text_encoders, text.token_ids(models, initial), strict=True
    ):
        found[spec.attribute] = encoder.get_input_embeddings().weight[torch.tensor(ids)]
    return found


def _of_lora(models: Models, lora: Path, on_note: OnNote) -> dict[str, Tensor] | None:
    """The vectors that were learned with a LoRA, where there are some."""
    told = beside.named(read_header(lora).metadata)
    found = beside.find(lora, told) if told else None
    if told and not found:
        on_note(
            f"{lora.name} goes with {shown(told.file)}, which does not lie beside it; its word starts anew."
        )
    return embedding.load(found, models.family).vectors if found else None


def spread(rows: Tensor, count: int) -> Tensor:
    """`count` vectors from the rows (n, D) of some tokens, in their order: each repeated, or the means of neighbours.

    >>> spread(torch.tensor([[1.0], [3.0], [5.0]]), 2).flatten().tolist()
    [1.0, 4.0]
    >>> spread(torch.tensor([[1.0], [3.0]]), 4).flatten().tolist()
    [1.0, 1.0, 3.0, 3.0]
    """
    starts = [number * len(rows) // count for number in range(count + 1)]
    return torch.stack(
        [rows[start : max(start + 1, end)].float().mean(0) for start, end in itertools.pairwise(starts)]
    )
