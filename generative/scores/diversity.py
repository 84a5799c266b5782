"""How different the images of one set are from each other."""

import torch
from torch import Tensor


def mean_distance(features: Tensor) -> float:
    """Mean Euclidean distance between two different rows of `features` (N, d), N >= 2; 0 if all are equal."""
    features = features.double()
    distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    return float(distances.sum() / (len(features) * (len(features) - 1)))
