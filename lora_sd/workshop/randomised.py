"""The strongest directions of a large matrix without its whole SVD (Halko, Martinsson and Tropp, arXiv:0909.4061).

Algorithm 4.4: the matrix is multiplied with a few random vectors, a little more than are asked for, and three times back
and forth; what they span holds the largest singular vectors, and the SVD is done in there.
"""

import torch
from torch import Tensor

from .spectra import Spectrum

MORE = 10  # vectors than asked for
TIMES = 3


def top_directions(matrix: Tensor, rank: int, *, seed: int = 0) -> Spectrum:
    """The first `rank` singular values and vectors of (out, in); exact where the matrix is not much larger than that."""
    if rank + MORE >= min(matrix.shape) // 2:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        return Spectrum(left[:, :rank], values[:rank], right[:rank])
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randn(matrix.shape[1], rank + MORE, generator=generator, dtype=matrix.dtype)
    basis = torch.linalg.qr(matrix @ sample).Q
    for _ in range(TIMES):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    left, values, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return Spectrum((basis @ left)[:, :rank], values[:rank], right[:rank])
