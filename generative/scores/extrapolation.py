"""Fréchet distance extrapolated to infinitely many images.

A Fréchet distance computed from N images of each kind is too large by about c / N, with a c that differs between models
and grows with the dimensions of the features. Chong, Forsyth 2020, "Effectively Unbiased FID and Inception Score and
Where to Find Them", CVPR: a line is fitted to the distance over 1 / N, and read off at 0. There the number of real
images stays as it is; here both sets are divided, so that the bias of both goes and real images are at distance 0 of
real images. The parts are disjoint and use all images, where there they are quasi-random.
"""

import math

import torch
from torch import Tensor

from generative.scores.frechet import frechet_distance, statistics
from generative.scores.score import Score

_MOST_PARTS = 4
_IMAGES_PER_DIMENSION = 3  # with fewer the bias of a Fréchet distance is no line over 1 / N any more


def enough_for_covariance(images: int, dimensions: int) -> bool:
    """Whether a Fréchet distance from so many images means something, for features of so many dimensions."""
    return images >= _IMAGES_PER_DIMENSION * dimensions


def can_extrapolate(images: int, dimensions: int) -> bool:
    """Whether each half of so many images is enough."""
    return enough_for_covariance(images // 2, dimensions)


def extrapolated_frechet_distance(a: Tensor, b: Tensor, *, seed: int) -> Score:
    """Extrapolate the distance of features `a` (N, d) and `b` (M, d), of which `can_extrapolate` holds.

    For K = 1, 2, ... the distance is averaged over K pairs of disjoint parts, each a Kth of its set, and a line over K
    is read off at 0; the value can be negative. The error is what the spread between the pairs of each K leaves in it;
    that of the distance of all images, of which there is one pair only, adds to it.
    """
    rng = torch.Generator().manual_seed(seed)
    most = min(_MOST_PARTS, min(len(a), len(b)) // (_IMAGES_PER_DIMENSION * a.shape[1]))
    counts = torch.arange(1, most + 1, dtype=torch.float64)
    means, variances = [], []
    for count in range(1, most + 1):
        parts = [x[torch.randperm(len(x), generator=rng)].tensor_split(count) for x in (a, b)]
        distances = [frechet_distance(*map(statistics, pair)) for pair in zip(*parts, strict=True)]
        values = torch.tensor(distances, dtype=torch.float64)
        means.append(values.mean())
        variances.append(values.var() / count if count > 1 else torch.zeros((), dtype=torch.float64))
    centred = counts - counts.mean()
    weights = 1 / most - counts.mean() * centred / centred.square().sum()  # of the least-squares line's value at 0
    variance = float((weights.square() * torch.stack(variances)).sum())
    return Score(float((weights * torch.stack(means)).sum()), math.sqrt(variance))
