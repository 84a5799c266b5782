"""Fréchet distance extrapolated to infinitely many samples.

A Fréchet distance computed from N samples is too large by about c / N, with a c that differs between models.
Chong, Forsyth 2020, "Effectively Unbiased FID and Inception Score and Where to Find Them", CVPR: a line is fitted
to the distance over 1 / N, and read off at 0. Here the subsets are drawn at random, not quasi-randomly.
"""

import torch
from scipy.stats import linregress
from torch import Tensor

from generative.scores.frechet import Statistics, frechet_distance, statistics
from generative.scores.score import Score

_SIZES = 15  # numbers of samples, evenly spaced in 1 / N between a tenth and all of them
_SMALLEST_SHARE = 0.1
SAMPLES_PER_DIMENSION = 10  # fewer, and the smallest subset has a singular covariance


def extrapolated_frechet_distance(samples: Tensor, real: Statistics, *, seed: int) -> Score:
    """Extrapolate the distance of `samples` (N, d), N >= SAMPLES_PER_DIMENSION * d, to fixed `real` statistics.

    The bias from the number of real features stays: it is the same for every model. The error is that of the
    fitted line's intercept; which samples were drawn adds to it.
    """
    rng = torch.Generator().manual_seed(seed)
    inverse = torch.linspace(1 / len(samples), 1 / (_SMALLEST_SHARE * len(samples)), _SIZES, dtype=torch.float64)
    distances = []
    for size in (1 / inverse).round().long().tolist():
        subset = samples[torch.randperm(len(samples), generator=rng)[:size]]
        distances.append(frechet_distance(statistics(subset), real))
    line = linregress(inverse.numpy(), distances)
    return Score(float(line.intercept), float(line.intercept_stderr))
