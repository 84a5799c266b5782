"""Fréchet distance between two feature sets, each taken as a Gaussian.

Dowson, Landau 1982, "The Fréchet Distance between Multivariate Normal Distributions", Journal of Multivariate
Analysis 12; used for generative models by Heusel et al. 2017 (there with Inception-v3 features: FID).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from generative.compute.portable import square_root


class Statistics(NamedTuple):
    """Mean float64 (d,) and unbiased covariance float64 (d, d) of a feature set."""

    mean: Tensor
    covariance: Tensor


def statistics(features: Tensor) -> Statistics:
    """Mean and covariance of `features` (N, d), N >= 2, in float64."""
    features = features.double()
    return Statistics(features.mean(0), torch.cov(features.T))


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """Squared Fréchet distance |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)); 0 for equal Gaussians.

    The trace of the square root is the sum of the singular values of C_a^(1/2) C_b^(1/2), which stays exact
    when a covariance is singular.
    """
    difference = (a.mean - b.mean).square().sum()
    cross = torch.linalg.svdvals(_root(a.covariance) @ _root(b.covariance)).sum()
    distance = difference + a.covariance.trace() + b.covariance.trace() - 2 * cross
    return float(distance.clamp(min=0))  # rounding can make it -1e-15; NaN stays NaN


def bootstrap_error(a: Tensor, b: Tensor, *, resamples: int, seed: int) -> float:
    """Standard error of the distance between features `a` (N, d) and `b` (M, d), both drawn anew with replacement.

    Efron 1979, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7.
    """
    rng = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(resamples):
        drawn = [x[torch.randint(len(x), (len(x),), generator=rng)] for x in (a, b)]
        values.append(frechet_distance(statistics(drawn[0]), statistics(drawn[1])))
    return float(torch.tensor(values, dtype=torch.float64).std())


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * square_root(values.clamp(min=0))) @ vectors.T
