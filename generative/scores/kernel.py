"""Kernel distance between two feature sets: the unbiased squared maximum mean discrepancy.

Bińkowski, Sutherland, Arbel, Gretton 2018, "Demystifying MMD GANs", ICLR (with Inception features: KID). The
kernel is (x.y / d + 1)^3 for features of d dimensions; it compares the first three moments.
"""

import torch
from torch import Tensor

from generative.scores.score import Score, mean_score


def kernel_distance(a: Tensor, b: Tensor, *, subsets: int, subset_size: int, seed: int) -> Score:
    """Mean of the unbiased estimate over random subsets of `a` (N, d) and `b` (M, d), without replacement in each.

    The subsets share few features, but they share some: the standard error is a little too small.

    Args:
        a: features of one set, any float type; computed in float64.
        b: features of the other.
        subsets: how many, at least 2.
        subset_size: features of each set in a subset, at least 2 and at most N and M.
        seed: of the subsets.
    """
    rng = torch.Generator().manual_seed(seed)
    a, b = a.double(), b.double()
    values = torch.stack(
        [
            unbiased_mmd(
                a[torch.randperm(len(a), generator=rng)[:subset_size]],
                b[torch.randperm(len(b), generator=rng)[:subset_size]],
            )
            for _ in range(subsets)
        ]
    )
    return mean_score(values)


def unbiased_mmd(a: Tensor, b: Tensor) -> Tensor:
    """Unbiased estimate of the squared MMD of `a` (N, d) and `b` (M, d), a scalar; it can be negative."""
    within = [(_kernel(x, x).sum() - _kernel_diagonal(x).sum()) / (len(x) * (len(x) - 1)) for x in (a, b)]
    return within[0] + within[1] - 2 * _kernel(a, b).mean()


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _kernel_diagonal(a: Tensor) -> Tensor:
    return (a.square().sum(1) / a.shape[1] + 1) ** 3
