"""Kernel distance between two feature sets: the unbiased squared maximum mean discrepancy.

Bińkowski, Sutherland, Arbel, Gretton 2018, "Demystifying MMD GANs", ICLR (with Inception features: KID). The
kernel is (x.y / d + 1)^3 for features of d dimensions; it compares the first three moments.
"""

import torch
from torch import Tensor

from generative.scores.linear_algebra import product
from generative.scores.score import Score, mean_score


def kernel_distance(a: Tensor, b: Tensor, *, subset_size: int, seed: int) -> Score:
    """Mean of the unbiased estimate over disjoint random subsets of `a` (N, d) and `b` (M, d).

    The subsets share no feature, so that their spread gives the standard error.

    Args:
        a: features of one set on the CPU, any float type; computed in float64.
        b: features of the other.
        subset_size: features of each set in a subset, at least 2 and at most half of N and of M.
        seed: of the subsets.
    """
    rng = torch.Generator().manual_seed(seed)
    count = min(len(a), len(b)) // subset_size
    parts = [
        x.double()[torch.randperm(len(x), generator=rng)[: count * subset_size]].split(subset_size) for x in (a, b)
    ]
    return mean_score(torch.stack([unbiased_mmd(*pair) for pair in zip(*parts, strict=True)]))


def unbiased_mmd(a: Tensor, b: Tensor) -> Tensor:
    """Unbiased estimate of the squared MMD of `a` (N, d) and `b` (M, d), a scalar; it can be negative."""
    within = [(_kernel(x, x).sum() - _kernel_diagonal(x).sum()) / (len(x) * (len(x) - 1)) for x in (a, b)]
    return within[0] + within[1] - 2 * _kernel(a, b).mean()


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (product(a, b.T) / a.shape[1] + 1) ** 3


def _kernel_diagonal(a: Tensor) -> Tensor:
    return (a.square().sum(1) / a.shape[1] + 1) ** 3
