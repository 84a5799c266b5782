"""Fréchet distance between two feature sets, each taken as a Gaussian.

Dowson, Landau 1982, "The Fréchet Distance between Multivariate Normal Distributions", Journal of Multivariate
Analysis 12; used for generative models by Heusel et al. 2017 (there with Inception-v3 features: FID).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from generative.compute.portable import square_root
from generative.scores.linear_algebra import eigenvalues, eigenvectors, product
from generative.scores.score import Score


class Statistics(NamedTuple):
    """Mean float64 (d,) and unbiased covariance float64 (d, d) of a feature set."""

    mean: Tensor
    covariance: Tensor


def statistics(features: Tensor) -> Statistics:
    """Mean and covariance of `features` (N, d), N >= 2, in float64."""
    features = features.double()
    mean = features.mean(0)
    centred = features - mean
    return Statistics(mean, product(centred.T, centred) / (len(features) - 1))


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """Squared Fréchet distance |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)); 0 for equal Gaussians.

    The trace of the last root is that of (C_a^(1/2) C_b C_a^(1/2))^(1/2), which is symmetric; a covariance may be
    singular.
    """
    values, vectors = eigenvectors(a.covariance)
    root = product(vectors * square_root(values), vectors.T)
    return _distance(a, b, square_root(eigenvalues(product(product(root, b.covariance), root))))


def frechet_score(a: Tensor, b: Tensor) -> Score:
    """The distance between features `a` (N, d) and `b` (M, d), N, M >= 2, with its standard error.

    The error is the infinitesimal jackknife: to first order each row changes the distance by its influence, the
    derivative of the distance in the direction of that row, and the influences are independent (Jaeckel 1972, "The
    Infinitesimal Jackknife", Bell Laboratories; Efron 1982, "The Jackknife, the Bootstrap and Other Resampling Plans",
    SIAM). For Gaussians the derivative by C_a is I - T, where T is the optimal transport map (Bhatia, Jain, Lim 2019,
    "On the Bures-Wasserstein Distance between Positive Definite Matrices", Expositiones Mathematicae 37). It costs
    little more than the distance itself.
    """
    a, b = a.double(), b.double()
    ours, theirs = statistics(a), statistics(b)
    values, vectors = eigenvectors(ours.covariance)
    root = product(vectors * square_root(values), vectors.T)
    squares, basis = eigenvectors(product(product(root, theirs.covariance), root))
    cross = square_root(squares)
    inverse = product(vectors * _inverse(square_root(values)), vectors.T)
    there = product(inverse, basis * square_root(cross))
    back = product(root, basis * square_root(_inverse(cross)))
    difference = ours.mean - theirs.mean
    variances = [
        _influences(x - mean, to_other, transport).var() / len(x)
        for x, mean, to_other, transport in ((a, ours.mean, difference, there), (b, theirs.mean, -difference, back))
    ]
    return Score(_distance(ours, theirs, cross), float(sum(variances)) ** 0.5)


def _distance(a: Statistics, b: Statistics, cross: Tensor) -> float:
    """From the eigenvalues (d,) of (C_a C_b)^(1/2)."""
    difference = (a.mean - b.mean).square().sum()
    distance = difference + a.covariance.trace() + b.covariance.trace() - 2 * cross.sum()
    return float(distance.clamp(min=0))  # rounding can make it -1e-15


def _influences(x: Tensor, difference: Tensor, transport: Tensor) -> Tensor:
    """How much each of the centred `x` (N, d) changes the distance, less a constant; T = `transport` `transport`'."""
    return 2 * x @ difference + x.square().sum(1) - product(x, transport).square().sum(1)


def _inverse(values: Tensor) -> Tensor:
    """The reciprocal of each of `values` (d,), and 0 for 0."""
    return torch.where(values > 0, values.reciprocal(), 0.0)
