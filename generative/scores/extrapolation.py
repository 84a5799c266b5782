"""Fréchet distance extrapolated to infinitely many images.

A Fréchet distance computed from N images of each kind is too large by about c / N, with a c that differs between models
and grows with the dimensions of the features. Chong, Forsyth 2020, "Effectively Unbiased FID and Inception Score and
Where to Find Them", CVPR: a line is fitted to the distance over 1 / N, and read off at 0. There the number of real
images stays as it is; here both sets are divided, so that the bias of both goes and real images are at distance 0 of
real images. The parts are disjoint and use all images, where there they are quasi-random.
"""

import torch
from scipy.stats import linregress
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

    For K = 1, 2, ... the distance is averaged over K pairs of disjoint parts. The error is that of the fitted line's
    intercept, and 0 for a line through two points; that of the distance itself, in which all images count, adds to it.
    """
    rng = torch.Generator().manual_seed(seed)
    size = min(len(a), len(b))
    counts = range(1, 1 + min(_MOST_PARTS, size // (_IMAGES_PER_DIMENSION * a.shape[1])))
    distances = []
    for count in counts:
        parts = [x[torch.randperm(len(x), generator=rng)[: size // count * count]].split(size // count) for x in (a, b)]
        pairs = [frechet_distance(*map(statistics, pair)) for pair in zip(*parts, strict=True)]
        distances.append(sum(pairs) / count)
    line = linregress(counts, distances)
    return Score(float(line.intercept), float(line.intercept_stderr))
