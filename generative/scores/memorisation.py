"""Whether samples are copies of training images.

For each sample and each test image, the Euclidean distance between grey levels and its nearest training image. A
model that has learned the distribution is as far from its training images as the test images are; cf. Meehan,
Chaudhuri, Dasgupta 2020, "A Non-Parametric Test to Detect Data-Copying in Generative Models", AISTATS, which
compares the same two sets of distances.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from generative.compute.batching import in_batches
from generative.compute.portable import matmul, square_root
from generative.data.splits import to_unit
from generative.scores.score import Score, mean_score, ratio_score

_BLOCK = 500
_CLOSE = 0.01  # share of the test images that count as close to a training image


class Neighbours(NamedTuple):
    """Of each query: the distance float32 (N,), intensities in [0, 1], to its nearest image and its index (N,)."""

    distances: Tensor
    indices: Tensor


def nearest_neighbours(queries: Tensor, images: Tensor) -> Neighbours:
    """The nearest of `images`, uint8 (M, 1, 28, 28), to each of `queries`, uint8 (N, 1, 28, 28)."""
    points = to_unit(images).flatten(1)
    norms = points.square().sum(1)

    def nearest(block: Tensor) -> Tensor:
        return (norms - 2 * matmul(to_unit(block).flatten(1), points.T)).argmin(1)

    indices = in_batches(nearest, queries, _BLOCK)
    difference = to_unit(queries).flatten(1) - points[indices]
    return Neighbours(square_root(difference.square().sum(1)), indices)  # exact, also for a copy


class Memorisation(NamedTuple):
    """neighbour_ratio: mean distance of samples to training images over that of test images; below 1 is nearer.

    copied: share of samples nearer to a training image than all but 1% of the test images are; 0.01 for test
    images themselves, lower is better.
    """

    neighbour_ratio: Score
    copied: Score


def memorisation(samples: Tensor, test: Tensor) -> Memorisation:
    """Compare distances to the nearest training image, of `samples` (N,) and of `test` images (M,)."""
    limit = torch.quantile(test, _CLOSE)
    return Memorisation(ratio_score(mean_score(samples), mean_score(test)), mean_score(samples < limit))
