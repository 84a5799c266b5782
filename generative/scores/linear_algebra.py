"""Products and eigenvalues of float64 matrices on the CPU, by NumPy with one thread.

In its mode of portable bytes (`generative.compute.portable`) MKL, which torch uses, computes in float64 with the
instructions of 2001. OpenBLAS, which NumPy uses, is three to five times as fast when it is held to those of AVX2, whose
bytes are the same everywhere. Tensors must not require gradients.
"""

from functools import lru_cache

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for `a` (N, K) and `b` (K, M)."""
    with _libraries().limit(limits=1):  # more would add in another order
        return torch.from_numpy(a.numpy() @ b.numpy())


def eigenvalues(matrix: Tensor) -> Tensor:
    """The eigenvalues (d,), ascending, of a symmetric `matrix` that has none below 0; 0 where rounding hides them."""
    with _libraries().limit(limits=1):
        return _without_rounding(torch.from_numpy(np.linalg.eigvalsh(matrix.numpy())))


def eigenvectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The same, and the eigenvectors in the columns of (d, d)."""
    with _libraries().limit(limits=1):
        values, vectors = np.linalg.eigh(matrix.numpy())
    return _without_rounding(torch.from_numpy(values)), torch.from_numpy(vectors)


def singular_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Of a `matrix` (M, N) with M at least N: singular values (N,), descending, and right singular vectors in rows."""
    with _libraries().limit(limits=1):
        _, values, vectors = np.linalg.svd(matrix.numpy(), full_matrices=False)
    return torch.from_numpy(values), torch.from_numpy(vectors)


def _without_rounding(values: Tensor) -> Tensor:
    hidden = len(values) * torch.finfo(values.dtype).eps * values.max()
    return torch.where(values > hidden, values, 0.0)


@lru_cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()
