"""What a bounded likelihood says: how tight the bound is, and how much of the latent space is in use.

Burda, Grosse, Salakhutdinov 2016, "Importance Weighted Autoencoders", ICLR: the importance-weighted bound (equation
8) and active units (section 2.2 and appendix).
"""

import math

import torch
from torch import Tensor

from generative.scores.score import Score, mean_score

_ACTIVE = 0.01  # variance of a posterior mean over the images above which a unit counts as active (Burda et al.)


def importance_weighted_bound(log_weights: Tensor) -> Tensor:
    """log of the mean weight of each image, (B,), from its log weights (B, K), both in nats per image."""
    return torch.logsumexp(log_weights.double(), 1) - math.log(log_weights.shape[1])


def tightened_bound(elbo: Tensor, part_elbo: Tensor, part_bound: Tensor) -> Score:
    """The importance-weighted bound over all images, when it was computed for a part of them only.

    The gap to the evidence lower bound varies far less from image to image than the bound itself, so that the mean
    gap of the part is added to the mean over all: a control variate.

    Args:
        elbo: evidence lower bound of every image, (N,), one posterior sample each.
        part_elbo: the mean log weight of each image of the part, (M,), from as many samples as `part_bound`.
        part_bound: their importance-weighted bound, (M,).
    """
    overall, gap = mean_score(elbo), mean_score(part_bound - part_elbo)
    return Score(overall.value + gap.value, math.hypot(overall.error, gap.error))


def active_units(posterior_means: Tensor) -> int:
    """How many of the d latent dimensions depend on the image; `posterior_means` is (N, d) over many images."""
    return int((posterior_means.double().var(0) > _ACTIVE).sum())
