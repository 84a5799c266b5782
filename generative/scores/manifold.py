"""Precision, recall, density and coverage: how two feature sets overlap, each seen as a union of balls.

A ball surrounds each feature and reaches to its k-th nearest neighbour within its own set. Precision and recall:
Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models", NeurIPS
(k = 3). Density and coverage: Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative
Models", ICML (k = 5).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from generative.compute.batching import in_batches
from generative.compute.portable import matmul
from generative.scores.score import Score, mean_score

_BLOCK = 1000  # rows of a distance matrix that are in memory at once
PRECISION_RECALL_K = 3
DENSITY_COVERAGE_K = 5


class Radii(NamedTuple):
    """Of each feature, squared distances float32 (N,) to its PRECISION_RECALL_K-th and DENSITY_COVERAGE_K-th neighbour.

    Squared, since the square of a root is not always the number itself: a feature on the border of a ball would often
    lie outside.
    """

    small: Tensor
    large: Tensor


class Overlap(NamedTuple):
    """precision: share of samples inside a real ball; recall: share of real features inside a sample's ball.

    density: real balls that a sample lies in, on average, over k: 1 for real features, can exceed 1;
    coverage: share of real balls that hold a sample. All: higher is better.
    """

    precision: Score
    recall: Score
    density: Score
    coverage: Score


def neighbour_radii(features: Tensor) -> Radii:
    """The radii of the balls around `features` (N, d), N > DENSITY_COVERAGE_K."""
    features = _around(features.double().mean(0), features)
    squares = nearest_squares(features, features, DENSITY_COVERAGE_K + 1)  # the nearest is the feature itself
    return Radii(squares[:, PRECISION_RECALL_K], squares[:, DENSITY_COVERAGE_K])


def overlap(samples: Tensor, real: Tensor, radii: Radii) -> Overlap:
    """Compare features `samples` (N, d) with `real` (M, d), whose `neighbour_radii` are given."""
    middle = real.double().mean(0)
    samples, real = _around(middle, samples), _around(middle, real)
    sample_radii = nearest_squares(samples, samples, PRECISION_RECALL_K + 1)[:, PRECISION_RECALL_K]

    inside_any, balls, real_inside = [], [], torch.zeros(len(real), dtype=torch.bool)
    nearest = torch.full((len(real),), torch.inf)
    for block, radius in zip(samples.split(_BLOCK), sample_radii.split(_BLOCK), strict=True):
        squares = _squared_distances(block, real)
        inside_any.append((squares <= radii.small).any(1))
        balls.append((squares <= radii.large).sum(1))
        real_inside |= (squares <= radius.unsqueeze(1)).any(0)
        nearest = torch.minimum(nearest, squares.amin(0))
    return Overlap(
        precision=mean_score(torch.cat(inside_any)),
        recall=mean_score(real_inside),
        density=mean_score(torch.cat(balls).double() / DENSITY_COVERAGE_K),
        coverage=mean_score(nearest <= radii.large),
    )


def nearest_squares(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """Squared Euclidean distances (N, k) from each of `queries` (N, d) to its k nearest `points` (M, d), ascending.

    All are float32, and best near the origin: there the distances are right to a millionth of the squared features.
    """
    return in_batches(lambda block: _squared_distances(block, points).topk(k, largest=False).values, queries, _BLOCK)


def _around(middle: Tensor, features: Tensor) -> Tensor:
    """The `features` (N, d) as float32, less `middle` (d,): what float32 then rounds away, no distance shows."""
    return (features.double() - middle).float()


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances (N, M) between `a` (N, d) and `b` (M, d)."""
    cross = matmul(a, b.T).mul_(-2)
    return cross.add_(a.square().sum(1, keepdim=True)).add_(b.square().sum(1)).clamp_(min=0)
