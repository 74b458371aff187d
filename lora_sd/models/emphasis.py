"""Words that count more or less: `(red:1.3)` 1.3 times, `(red)` 1.1 times, `[red]` 1 / 1.1 times, as A1111 reads prompts.

Text states are multiplied by their tokens' weights, then by what brings the mean of each chunk back to what it was.
"""

import re

import torch
from torch import Tensor

MORE = 1.1  # of round brackets without a number
PIECE = re.compile(r"\\[\\()\[\]]|:\s*([+-]?\d*\.?\d+)\s*\)|[()\[\]]|[^\\()\[\]:]+|[\\:]")


def parts(text: str) -> list[tuple[str, float]]:
    """The text in pieces, each with its weight; brackets may lie in brackets, and after a backslash they stay.

    >>> parts("a (red:1.5) fox, (old)")
    [('a ', 1.0), ('red', 1.5), (' fox, ', 1.0), ('old', 1.1)]
    """
    found: list[tuple[str, float]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}  # where in `found` each open bracket begins

    def close(kind: str, times: float) -> None:
        begin = opened[kind].pop()
        found[begin:] = [(piece, weight * times) for piece, weight in found[begin:]]

    for match in PIECE.finditer(text):
        piece, number = match[0], match[1]
        if piece in opened:
            opened[piece].append(len(found))
        elif (number or piece == ")") and opened["("]:
            close("(", float(number or MORE))
        elif piece == "]" and opened["["]:
            close("[", 1 / MORE)
        else:
            found.append((piece[1:] if len(piece) == 2 and piece[0] == "\\" else piece, 1.0))
    for kind, times in (("(", MORE), ("[", 1 / MORE)):  # never closed: to the end
        while opened[kind]:
            close(kind, times)
    return _joined(found)


def _joined(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Neighbours of one weight as one piece."""
    joined: list[tuple[str, float]] = []
    for piece, weight in pieces:
        if joined and joined[-1][1] == weight:
            piece = joined.pop()[0] + piece
        joined.append((piece, weight))
    return joined


def weigh(states: Tensor, weights: Tensor) -> Tensor:
    """The states (N, 77, D) times their tokens' weights (N, 77), each row's mean kept; rows of weight 1 stay as they are."""
    before = states.float()
    after = before * weights[..., None]
    after = after * (before.mean((1, 2)) / after.mean((1, 2)))[:, None, None]
    plain = (weights == 1).all(dim=1)[:, None, None]
    return torch.where(plain, states, after.to(states.dtype))
