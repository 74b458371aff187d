"""All that learns, as one vector of numbers: one gradient to clip, to check and to share between cards, one optimizer kernel.

Each adapter's `down` and `up`, and the rows of a word that learns, are views of it. Under a half-precision base the layers
work with copies in that format, renewed once a step, so that no pass casts hundreds of small matrices.
"""

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ..lora.pairs import Factors, LowRank
from ..models.words import Rows

ALIGNMENT = 8  # numbers: matrices begin at multiples of 16 bytes in half precision, as the fast products ask


class Vector:
    """What learns of `adapters` and a word's `rows` (on one device) as `values`, a Parameter whose gradient is always there.

    `values`, its gradient, and the loss that belongs to it stay at the same addresses for the whole run.
    """

    def __init__(self, adapters: Iterable[LowRank], dtype: torch.dtype, rows: Iterable[Rows] = ()):
        self.adapters, self.rows = list(adapters), list(rows)
        learners = (*self.adapters, *self.rows)
        found = [(kind, p) for learner in learners for kind, p in learner.learnt.items()]
        self.kinds, masters = [kind for kind, _ in found], [parameter for _, parameter in found]
        self.shapes = [tuple(parameter.shape) for parameter in masters]
        self.values = nn.Parameter(self.join([parameter.data for parameter in masters]))
        self.sums = self.values.new_zeros(
            len(self.values) + 1
        )  # of a step so far: gradient, and loss at the end
        self.values.grad = self.gradient
        for master, view in zip(masters, self.split(self.values.data), strict=True):
            master.data = view
        self.copies = None if dtype == torch.float32 else self.values.detach().to(dtype)
        self.leaves = masters if self.copies is None else self._give_copies(masters)
        self.fresh = None if self.copies is None else torch.zeros_like(self.copies)  # gradients of one pass

    def _give_copies(self, masters: list[nn.Parameter]) -> list[Tensor]:
        copies = [view.detach().requires_grad_() for view in self.split(self.copies)]
        # what magnitudes learn is too little beside them to be seen in half precision
        found = zip(self.kinds, masters, copies, strict=True)
        leaves = [master if kind == "magnitude" else copy for kind, master, copy in found]
        rest = iter(leaves)
        for adapter in self.adapters:
            own = {kind: next(rest) for kind in adapter.learnt}
            # what doesn't learn is converted by each pass, so that it can still be replaced
            adapter.copies = Factors(own.get("down", adapter.down), own["up"])
        for rows in self.rows:
            rows.copy = next(rest)
        return leaves

    def spread(self, **numbers: float) -> Tensor:
        """(N,) with a number for each kind, "down", "up", "magnitude" or "vectors"; 0 where none is given."""
        views = self.split(self.values)
        pairs = zip(self.kinds, views, strict=True)
        return self.join([torch.full_like(view, numbers.get(kind, 0.0)) for kind, view in pairs])

    def join(self, matrices: list[Tensor]) -> Tensor:
        """Matrices of the adapters' shapes as one vector; what lies between them is 0."""
        flat = matrices[0].new_zeros(sum(_room(matrix.numel()) for matrix in matrices))
        for view, matrix in zip(self.split(flat), matrices, strict=True):
            view.copy_(matrix)
        return flat

    def split(self, flat: Tensor) -> list[Tensor]:
        """A vector as the matrices that lie in it."""
        views, start = [], 0
        for shape in self.shapes:
            count = torch.Size(shape).numel()
            views.append(flat[start : start + count].view(shape))
            start += _room(count)
        return views

    def parameters(self, matrices: Sequence[int], *, apart: bool = False) -> list[nn.Parameter]:
        """Some of the matrices, in order, for an optimizer: as few pieces of `values` as can be, or each in its shape if `apart`.

        Whatever is done to them is done to `values`; their gradients are pieces of its gradient.
        """
        if not apart and len(matrices) == len(self.shapes):
            return [self.values]

        def pieces(flat: Tensor) -> list[Tensor]:
            if apart:
                views = self.split(flat)
                return [views[place] for place in matrices]
            return [flat[start:end] for start, end in self._stretches(matrices)]

        found = [nn.Parameter(piece) for piece in pieces(self.values.data)]
        for parameter, gradient in zip(found, pieces(self.gradient), strict=True):
            parameter.grad = gradient
        return found

    def _stretches(self, matrices: Sequence[int]) -> list[tuple[int, int]]:
        """(start, end) of the fewest pieces of the vector that hold these matrices."""
        starts = [0, *itertools.accumulate(_room(torch.Size(shape).numel()) for shape in self.shapes)]
        found: list[tuple[int, int]] = []
        for place in matrices:
            joins = bool(found) and found[-1][1] == starts[place]
            start = found.pop()[0] if joins else starts[place]
            found.append((start, starts[place + 1]))
        return found

    @property
    def gradient(self) -> Tensor:
        """(N,) fp32, of the step's loss so far."""
        return self.sums[:-1]

    @property
    def loss(self) -> Tensor:
        """() fp32, of the step so far."""
        return self.sums[-1]

    @torch.no_grad()
    def collect(self, loss: Tensor) -> None:
        """Add what a backward pass left, and its loss, to the step's sums; takes a handful of kernels."""
        if self.fresh is not None:
            # gathered first, for adding across number formats would take a kernel for each matrix
            torch._foreach_copy_(*self._learnt(self.fresh))
            self.gradient.add_(self.fresh)
        if self.fresh is None or "magnitude" in self.kinds:
            torch._foreach_add_(*self._learnt(self.gradient))
        self.loss.add_(loss)
        self.clear()

    def clear(self) -> None:
        """Nothing is left of a backward pass: of the last one, or of one that broke off."""
        for leaf in self.leaves:
            leaf.grad = None

    def _learnt(self, flat: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The matrices of `flat` that got a gradient in its number format, and the gradients."""
        pairs = [(view, leaf.grad) for view, leaf in zip(self.split(flat), self.leaves, strict=True)]
        got = [(view, grad) for view, grad in pairs if grad is not None and grad.dtype == flat.dtype]
        return [view for view, _ in got], [grad for _, grad in got]

    @torch.no_grad()
    def renew(self) -> None:
        """After `values` changed: the layers' copies follow."""
        if self.copies is not None:
            self.copies.copy_(self.values)


def _room(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT
