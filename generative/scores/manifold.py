"""Precision, recall, density and coverage: how two feature sets overlap, each seen as a union of balls.

A ball surrounds each feature and reaches to its k-th nearest neighbour within its own set. Precision and recall:
Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models", NeurIPS
(k = 3). Density and coverage: Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative
Models", ICML (k = 5).
"""

from typing import NamedTuple

import torch
from torch import Tensor

_BLOCK = 1000  # rows of a distance matrix that are in memory at once
PRECISION_RECALL_K = 3
DENSITY_COVERAGE_K = 5


class Overlap(NamedTuple):
    """precision: share of samples inside a real ball; recall: share of real features inside a sample's ball.

    density: real balls that a sample lies in, on average, over k: 1 for real features, can exceed 1;
    coverage: share of real balls that hold a sample. All: higher is better.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def overlap(samples: Tensor, real: Tensor) -> Overlap:
    """Compare features `samples` (N, d) with `real` (M, d), in float64; more than DENSITY_COVERAGE_K of each."""
    samples, real = samples.double(), real.double()
    radii = neighbour_distances(real, real, DENSITY_COVERAGE_K + 1)  # the nearest is the feature itself
    real_small, real_large = radii[:, PRECISION_RECALL_K], radii[:, DENSITY_COVERAGE_K]
    sample_small = neighbour_distances(samples, samples, PRECISION_RECALL_K + 1)[:, PRECISION_RECALL_K]

    inside_any, balls, real_inside = [], [], torch.zeros(len(real), dtype=torch.bool)
    nearest = torch.full((len(real),), torch.inf, dtype=torch.float64)
    for block, radius in zip(samples.split(_BLOCK), sample_small.split(_BLOCK), strict=True):
        distances = torch.cdist(block, real)
        inside_any.append((distances <= real_small).any(1))
        balls.append((distances <= real_large).sum(1))
        real_inside |= (distances <= radius.unsqueeze(1)).any(0)
        nearest = torch.minimum(nearest, distances.amin(0))
    return Overlap(
        precision=float(torch.cat(inside_any).double().mean()),
        recall=float(real_inside.double().mean()),
        density=float(torch.cat(balls).double().mean() / DENSITY_COVERAGE_K),
        coverage=float((nearest <= real_large).double().mean()),
    )


def neighbour_distances(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """Euclidean distances (N, k) from each of `queries` (N, d) to its k nearest `points` (M, d), ascending."""
    return torch.cat([torch.cdist(block, points).topk(k, largest=False).values for block in queries.split(_BLOCK)])
