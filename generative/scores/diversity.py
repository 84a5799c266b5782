"""How different the images of one set are from each other."""

import torch
from torch import Tensor

from generative.scores.score import Score


def mean_distance(features: Tensor) -> Score:
    """Mean Euclidean distance between two different rows of `features` (N, d), N >= 2; 0 if all are equal.

    The error is that of a mean over pairs (Hoeffding 1948, "A Class of Statistics with Asymptotically Normal
    Distribution", Annals of Mathematical Statistics 19).
    """
    features = features.double()
    distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    by_row = distances.sum(1) / (len(features) - 1)
    return Score(float(by_row.mean()), float(2 * by_row.std() / len(features) ** 0.5))
