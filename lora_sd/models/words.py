"""Words of a person's own: each is a few vectors in front of every text encoder (textual inversion, arXiv:2208.01618).

In a caption such a word becomes token ids behind the vocabulary, and the token embedding looks those up in the vectors.
The encoders and their vocabulary stay as they are.
"""

import re
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .family import Models


class Rows(nn.Module):
    """The vectors of one word for one text encoder, in fp32."""

    def __init__(self, word: str, owner: str, vectors: Tensor):
        super().__init__()
        self.word = word  # as captions have it, in any case
        self.owner = owner  # whatever brought it, by which it goes
        self.known = True  # whether captions are read with it
        self.vectors = nn.Parameter(vectors.float())  # (N, D)
        self.copy: Tensor | None = None  # in half precision, while someone keeps it equal to the vectors

    @property
    def learnt(self) -> dict[str, nn.Parameter]:
        """What training changes, by its name here."""
        return {"vectors": self.vectors} if self.vectors.requires_grad else {}


class Vocabulary(nn.Embedding):
    """The token embedding that it replaces, with the rows of words behind its own. Made by `add`, in place."""

    words: nn.ModuleList

    def forward(self, ids: Tensor) -> Tensor:
        own = super().forward(ids.clamp(max=self.num_embeddings - 1))  # (…, D)
        rows = torch.cat([rows.vectors if rows.copy is None else rows.copy for rows in self.words])
        added = F.embedding((ids - self.num_embeddings).clamp(min=0), rows.to(own.dtype))
        return torch.where((ids < self.num_embeddings)[..., None], own, added)


def add(models: Models, word: str, vectors: Mapping[str, Tensor], owner: str) -> list[Rows]:
    """Let captions be read with a word of these vectors (N, D) by text encoder; ValueError where they don't fit."""
    if word.lower() in (rows.word.lower() for rows in _all(models)):
        raise ValueError(f"The word {word!r} is brought by two files; leave one of them out.")
    added = []
    for name, encoder in _encoders(models).items():
        embedding = encoder.get_input_embeddings()
        if not isinstance(embedding, Vocabulary):
            embedding.__class__, embedding.words = Vocabulary, nn.ModuleList()
        added.append(Rows(word, owner, vectors[name].to(embedding.weight.device)).requires_grad_(False))
        embedding.words.append(added[-1])
    return added


def remove(models: Models, owner: str) -> None:
    """Take away the words of an owner; an embedding without any is a plain one again."""
    for encoder in models.text_encoders:
        embedding = encoder.get_input_embeddings()
        if isinstance(embedding, Vocabulary):
            embedding.words = nn.ModuleList(rows for rows in embedding.words if rows.owner != owner)
            if not embedding.words:
                del embedding.words
                embedding.__class__ = nn.Embedding


def know(models: Models, owner: str, known: bool) -> None:
    """Whether captions are read with the words of an owner from now on; else as if they were not there."""
    for rows in _all(models):
        if rows.owner == owner:
            rows.known = known


def learning(models: Models) -> dict[str, Rows]:
    """The rows that learn, by text encoder."""
    return {
        name: rows
        for name, encoder in _encoders(models).items()
        for rows in _words(encoder)
        if rows.vectors.requires_grad
    }


def ids(encoder: nn.Module) -> dict[str, list[int]]:
    """The token ids of each word that captions are read with, by the word in small letters."""
    found, start = {}, encoder.get_input_embeddings().num_embeddings
    for rows in _words(encoder):
        if rows.known:
            found[rows.word.lower()] = [*range(start, start + len(rows.vectors))]
        start += len(rows.vectors)
    return found


def parted(text: str, words: Mapping[str, list[int]]) -> Iterator[str | list[int]]:
    """The text between the words, and their ids where they stand; what is a word is as `captions.has_word` has it.

    >>> [*parted("MyCat, asleep", {"mycat": [7, 8]})]
    ['', [7, 8], ', asleep']
    """
    names = sorted(words, key=len, reverse=True)
    either = "|".join(f"({re.escape(name)})" for name in names)
    end = 0
    for match in re.finditer(rf"(?<!\w)(?:{either})(?!\w)", text, re.IGNORECASE):
        yield text[end : match.start()]
        yield words[names[match.lastindex - 1]]
        end = match.end()
    yield text[end:]


def _encoders(models: Models) -> dict[str, nn.Module]:
    return {name: part for name, part in models.parts().items() if name != "unet"}


def _words(encoder: nn.Module) -> list[Rows]:
    embedding = encoder.get_input_embeddings()
    return [*embedding.words] if isinstance(embedding, Vocabulary) else []


def _all(models: Models) -> Iterator[Rows]:
    for encoder in models.text_encoders:
        yield from _words(encoder)
